// SPDX-License-Identifier: MIT
// RetNetConfig: a whole model as data. Published dialects by name: presets.hpp.
#pragma once

#include <cmath>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/layers/attention_config.hpp"
#include "retnet/layers/config.hpp"

namespace retnet::inline RETNET_ABI {

/// A block of the stack whose mixer is softmax attention instead of retention.
struct AttentionLayer {
  Index layer = 0;  // which one, counted from 0
  AttentionConfig attention = {};
};

/// Blocks behind the others that all attend to one cache of keys and values, made once from what
/// the others give (Sun et al. 2024, "You Only Cache Once").
struct CrossDecoderConfig {
  Index layers = 0;
  CrossAttentionConfig attention = {};
};

/// Widths of the parts may stay 0: the model's d_model is put in their place.
struct RetNetConfig {
  Index vocab = 0;    // V
  Index d_model = 0;  // C
  Index layers = 0;   // L
  RetentionConfig retention = {};
  FeedForwardConfig feed_forward = {};
  std::vector<AttentionLayer> attention = {};  // layers that have no retention
  CrossDecoderConfig cross_decoder = {};
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

  /// The config of every block of retention, of an attention layer, of the cross-decoder's blocks.
  BlockConfig block() const;
  BasicBlockConfig<AttentionConfig> attention_block(const AttentionLayer& layer) const;
  BasicBlockConfig<CrossAttentionConfig> cross_block() const;
  /// The attention that stands in place of retention in a layer; null: none.
  const AttentionLayer* attention_at(Index layer) const;
  /// Throws std::invalid_argument if the parts contradict each other.
  void validate() const;
};

namespace detail {

// DeepNorm starts values and outputs smaller (Wang et al. 2022, "DeepNet", Figure 2, decoder-only).
inline void scale_inits(RetentionConfig& mixer, double beta) {
  mixer.init_value.gain *= beta;
  mixer.init_output.gain *= beta;
}
template <class AnyAttention>
void scale_inits(AnyAttention& mixer, double beta) {
  mixer.init_output.gain *= beta;
}

template <class MixerConfig>
BasicBlockConfig<MixerConfig> block_with(const RetNetConfig& c, MixerConfig mixer) {
  BasicBlockConfig<MixerConfig> b{.mixer = std::move(mixer), .feed_forward = c.feed_forward};
  if (b.mixer.d_model == 0) b.mixer.d_model = c.d_model;
  if (b.feed_forward.d_model == 0) b.feed_forward.d_model = c.d_model;
  b.norm = c.norm;
  b.norm_eps = c.norm_eps;
  b.ffn_norm = c.ffn_norm;
  b.residual = c.residual;
  b.dropout = c.dropout;
  if (c.deepnorm) {
    const auto n = static_cast<double>(c.layers + c.cross_decoder.layers);
    b.alpha = std::pow(2.0 * n, 0.25);
    const double beta = std::pow(8.0 * n, -0.25);
    scale_inits(b.mixer, beta);
    b.feed_forward.init_in.gain *= beta;
    b.feed_forward.init_out.gain *= beta;
  }
  return b;
}

}  // namespace detail

inline BlockConfig RetNetConfig::block() const { return detail::block_with(*this, retention); }
inline BasicBlockConfig<AttentionConfig> RetNetConfig::attention_block(
    const AttentionLayer& layer) const {
  return detail::block_with(*this, layer.attention);
}
inline BasicBlockConfig<CrossAttentionConfig> RetNetConfig::cross_block() const {
  return detail::block_with(*this, cross_decoder.attention);
}
inline const AttentionLayer* RetNetConfig::attention_at(Index layer) const {
  for (const auto& a : attention)
    if (a.layer == layer) return &a;
  return nullptr;
}

inline void RetNetConfig::validate() const {
  constexpr const char* kWhere = "RetNetConfig";
  constexpr const char* kSee = "\n  see: RetNetConfig in retnet/model/config.hpp";
  RETNET_CHECK(vocab > 0 && d_model > 0 && layers > 0, kWhere, "vocab = ", vocab,
               ", d_model = ", d_model, ", layers = ", layers, "\n  mend: give all three, positive",
               kSee);
  const BlockConfig b = block();
  RETNET_CHECK(b.mixer.d_model == d_model, kWhere, "retention.d_model = ", b.mixer.d_model,
               ", d_model = ", d_model, "\n  mend: leave retention.d_model 0", kSee);
  RETNET_CHECK(std::isfinite(init_embedding) && init_embedding >= 0.0, kWhere,
               "init_embedding = ", init_embedding,
               "\n  mend: a standard deviation, or 0 for d_model^-0.5", kSee);
  b.validate(kWhere);
  std::set<Index> seen;
  for (const auto& a : attention) {
    RETNET_CHECK(a.layer >= 0 && a.layer < layers && seen.insert(a.layer).second, kWhere,
                 "attention names layer ", a.layer, ", layers = ", layers,
                 "\n  mend: name each layer once, counted from 0", kSee);
    attention_block(a).validate(kWhere);
  }
  RETNET_CHECK(cross_decoder.layers >= 0, kWhere, "cross_decoder.layers = ", cross_decoder.layers,
               "\n  mend: how many, or 0 for none", kSee);
  if (cross_decoder.layers > 0) cross_block().validate(kWhere);
}

}  // namespace retnet::inline RETNET_ABI
