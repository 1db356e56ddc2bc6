// SPDX-License-Identifier: MIT
// A config as the config.json of a dialect. What is written is read back and compared, so that
// nothing is lost in silence.
#pragma once

#include <algorithm>
#include <string>
#include <type_traits>

#include "retnet/io/config_json.hpp"
#include "retnet/io/detail/dialect_fla.hpp"
#include "retnet/io/detail/dialect_torchscale.hpp"
#include "retnet/io/dtype.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline const char* torchscale_word(Activation kind) {
  return kind == Activation::gelu_tanh ? "gelu_new" : word(kind);
}

inline void microsoft_json(const RetNetConfig& c, nlohmann::ordered_json& json) {
  json["moe_freq"] = 0;
  json["multiway"] = false;
  json["share_decoder_input_output_embed"] = c.tied_output;
  json["no_output_layer"] = false;
  json["max_target_positions"] = 1024;
  json["chunkwise_recurrent"] = false;
}

inline void syncdoth_json(const RetNetConfig& c, nlohmann::ordered_json& json) {
  json["architectures"] = {"RetNetForCausalLM"};
  json["model_type"] = "retnet";
  json["use_glu"] = c.feed_forward.kind == FeedForwardKind::glu;
  json["tie_word_embeddings"] = c.tied_output;
  json["use_lm_decay"] = false;
}

inline void xatl_json(const RetNetConfig& c, nlohmann::ordered_json& json) {
  const RetentionConfig r = retention_of(c);
  json["use_rms_norm"] = c.norm == NormKind::rms;
  json["use_bias"] = r.bias;
  json["groupnorm_affine"] = r.head_norm_affine != Affine::none;
  json["lm_head_bias"] = c.output_bias;
  json["parallel_residual"] = c.residual == Residual::parallel;
  json["shared_attention_norm"] = !c.ffn_norm;
  json["retnet_stability_update"] = r.normalization != Normalization::none;
  json["retnet_bottleneck"] = r.bottleneck > 0 ? nlohmann::ordered_json(r.bottleneck) : nullptr;
  for (const auto& a : c.attention) json["hybrid_attention_layers"].push_back(a.layer);
  // A share that truncates to the number of dimensions again.
  const auto dk = static_cast<double>(r.key_dim());
  const Index turned = r.rotation == RotationLayout::none ? 0 : r.rotary();
  double share = static_cast<double>(turned) / dk;
  while (static_cast<Index>(dk * share) < turned) share = std::nextafter(share, 2.0);
  json["rotary_percentage"] = share;
}

/// What a config.json of the torchscale family says of a config. Fields that it has no words for
/// are left out: who calls this reads the text back and compares.
inline void torchscale_json(const RetNetConfig& c, Dialect dialect, nlohmann::ordered_json& json) {
  const FeedForwardConfig f = feed_forward_of(c);
  if (dialect == Dialect::syncdoth || dialect == Dialect::xatl) {
    syncdoth_json(c, json);
  } else {
    microsoft_json(c, json);
  }
  if (dialect == Dialect::xatl) xatl_json(c, json);
  if (dialect == Dialect::syncdoth) {
    json["use_ffn_rms_norm"] = f.sub_norm == NormKind::rms;
    json["use_lm_decay"] = c.retention.decay == DecayKind::linspace;
  }
  json["decoder_embed_dim"] = c.d_model;
  if (dialect != Dialect::torchscale_v1)
    json["decoder_value_embed_dim"] = retention_of(c).value_width();
  json["decoder_retention_heads"] = c.retention.heads;
  json["decoder_ffn_embed_dim"] = f.width();
  json["decoder_layers"] = c.layers;
  json["decoder_normalize_before"] = c.final_norm;
  json["activation_fn"] = torchscale_word(f.activation);
  json["dropout"] = c.dropout;
  json["activation_dropout"] = f.activation_dropout;
  json["drop_path_rate"] = 0.0;
  json["no_scale_embedding"] = !c.scale_embedding;
  json["layernorm_embedding"] = c.embedding_norm;
  json["deepnorm"] = c.deepnorm;
  json["subln"] = f.sub_norm != NormKind::none;
  json["layernorm_eps"] = c.norm_eps;
  json["recurrent_chunk_size"] = 512;
  json["vocab_size"] = c.vocab;
}

