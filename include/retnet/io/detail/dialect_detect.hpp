// SPDX-License-Identifier: MIT
// Which dialect a checkpoint speaks, by the keys of its config and the names of its tensors; and
// the families that it may belong to and that are not read.
#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/io/dialect_options.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr const char* kReadable =
    "a checkpoint of microsoft/torchscale, syncdoth/RetNet, RetNet-XATL or "
    "flash-linear-attention, or one that save_model wrote\n  see: retnet/io/dialect.hpp";

struct ForeignTensor {
  std::string_view part;  // of a tensor's name
  std::string_view what;
};
inline constexpr std::array kForeignTensors = {
    ForeignTensor{".W_Q", "a model of Jamie-Stirling/RetNet"},
    ForeignTensor{"retention.thetas", "a model of fkodom/yet-another-retnet"},
    ForeignTensor{"gt_proj", "a model of YOCO"},
    ForeignTensor{"cross_decoder.", "a model of YOCO"},
    ForeignTensor{"reten.weight", "a lit-gpt checkpoint of RetNet-XATL, not converted"},
    ForeignTensor{"moe_layer.", "a mixture of experts"},
    ForeignTensor{".A.weight", "a multiway model, with two sets of weights"},
    ForeignTensor{"decay_proj", "a tensor-parallel model of syncdoth/RetNet"},
    ForeignTensor{"_conv1d.", "a model with short convolutions"},
    ForeignTensor{"_res_proj.", "a model with attention over its residuals"},
};

/// Throws std::invalid_argument naming the family or the feature that a tensor's name tells.
inline void refuse_foreign_tensors(std::span<const std::string> tensors, std::string_view source) {
  for (const std::string& name : tensors) {
    for (const auto& known : kForeignTensors)
      RETNET_CHECK(name.find(known.part) == std::string::npos, "detect_dialect", source, ": ",
                   shown(name), " belongs to ", known.what, ", expected ", kReadable);
    RETNET_CHECK(name != "score.weight", "detect_dialect", source,
                 ": score.weight belongs to a classifier, expected ", kReadable);
  }
}

inline bool any_tensor(std::span<const std::string> tensors, std::string_view part) {
  return std::ranges::any_of(
      tensors, [&](const std::string& name) { return name.find(part) != std::string::npos; });
}

inline bool any_key(const nlohmann::json& json, std::initializer_list<const char*> keys) {
  return std::ranges::any_of(keys, [&](const char* key) { return json.contains(key); });
}

/// Of the models that keep `decoder_embed_dim`.
inline Dialect detect_torchscale(const nlohmann::json& json, std::span<const std::string> tensors) {
  const bool torchscale =
      any_key(json, {"share_decoder_input_output_embed", "moe_freq", "multiway", "no_output_layer",
                     "max_target_positions", "chunkwise_recurrent"});
  const bool hugging_face =
      any_key(json, {"model_type", "tie_word_embeddings", "use_glu", "use_lm_decay",
                     "use_ffn_rms_norm", "forward_impl", "architectures"}) ||
      any_tensor(tensors, "lm_head.");
  if (!torchscale && hugging_face) return Dialect::syncdoth;
  const bool biased = any_tensor(tensors, "retention.q_proj.bias");
  if (json.contains("decoder_value_embed_dim") && !biased) return Dialect::torchscale_v2;
  const bool unknown = tensors.empty() && !json.contains("decoder_value_embed_dim");
  return biased || unknown ? Dialect::torchscale_v1 : Dialect::torchscale_v2;
}

inline Dialect detect(const nlohmann::json& json, std::span<const std::string> tensors,
                      std::string_view source) {
  constexpr const char* kWhere = "detect_dialect";
  refuse_foreign_tensors(tensors, source);
  RETNET_CHECK(json.is_object(), kWhere, source, " is ", json.type_name(), ", expected an object");
  const auto has = [&](const char* key) { return json.contains(key); };
  const auto refuse = [&](bool found, const char* what) {
    RETNET_CHECK(!found, kWhere, source, " is of ", what, ", expected ", kReadable);
  };
  if (has("retention") && has("d_model")) return Dialect::retnet;
  if (has("model_type"))
    RETNET_CHECK(json["model_type"] == "retnet", kWhere, source, ": model_type is ",
                 shown(json["model_type"].dump()), ", expected \"retnet\"");
  if (any_key(json, {"use_rms_norm", "groupnorm_affine", "use_bias", "parallel_residual",
                     "rotary_percentage", "shared_attention_norm", "lm_head_bias",
                     "retnet_stability_update", "retnet_bottleneck", "hybrid_attention_layers"}))
    return Dialect::xatl;
  if (any_key(json, {"decoder_embed_dim", "decoder_layers", "decoder_retention_heads"}))
    return detect_torchscale(json, tensors);
  refuse(has("num_rettention_heads"), "the Flax model of team-lucid");
  refuse(has("n_self_heads") || has("self_decoder_attn"), "a YOCO model");
  refuse(has("hidden_size") && has("num_layers"),
         "syncdoth/RetNet before September 2023, whose config was YAML");
  refuse(has("num_tokens") && has("dim_feedforward"), "fkodom/yet-another-retnet");
  refuse(has("hidden_dim") && has("ffn_size"), "Jamie-Stirling/RetNet");
  if (has("hidden_size") || has("expand_v") || any_tensor(tensors, "attn.g_norm"))
    return Dialect::fla;
  throw_invalid(kWhere, source,
                " has none of the keys decoder_embed_dim, hidden_size and retention", ", expected ",
                kReadable);
}

}  // namespace retnet::inline RETNET_ABI::detail
