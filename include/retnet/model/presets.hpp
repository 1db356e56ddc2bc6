// SPDX-License-Identifier: MIT
// The published RetNets by name: dialects as functions of a size, and the sizes that were published.
//
//   auto config = presets::torchscale_v2(sizes::torchscale_xl(/*vocab=*/50257));
#pragma once

#include <cmath>

#include "retnet/model/config.hpp"

namespace retnet::inline RETNET_ABI {

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

namespace detail {

/// `size` with the widths of 0 filled in, in a config that is otherwise the default.
inline RetNetConfig with_widths(const ModelSize& size, Index d_value, Index ffn) {
  RetNetConfig c{.vocab = size.vocab, .d_model = size.d_model, .layers = size.layers};
  c.retention.d_model = c.feed_forward.d_model = size.d_model;
  c.retention.heads = size.heads;
  c.retention.d_value = size.d_value > 0 ? size.d_value : d_value;
  c.feed_forward.hidden = size.ffn > 0 ? size.ffn : ffn;
  return c;
}
inline Index round_up(Index n, Index step) { return (n + step - 1) / step * step; }
inline void layer_norms(RetNetConfig& c, double eps) {
  c.norm = NormKind::layer;
  c.norm_eps = eps;
}
inline void swiglu(RetNetConfig& c) {
  c.feed_forward.kind = FeedForwardKind::glu;
  c.feed_forward.activation = Activation::swish;
}
inline void init_all(RetNetConfig& c, Init init) {
  c.retention.init_projection = c.retention.init_value = c.retention.init_output = init;
  c.feed_forward.init_in = c.feed_forward.init_out = init;
}

/// "Foundation Transformers" (Wang et al. 2022), section 2.3: with sub-layer norms the branches
/// start larger.
inline void enlarge_init(RetNetConfig& c) {
  if (c.layers < 1) return;
  const double gamma = std::sqrt(std::log(2.0 * static_cast<double>(c.layers)));
  for (Init* init : {&c.retention.init_value, &c.retention.init_output, &c.feed_forward.init_in,
                     &c.feed_forward.init_out})
    init->gain *= gamma;
}

}  // namespace detail

/// The paper (Sun et al. 2023): d_v = 2d, centred head norm, layer norm, GELU FFN of width 2d.
inline RetNetConfig paper(const ModelSize& size) {
  RetNetConfig c = detail::with_widths(size, 2 * size.d_model, 2 * size.d_model);
  c.retention.head_norm = NormKind::layer;
  c.retention.head_norm_eps = 1e-5;
  detail::layer_norms(c, 1e-5);
  return c;
}

/// microsoft/torchscale from 2023-07-24 to 2023-09-28: layer norms, biases, d_v = 2d, a GELU network
/// with a norm inside (its `subln`, on by default).
inline RetNetConfig torchscale_v1(const ModelSize& size) {
  RetNetConfig c = detail::with_widths(size, 2 * size.d_model, 2 * size.d_model);
  c.retention.head_norm = NormKind::layer;
  c.retention.bias = c.feed_forward.bias = true;
  c.feed_forward.sub_norm = NormKind::layer;
  detail::layer_norms(c, 1e-5);
  c.retention.init_output.gain = 1.0;
  detail::enlarge_init(c);
  return c;
}

/// microsoft/torchscale since 2023-09-29: RMS norms, GLU, d_v = d_ffn = 5/3 d (rounded up to a
/// multiple of 4 heads). The config's own default activation is gelu, its trained models use swish.
inline RetNetConfig torchscale_v2(const ModelSize& size) {
  const Index step = 4 * (size.heads > 0 ? size.heads : 1);
  const Index wide = detail::round_up(5 * size.d_model / 3, step);
  RetNetConfig c = detail::with_widths(size, wide, wide);
  detail::swiglu(c);
  return c;
}

/// syncdoth/RetNet: torchscale_v2 as its published sizes use it, with a scaled and normalised
/// embedding.
inline RetNetConfig syncdoth(const ModelSize& size) {
  RetNetConfig c = torchscale_v2(size);
  c.scale_embedding = c.embedding_norm = true;
  return c;
}

/// syncdoth/RetNet-XATL: like torchscale_v2, without the normalisation of retention, the query
/// scaled.
inline RetNetConfig xatl(const ModelSize& size) {
  RetNetConfig c = torchscale_v2(size);
  c.retention.normalization = Normalization::none;
  c.retention.scale_on = ScaleOn::query;
  return c;
}

/// fla-org/flash-linear-attention: half-split rotary angles, no retention normalisation, affine RMS
/// head norm, SwiGLU of width 256 ceil(4d/3 / 256), normal init.
inline RetNetConfig fla(const ModelSize& size) {
  RetNetConfig c = detail::with_widths(size, 2 * size.d_model,
                                       detail::round_up(4 * size.d_model / 3, 256));
  c.retention.rotation = RotationLayout::half_split;
  c.retention.theta = ThetaKind::rotary;
  c.retention.normalization = Normalization::none;
  c.retention.scale_on = ScaleOn::query;
  c.retention.head_norm_affine = Affine::per_head_dim;
  detail::swiglu(c);
  detail::init_all(c, {Init::Kind::normal, 0.02});
  c.init_embedding = 0.02;
  return c;
}

/// microsoft/unilm YOCO (Sun et al. 2024, "You Only Cache Once"): half of the layers are gated
/// retention with d_v = d, the other half attend to one cache that is made from what those give.
inline RetNetConfig yoco(const ModelSize& size) {
  RetNetConfig c = detail::with_widths(size, size.d_model,
                                       detail::round_up(8 * size.d_model / 3, 256));
  c.layers = size.layers / 2;
  c.cross_decoder.layers = size.layers / 2;
  c.cross_decoder.attention.heads = size.heads;
  c.retention.decay = DecayKind::gated;
  c.retention.normalization = Normalization::none;
  c.retention.head_norm_eps = c.norm_eps = c.cross_decoder.attention.norm_eps = 1e-5;
  detail::swiglu(c);
  c.scale_embedding = true;
  return c;
}

/// fkodom/yet-another-retnet: biases everywhere, d_v = d, centred head norm, layer norms, a swish
/// network of width 2048, no final norm. Residual::branch is its norm_first = False.
inline RetNetConfig yar(const ModelSize& size) {
  RetNetConfig c = detail::with_widths(size, size.d_model, 2048);
  c.retention.decay = DecayKind::linspace;
  c.retention.normalization = Normalization::none;
  c.retention.head_norm = NormKind::layer;
  c.retention.bias = c.feed_forward.bias = c.output_bias = true;
  c.feed_forward.activation = Activation::swish;
  detail::layer_norms(c, 1e-6);
  c.final_norm = false;
  // Its normal Xavier init has the variance of the uniform one.
  detail::init_all(c, {Init::Kind::xavier_uniform, 1.0});
  return c;
}

/// Jamie-Stirling/RetNet: unscaled keys under xPos, d_v = d, an affine GroupNorm with bias, layer
/// norms, a GELU network with biases, no final norm. It has no embedding and no output of its own.
inline RetNetConfig jamie(const ModelSize& size) {
  RetNetConfig c = detail::with_widths(size, size.d_model, 2 * size.d_model);
  c.retention.decay = DecayKind::linspace;
  c.retention.theta = ThetaKind::rotary;
  c.retention.xpos_base = 512.0;
  c.retention.normalization = Normalization::none;
  c.retention.scale_on = ScaleOn::none;
  c.retention.head_norm = NormKind::layer;
  c.retention.head_norm_affine = Affine::per_channel;
  c.retention.head_norm_bias = true;
  c.retention.head_norm_eps = 1e-5;
  c.feed_forward.bias = true;
  detail::layer_norms(c, 1e-5);
  c.final_norm = false;
  const double d = static_cast<double>(size.d_model > 0 ? size.d_model : 1);
  c.retention.init_projection = c.retention.init_value = c.retention.init_output = {
      Init::Kind::normal, 1.0 / d};
  return c;
}

}  // namespace presets