/// Widths of 0 filled in, and what does not change the function of a trained model made equal.
inline RetNetConfig canonical(RetNetConfig c) {
  RetentionConfig& r = c.retention = retention_of(c);
  FeedForwardConfig& f = c.feed_forward = feed_forward_of(c);
  r.kv_heads = r.kv();
  r.d_key = r.key_width();
  r.d_value = r.value_width();
  r.rotary_dim = r.rotation == RotationLayout::none ? 0 : r.rotary();
  if (!r.gate) r.gate_activation = Activation::swish;
  if (r.scale_on == ScaleOn::query) r.scale_on = ScaleOn::key;  // the same product
  f.hidden = f.width();
  if (f.sub_norm == NormKind::none) f.sub_norm_eps = 0.0;
  r.init_projection = r.init_value = r.init_output = f.init_in = f.init_out = {};
  c.init_embedding = 0.0;
  std::ranges::sort(c.attention, {}, &AttentionLayer::layer);
  for (auto& [layer, a] : c.attention) {
    if (a.d_model == 0) a.d_model = c.d_model;
    a.kv_heads = a.kv();
    a.head_dim = a.dim();
    a.rotary_dim = a.rotation == RotationLayout::none ? 0 : a.rotary();
    a.scale = a.score_scale();
    if (!a.qk_norm) a.qk_norm_eps = 0.0;
    a.init_projection = a.init_output = {};
  }
  return c;
}

/// Throws std::invalid_argument naming the first field, "retention.kv_heads" for instance, in which
/// the config differs from what its config.json says.
inline void check_expressed(const nlohmann::ordered_json& wanted,
                            const nlohmann::ordered_json& expressed, Dialect dialect,
                            const std::string& path) {
  for (const auto& [name, value] : wanted.items()) {
    const auto it = expressed.find(name);
    const nlohmann::ordered_json other = it == expressed.end() ? nullptr : *it;
    const std::string field = concat(path, path.empty() ? "" : ".", name);
    if (value.is_object() && other.is_object()) {
      check_expressed(value, other, dialect, field);
      continue;
    }
    RETNET_CHECK(value == other, "dialect_config_to_json", field, " = ", shown(value.dump()),
                 " has no words in dialect ", word(dialect), ", expected ", shown(other.dump()));
  }
}

inline bool has_rel_pos(Dialect dialect) {
  return dialect != Dialect::retnet && dialect != Dialect::fla;
}

inline std::string write_dialect_config(const RetNetConfig& config, Dialect dialect,
                                        Dtype storage) {
  config.validate();
  nlohmann::ordered_json json;
  if (dialect == Dialect::fla) {
    fla_json(config, json);
  } else {
    torchscale_json(config, dialect, json);
  }
  if (is_hugging_face(dialect))
    json["torch_dtype"] = storage == Dtype::bf16  ? "bfloat16"
                          : storage == Dtype::f16 ? "float16"
                          : storage == Dtype::f64 ? "float64"
                                                  : "float32";

  const Compat compat = config.retention.compat() ? Compat::reference : Compat::exact;
  const nlohmann::json copy = json;
  DialectKeys keys(dialect, copy, {.compat = compat}, "config.json");
  RetNetConfig expressed = dialect == Dialect::fla ? fla_config(keys) : torchscale_config(keys);
  keys.finish();
  RetNetConfig wanted = canonical(config);
  if (has_rel_pos(dialect)) {  // the file's own buffers say these
    wanted.retention.decay = expressed.retention.decay;
    wanted.retention.gamma = expressed.retention.gamma;
    wanted.retention.theta = expressed.retention.theta;
    wanted.retention.theta_base = expressed.retention.theta_base;
    wanted.retention.theta_values = expressed.retention.theta_values;
    for (auto& [layer, a] : wanted.attention) {  // XATL: the same angles
      a.theta = expressed.retention.theta;
      a.theta_values = expressed.retention.theta_values;
    }
    RETNET_CHECK(config.retention.decay != DecayKind::gated, "dialect_config_to_json",
                 "retention.decay = gated has no words in dialect ", word(dialect),
                 ", expected a fixed decay");
  }
  nlohmann::ordered_json one, other;
  ConfigWriter first(one), second(other);
  visit_fields(first, wanted);
  expressed = canonical(expressed);
  visit_fields(second, expressed);
  check_expressed(one, other, dialect, "");
  return json.dump(2);
}

}  // namespace retnet::inline RETNET_ABI::detail
