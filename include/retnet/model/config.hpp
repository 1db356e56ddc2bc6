// SPDX-License-Identifier: MIT
// RetNetConfig: a whole model as data, and the presets that name published dialects.
#pragma once

#include <cmath>
#include <string_view>

#include "retnet/layers/config.hpp"

namespace retnet::inline RETNET_ABI {

/// Widths of the parts may stay 0: the model's d_model is put in their place.
struct RetNetConfig {
  Index vocab = 0;    // V
  Index d_model = 0;  // C
  Index layers = 0;   // L
  RetentionConfig retention = {};
  FeedForwardConfig feed_forward = {};
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-6;
  Residual residual = Residual::pre;
  bool deepnorm = false;         // alpha = (2L)^(1/4); values and outputs start (8L)^(1/4) smaller
  bool scale_embedding = false;  // times sqrt(d_model)
  bool embedding_norm = false;
  bool final_norm = true;
  bool tied_output = false;     // logits = h E^T
  double dropout = 0.0;         // after the embedding and on both branches of a block
  double init_embedding = 0.0;  // standard deviation; 0: d_model^-0.5

  /// The config of every block. Throws std::invalid_argument if the parts contradict each other.
  BlockConfig block() const;
  void validate() const;
};

inline BlockConfig RetNetConfig::block() const {
  BlockConfig b{.retention = retention, .feed_forward = feed_forward};
  if (b.retention.d_model == 0) b.retention.d_model = d_model;
  if (b.feed_forward.d_model == 0) b.feed_forward.d_model = d_model;
  b.norm = norm;
  b.norm_eps = norm_eps;
  b.residual = residual;
  b.dropout = dropout;
  if (deepnorm) {  // Wang et al. 2022, Figure 2, decoder-only
    const auto n = static_cast<double>(layers);
    b.alpha = std::pow(2.0 * n, 0.25);
    const double beta = std::pow(8.0 * n, -0.25);
    for (Init* init : {&b.retention.init_value, &b.retention.init_output, &b.feed_forward.init_in,
                       &b.feed_forward.init_out})
      init->gain *= beta;
  }
  return b;
}

inline void RetNetConfig::validate() const {
  constexpr const char* kWhere = "RetNetConfig";
  constexpr const char* kSee = "\n  see: RetNetConfig in retnet/model/config.hpp";
  RETNET_CHECK(vocab > 0 && d_model > 0 && layers > 0, kWhere, "vocab = ", vocab,
               ", d_model = ", d_model, ", layers = ", layers, "\n  mend: give all three, positive",
               kSee);
  const BlockConfig b = block();
  RETNET_CHECK(b.retention.d_model == d_model, kWhere, "retention.d_model = ", b.retention.d_model,
               ", d_model = ", d_model, "\n  mend: leave retention.d_model 0", kSee);
  RETNET_CHECK(std::isfinite(init_embedding) && init_embedding >= 0.0, kWhere,
               "init_embedding = ", init_embedding,
               "\n  mend: a standard deviation, or 0 for d_model^-0.5", kSee);
  b.validate(kWhere);
}

/// What a preset needs to know. Widths of 0 follow the dialect's own rule.
struct ModelSize {
  Index vocab = 0;
  Index d_model = 0;
  Index layers = 0;
  Index heads = 0;
  Index d_value = 0;
  Index ffn = 0;
};

namespace presets {

/// The paper (Sun et al. 2023): d_v = 2d, centred head norm, layer norm, GELU FFN of width 2d.
inline RetNetConfig paper(const ModelSize& size) {
  RetNetConfig c{.vocab = size.vocab, .d_model = size.d_model, .layers = size.layers};
  c.retention = {.d_model = size.d_model,
                 .heads = size.heads,
                 .d_value = size.d_value,
                 .head_norm = NormKind::layer,
                 .head_norm_eps = 1e-5};
  c.feed_forward = {.d_model = size.d_model, .hidden = size.ffn};
  c.norm = NormKind::layer;
  c.norm_eps = 1e-5;
  return c;
}

/// microsoft/torchscale since 2023-09-29: RMS norms, GLU, d_v = d_ffn = 5/3 d (rounded up to a
/// multiple of 4 heads). The config's own default activation is gelu, its trained models use swish.
inline RetNetConfig torchscale_v2(const ModelSize& size) {
  RetNetConfig c{.vocab = size.vocab, .d_model = size.d_model, .layers = size.layers};
  const Index step = 4 * (size.heads > 0 ? size.heads : 1);
  const Index wide = (5 * size.d_model / 3 + step - 1) / step * step;
  c.retention = {.d_model = size.d_model,
                 .heads = size.heads,
                 .d_value = size.d_value > 0 ? size.d_value : wide};
  c.feed_forward = {.d_model = size.d_model,
                    .hidden = size.ffn > 0 ? size.ffn : wide,
                    .kind = FeedForwardKind::glu,
                    .activation = Activation::swish};
  return c;
}

/// fla-org/flash-linear-attention: half-split rotary angles, no retention normalisation, affine RMS
/// head norm, SwiGLU of width 256 ceil(4d/3 / 256), normal init.
inline RetNetConfig fla(const ModelSize& size) {
  RetNetConfig c{.vocab = size.vocab, .d_model = size.d_model, .layers = size.layers};
  const Init init{Init::Kind::normal, 0.02};
  c.retention = {.d_model = size.d_model,
                 .heads = size.heads,
                 .d_value = size.d_value,
                 .rotation = RotationLayout::half_split,
                 .theta = ThetaKind::rotary,
                 .normalization = Normalization::none,
                 .scale_on = ScaleOn::query,
                 .head_norm_affine = Affine::per_head_dim,
                 .init_projection = init,
                 .init_value = init,
                 .init_output = init};
  const Index wide = (4 * size.d_model / 3 + 255) / 256 * 256;
  c.feed_forward = {.d_model = size.d_model,
                    .hidden = size.ffn > 0 ? size.ffn : wide,
                    .kind = FeedForwardKind::glu,
                    .activation = Activation::swish,
                    .init_in = init,
                    .init_out = init};
  c.init_embedding = 0.02;
  return c;
}

}  // namespace presets

}  // namespace retnet::inline RETNET_ABI
