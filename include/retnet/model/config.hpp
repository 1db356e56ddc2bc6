// SPDX-License-Identifier: MIT
// RetNetConfig: a whole model as data. Published dialects by name: presets.hpp.
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
  bool ffn_norm = true;
  Residual residual = Residual::pre;
  bool deepnorm = false;         // alpha = (2L)^(1/4); values and outputs start (8L)^(1/4) smaller
  bool scale_embedding = false;  // times sqrt(d_model)
  bool embedding_norm = false;
  bool final_norm = true;
  bool tied_output = false;     // logits = h E^T
  bool output_bias = false;     // logits = h W^T + b
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
  b.ffn_norm = ffn_norm;
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

}  // namespace retnet::inline RETNET_ABI
