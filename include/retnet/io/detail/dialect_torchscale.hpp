// SPDX-License-Identifier: MIT
// config.json of the torchscale family: microsoft/torchscale before and since 2023-09-29,
// syncdoth/RetNet and syncdoth/RetNet-XATL.
#pragma once

#include <cmath>

#include "retnet/io/detail/dialect_attention.hpp"
#include "retnet/model/presets.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr std::initializer_list<std::pair<const char*, Activation>> kV1Activations = {
    {"gelu", Activation::gelu}, {"relu", Activation::relu}};
inline constexpr std::initializer_list<std::pair<const char*, Activation>> kTorchscaleActivations =
    {{"gelu", Activation::gelu}, {"swish", Activation::swish}, {"relu", Activation::relu}};
inline constexpr std::initializer_list<std::pair<const char*, Activation>> kXatlActivations = {
    {"gelu", Activation::gelu},
    {"swish", Activation::swish},
    {"relu", Activation::relu},
    {"gelu_new", Activation::gelu_tanh}};

/// Widths, with the defaults of each class; XATL knows them under a second name each.
inline ModelSize torchscale_size(DialectKeys& keys) {
  const Dialect dialect = keys.dialect();
  const bool v1 = dialect == Dialect::torchscale_v1;
  const auto size = [&](const char* key, const char* other, Index otherwise) {
    return dialect == Dialect::xatl ? keys.size(key, other, otherwise) : keys.size(key, otherwise);
  };
  ModelSize s;
  s.d_model = size("decoder_embed_dim", "hidden_size", 768);
  s.layers = size("decoder_layers", "num_hidden_layers", 12);
  s.heads = size("decoder_retention_heads", "num_attention_heads", 3);
  s.d_value = v1 ? 2 * s.d_model : keys.size("decoder_value_embed_dim", 1280);
  s.ffn = size("decoder_ffn_embed_dim", "intermediate_size", v1 ? 1536 : 1280);
  if (!is_hugging_face(dialect) && keys.find("vocab_size") == nullptr)
    keys.fail("vocab_size", nullptr, "it to be given");
  s.vocab = keys.size("vocab_size", 50257);
  return s;
}

/// The keys that all four have, and their two rules: what DeepNorm and the sub-layer norm imply.
/// True if the sub-layer norm is on.
inline bool torchscale_common(DialectKeys& keys, RetNetConfig& c) {
  bool subln = keys.flag("subln", true);
  bool normalize_before = keys.flag("decoder_normalize_before", true);
  c.deepnorm = keys.flag("deepnorm", false);
  if (c.deepnorm) subln = false;
  // torchscale v2 sets a key for encoders here instead.
  const bool implied = keys.dialect() != Dialect::torchscale_v2;
  if (implied && c.deepnorm) normalize_before = false;
  if (implied && subln) normalize_before = true;
  c.residual = normalize_before ? Residual::pre : Residual::post;
  c.final_norm = normalize_before;
  c.norm_eps = keys.number("layernorm_eps", keys.dialect() == Dialect::torchscale_v1 ? 1e-5 : 1e-6);
  c.scale_embedding = !keys.flag("no_scale_embedding", true);
  c.embedding_norm = keys.flag("layernorm_embedding", false);
  c.feed_forward.activation =
      keys.activation("activation_fn", "gelu",
                      keys.dialect() == Dialect::xatl            ? kXatlActivations
                      : keys.dialect() == Dialect::torchscale_v1 ? kV1Activations
                                                                 : kTorchscaleActivations);
  c.dropout = keys.number("dropout", 0.0);
  c.feed_forward.activation_dropout = keys.number("activation_dropout", 0.0);
  keys.inert({"drop_path_rate", "recurrent_chunk_size"});
  return subln;
}

/// The two-layer network in the place of the GLU: with biases, and a norm inside.
inline void mlp_instead(DialectKeys& keys, RetNetConfig& c, bool subln, NormKind norm) {
  FeedForwardConfig& f = c.feed_forward;
  f.kind = FeedForwardKind::mlp;
  f.bias = true;
  if (!subln) return;
  f.sub_norm = norm;
  f.sub_norm_eps = c.norm_eps;
  presets::detail::enlarge_init(c);
  if (keys.dialect() != Dialect::torchscale_v1 && f.hidden != c.d_model)
    keys.refuse_value(
        "decoder_ffn_embed_dim", f.hidden,
        "the original makes its ffn_layernorm as wide as the model, so that only this "
        "width runs",
        concat("decoder_embed_dim = ", c.d_model, ", or subln = false"));
}

inline void torchscale_normalization(DialectKeys& keys, RetNetConfig& c) {
  const bool v1 = keys.dialect() == Dialect::torchscale_v1;
  c.retention.normalization = keys.compat() == Compat::exact ? Normalization::row_sum
                              : v1                           ? Normalization::torchscale_v1
                                                             : Normalization::torchscale;
}

/// What microsoft/torchscale has beside the above.
inline void torchscale_rest(DialectKeys& keys, RetNetConfig& c) {
  c.tied_output = keys.flag("share_decoder_input_output_embed", false);
  keys.refuse("moe_freq", "a mixture of experts", "a checkpoint without");
  keys.refuse("use_xmoe", "a mixture of experts", "a checkpoint without");
  keys.refuse("multiway", "two sets of weights", "a checkpoint without");
  keys.refuse("no_output_layer", "a model without output", "a language model");
  keys.inert({"checkpoint_activations", "chunkwise_recurrent", "ddp_rank",
              "encoder_normalize_before", "fsdp", "max_rel_pos", "max_target_positions",
              "moe_eval_capacity_token_fraction", "moe_expert_count", "moe_gating_use_fp32",
              "moe_normalize_gate_prob_before_dropping", "moe_second_expert_policy",
              "moe_top1_expert", "rel_pos_buckets", "xpos_rel_pos", "xpos_scale_base"});
}