/// Published sizes, by the name that they were published under.
namespace sizes {

// microsoft/torchscale: Dk = 256 throughout; Dv = 432, or 428 in the two whose d is no power of two.
inline ModelSize torchscale_base(Index vocab) { return {vocab, 512, 6, 2, 864, 864}; }
inline ModelSize torchscale_medium(Index vocab) { return {vocab, 1024, 16, 4, 1728, 1728}; }
inline ModelSize torchscale_xl(Index vocab) { return {vocab, 2048, 24, 8, 3456, 3456}; }
inline ModelSize torchscale_3b(Index vocab) { return {vocab, 2560, 32, 10, 4280, 4280}; }
inline ModelSize torchscale_7b(Index vocab) { return {vocab, 4096, 32, 16, 6912, 6912}; }
inline ModelSize torchscale_13b(Index vocab) { return {vocab, 5120, 40, 20, 8560, 8560}; }
inline ModelSize torchscale_65b(Index vocab) { return {vocab, 8192, 64, 32, 13824, 13824}; }

// Sun et al. 2023, Table 2.
inline ModelSize paper_1_3b(Index vocab) { return {vocab, 2048, 24, 8, 4096, 4096}; }
inline ModelSize paper_2_7b(Index vocab) { return {vocab, 2560, 32, 10, 5120, 5120}; }
inline ModelSize paper_6_7b(Index vocab) { return {vocab, 4096, 32, 16, 8192, 8192}; }

// fla-hub/retnet-1.3B-100B: 1351.7 million parameters.
inline ModelSize fla_1_3b(Index vocab = 32000) { return {vocab, 2048, 24, 8, 4096, 2816}; }

}  // namespace sizes

}  // namespace retnet::inline RETNET_ABI
