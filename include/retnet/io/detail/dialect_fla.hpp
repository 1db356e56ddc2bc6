// SPDX-License-Identifier: MIT
// config.json of fla-org/flash-linear-attention.
#pragma once

#include "retnet/io/detail/dialect_attention.hpp"
#include "retnet/model/presets.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr std::initializer_list<std::pair<const char*, Activation>> kFlaActivations = {
    {"swish", Activation::swish}, {"silu", Activation::swish}};

/// int(d * factor), as Python truncates it. Since fla 0.6.0 it must be an integer but for rounding,
/// below as above: 1.15 * 200 is 230.
inline Index expanded(DialectKeys& keys, const char* key, double otherwise, Index d) {
  const double factor = keys.number(key, otherwise);
  const double width = factor * static_cast<double>(d);
  if (!(width >= 1.0 && width < 2147483648.0))
    keys.fail(key, factor, concat("a factor that gives a width from 1 to 2^31 - 1 of ", d));
  const double whole = std::round(width);
  return static_cast<Index>(std::fabs(width - whole) <= 1e-9 * whole ? whole : width);
}

/// The width of the feed-forward network where it is not given: 2/3 ratio d, truncated, then
/// rounded up to a multiple of 256.
inline Index fla_hidden(DialectKeys& keys, Index d) {
  const double ratio = keys.none("hidden_ratio") ? 4.0 : keys.number("hidden_ratio", 2.0);
  if (const auto given = keys.optional_size("intermediate_size")) return *given;
  const double width = static_cast<double>(d) * ratio * 2.0 / 3.0;
  if (!(width >= 1.0 && width < 2147483648.0))
    keys.fail("hidden_ratio", ratio,
              concat("a ratio that gives a width from 1 to 2^31 - 1 of ", d));
  return (static_cast<Index>(width) + 255) / 256 * 256;
}

inline RetNetConfig fla_config(DialectKeys& keys) {
  hugging_face_keys(keys);
  keys.alias("num_kv_heads", "num_key_value_heads");  // the second names are those before 2024-05
  keys.alias("norm_eps", "rms_norm_eps");
  const Index d = keys.size("hidden_size", 2048);
  const Index heads = keys.size("num_heads", "num_attention_heads", 8);
  const Index layers = keys.size("num_hidden_layers", 24);
  RetNetConfig c = presets::fla({.vocab = keys.size("vocab_size", 32000),
                                 .d_model = d,
                                 .layers = layers,
                                 .heads = heads,
                                 .d_value = expanded(keys, "expand_v", 2.0, d),
                                 .ffn = fla_hidden(keys, d)});
  const Index d_key = expanded(keys, "expand_k", 1.0, d);
  if (d_key != d) c.retention.d_key = d_key;
  const auto kv_heads = keys.optional_size("num_kv_heads");
  const auto old_name = keys.optional_size("num_key_value_heads");
  const Index shared = kv_heads.value_or(old_name.value_or(heads));
  if (shared != heads) c.retention.kv_heads = shared;
  c.retention.gate = keys.flag("use_output_gate", true);
  c.retention.gate_activation = keys.activation("hidden_act", "swish", kFlaActivations);
  const double eps = keys.number("norm_eps", keys.number("rms_norm_eps", 1e-6));
  c.retention.head_norm_eps = c.norm_eps = eps;
  if (!keys.flag("elementwise_affine", true)) c.retention.head_norm_affine = Affine::none;
  c.tied_output = keys.flag("tie_word_embeddings", false);
  c.init_embedding = keys.number("initializer_range", 0.02);
  presets::detail::init_all(c, {Init::Kind::normal, c.init_embedding});

  keys.refuse("feature_map", "a feature map on queries and keys", "a checkpoint without");
  keys.refuse("use_short_conv", "short convolutions", "a checkpoint without");
  keys.refuse("attnres_block_size", "attention over the residuals", "a checkpoint without");
  keys.refuse("use_gk", "gated keys", "a checkpoint without");
  keys.refuse("use_gv", "gated values", "a checkpoint without");
  c.attention = attention_layers(hybrid_attention(keys, layers, heads, false), c.retention);
  keys.inert({"attn_mode", "conv_size", "conv_bias", "share_conv_kernel", "fuse_norm",
              "fuse_swiglu", "fuse_cross_entropy", "fuse_linear_cross_entropy", "use_l2warp",
              "max_position_embeddings"});
  return c;
}

/// What fla's config.json says of a config. Fields that it has no words for are left out: who calls
/// this reads the text back and compares.
inline void fla_json(const RetNetConfig& c, nlohmann::ordered_json& json) {
  const auto d = static_cast<double>(c.d_model);
  // A factor that truncates to the width again.
  const auto factor = [&](Index width) {
    double f = static_cast<double>(width) / d;
    while (static_cast<Index>(f * d) < width) f = std::nextafter(f, 2.0 * f);
    return f;
  };
  const RetentionConfig r = retention_of(c);
  json["architectures"] = {"RetNetForCausalLM"};
  json["model_type"] = "retnet";
  json["attn_mode"] = "chunk";
  json["hidden_size"] = c.d_model;
  json["expand_k"] = factor(r.key_width());
  json["expand_v"] = factor(r.value_width());
  json["hidden_ratio"] = 2;
  json["intermediate_size"] = feed_forward_of(c).width();
  json["num_hidden_layers"] = c.layers;
  json["num_heads"] = r.heads;
  json["num_kv_heads"] = r.kv();
  json["feature_map"] = nullptr;
  json["hidden_act"] = "swish";
  json["use_short_conv"] = false;
  json["use_output_gate"] = r.gate;
  json["elementwise_affine"] = r.head_norm_affine != Affine::none;
  json["norm_eps"] = c.norm_eps;
  json["attn"] = fla_attention_json(c.attention);
  json["initializer_range"] = c.init_embedding > 0.0 ? c.init_embedding : 0.02;
  json["fuse_norm"] = true;
  json["tie_word_embeddings"] = c.tied_output;
  json["vocab_size"] = c.vocab;
}

}  // namespace retnet::inline RETNET_ABI::detail