inline void syncdoth_rest(DialectKeys& keys, RetNetConfig& c, bool subln) {
  hugging_face_keys(keys);
  c.tied_output = keys.flag("tie_word_embeddings", false);
  const bool rms = keys.flag("use_ffn_rms_norm", false);
  if (!keys.flag("use_glu", true))
    mlp_instead(keys, c, subln, rms ? NormKind::rms : NormKind::layer);
  if (keys.flag("use_lm_decay", false)) c.retention.decay = DecayKind::linspace;
  keys.inert({"forward_impl", "output_retentions", "z_loss_coeff"});
}

/// 1 - e^x of x from log2(1/32) to log2(1/512), evenly spaced: XATL mixes the bases.
inline std::vector<double> xatl_gamma(Index heads) {
  std::vector<double> out;
  for (Index h = 0; h < heads; ++h) {
    const double t = heads > 1 ? static_cast<double>(h) / static_cast<double>(heads - 1) : 0.0;
    out.push_back(-std::expm1(-5.0 - 4.0 * t));
  }
  return out;
}

inline void xatl_retention(DialectKeys& keys, RetNetConfig& c, bool bias, NormKind norm) {
  RetentionConfig& r = c.retention;
  r.scale_on = ScaleOn::query;
  r.bias = bias;
  if (!keys.flag("retnet_stability_update", false)) r.normalization = Normalization::none;
  if (keys.flag("groupnorm_affine", false)) {
    r.head_norm = norm;
    r.head_norm_affine = Affine::per_head_dim;
    r.head_norm_bias = norm == NormKind::layer && bias;
  }
  const double percentage = keys.number("rotary_percentage", 1.0);
  const Index dk = r.heads > 0 ? c.d_model / r.heads : 0;
  const double turned = static_cast<double>(dk) * percentage;
  if (!(percentage >= 0.0 && percentage <= 1.0))
    keys.fail("rotary_percentage", percentage, "a number from 0 to 1");
  if (turned < 1.0) {
    r.rotation = RotationLayout::none;
  } else if (static_cast<Index>(turned) != dk) {
    r.rotary_dim = static_cast<Index>(turned);
  }
  if (const auto* width = keys.find("retnet_bottleneck"); width != nullptr && *width != 0)
    r.bottleneck = keys.optional_size("retnet_bottleneck").value_or(0);
  if (r.bottleneck > 0 && r.d_value != c.d_model)
    keys.refuse_value("retnet_bottleneck", r.bottleneck,
                      "the original's down_proj reads as many values as the model is wide",
                      concat("decoder_value_embed_dim = ", c.d_model, ", or no bottleneck"));
  constexpr Index kMostHeads = 65536;  // bounds what is allocated below
  if (keys.flag("use_lm_decay", false)) {
    if (r.heads > kMostHeads) keys.fail("decoder_retention_heads", r.heads, "at most 65536");
    r.decay = DecayKind::values;
    r.gamma = xatl_gamma(r.heads);
  }
}

inline void xatl_rest(DialectKeys& keys, RetNetConfig& c, bool subln) {
  hugging_face_keys(keys);
  const NormKind norm = keys.flag("use_rms_norm", true) ? NormKind::rms : NormKind::layer;
  const bool bias = keys.flag("use_bias", false);
  c.norm = norm;
  c.tied_output = keys.flag("tie_word_embeddings", false);
  c.output_bias = keys.flag("lm_head_bias", false);
  if (!keys.flag("use_glu", true)) mlp_instead(keys, c, subln, norm);
  xatl_retention(keys, c, bias, norm);
  const bool pre = c.residual == Residual::pre;
  c.ffn_norm = !keys.flag("shared_attention_norm", false);
  if (!c.ffn_norm && !pre)
    keys.refuse_value("shared_attention_norm", true,
                      "with a norm behind the branches there is none "
                      "to share",
                      "decoder_normalize_before = true");
  if (keys.flag("parallel_residual", false)) {
    c.residual = Residual::parallel;
    if (!pre)
      keys.refuse_value("parallel_residual", true, "with norms behind the branches",
                        "decoder_normalize_before = true and deepnorm = false");
  }
  c.attention = attention_layers(hybrid_attention(keys, c.layers, c.retention.heads, bias),
                                 c.retention);
  if (!c.attention.empty() && c.retention.d_value != c.d_model)
    keys.refuse_value("decoder_value_embed_dim", c.retention.d_value,
                      "the original's attention layers have values as wide as the model",
                      concat("decoder_value_embed_dim = ", c.d_model, ", or no attention layers"));
  keys.inert({"forward_impl", "output_retentions", "z_loss_coeff"});
}

inline RetNetConfig torchscale_config(DialectKeys& keys) {
  const bool v1 = keys.dialect() == Dialect::torchscale_v1;
  RetNetConfig c = presets::torchscale_v2(torchscale_size(keys));
  const bool subln = torchscale_common(keys, c);
  c.retention.head_norm_eps = v1 ? 1e-6 : c.norm_eps;
  torchscale_normalization(keys, c);
  if (v1) {
    c.norm = c.retention.head_norm = NormKind::layer;
    c.retention.bias = true;
    c.retention.init_output.gain = 1.0;
    mlp_instead(keys, c, subln, NormKind::layer);
  }
  switch (keys.dialect()) {
    case Dialect::syncdoth: syncdoth_rest(keys, c, subln); break;
    case Dialect::xatl: xatl_rest(keys, c, subln); break;
    default: torchscale_rest(keys, c); break;
  }
  return c;
}

}  // namespace retnet::inline RETNET_ABI::detail
