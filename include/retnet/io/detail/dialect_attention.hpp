// SPDX-License-Identifier: MIT
// Layers of softmax attention between those of retention: what fla calls `attn` and XATL
// `hybrid_attention_layers`.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "retnet/io/detail/dialect_keys.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// Some layers that attend instead of retaining, all alike.
struct HybridAttention {
  std::vector<Index> layers;  // ascending, distinct
  Index num_heads = 0;
  Index num_kv_heads = 0;
  bool qkv_bias = false;
  bool out_bias = false;
  Index window_size = 0;          // tokens seen, the query's own among them; 0: all before
  double rope_theta = 10000.0;    // theta_i = rope_theta^(-2i/d), halves of a head as pairs
  bool retention_angles = false;  // the angles of the retention layers instead, pairs as above
};

/// One entry of fla's `attn`. Throws std::invalid_argument as fla itself does.
inline HybridAttention fla_attention(const DialectKeys& keys, const nlohmann::json& spec,
                                     Index layers) {
  using Json = nlohmann::json;
  HybridAttention out;
  const auto take = [&](const char* name, const char* expected, bool required, const auto& read) {
    const auto it = spec.find(name);
    const bool given = it != spec.end() && !it->is_null();
    if (!given && required) keys.fail(concat("attn.", name), Json(), expected);
    if (given && !read(*it)) keys.fail(concat("attn.", name), *it, expected);
  };
  const auto positive = [](Index& field) {
    return [&field](const Json& value) {
      if (!value.is_number_integer() || value < 1 || value > 1000000000) return false;
      field = value.get<Index>();
      return true;
    };
  };
  const auto flag = [](bool& field) {
    return [&field](const Json& value) {
      if (value.is_boolean()) field = value.get<bool>();
      return value.is_boolean();
    };
  };
  if (!spec.is_object()) keys.fail("attn", spec, "an object or a list of objects");
  take("layers", "a list of layers", true, [&](const Json& value) {
    if (!value.is_array()) return false;
    for (const Json& layer : value) {
      if (!layer.is_number_integer() || layer < 0 || layer >= layers) return false;
      out.layers.push_back(layer.get<Index>());
    }
    return true;
  });
  take("num_heads", "a positive integer", true, positive(out.num_heads));
  out.num_kv_heads = out.num_heads;
  take("num_kv_heads", "a positive integer", false, positive(out.num_kv_heads));
  take("window_size", "a positive integer", false, positive(out.window_size));
  take("qkv_bias", "true or false", false, flag(out.qkv_bias));
  // Newer attention layers of fla have it; those inside its RetNet are never told.
  bool qk_norm = false;
  take("qk_norm", "true or false", false, flag(qk_norm));
  if (qk_norm)
    keys.refuse_value("attn", spec, "qk_norm, which fla's RetNet does not pass on to its attention",
                      "a checkpoint without");
  take("rope_theta", "a positive number", false, [&](const Json& value) {
    if (!value.is_number() || !(value.get<double>() > 0.0)) return false;
    out.rope_theta = value.get<double>();
    return std::isfinite(out.rope_theta);
  });
  constexpr std::string_view kFields[] = {"layers",   "num_heads", "num_kv_heads", "window_size",
                                          "qkv_bias", "qk_norm",   "rope_theta"};
  for (const auto& [name, value] : spec.items())
    if (std::ranges::count(kFields, name) == 0)
      keys.fail(concat("attn.", shown(name)), value, "no such key");
  return out;
}

/// The attention layers of a config. Throws std::invalid_argument if one is out of range or claimed
/// twice.
inline std::vector<HybridAttention> hybrid_attention(DialectKeys& keys, Index layers, Index heads,
                                                     bool bias) {
  std::vector<HybridAttention> out;
  const bool fla = keys.dialect() == Dialect::fla;
  const char* key = fla ? "attn" : "hybrid_attention_layers";
  const nlohmann::json* value = keys.find(key);
  if (value == nullptr || value->is_null()) return out;
  if (fla && value->is_array()) {
    for (const auto& spec : *value) out.push_back(fla_attention(keys, spec, layers));
  } else if (fla) {
    out.push_back(fla_attention(keys, *value, layers));
  } else {
    HybridAttention all;
    all.num_heads = all.num_kv_heads = heads;
    all.qkv_bias = all.out_bias = bias;
    all.retention_angles = true;
    if (!value->is_array()) keys.fail(key, *value, "a list of layers");
    for (const auto& layer : *value) {
      if (!layer.is_number_integer() || layer < 0 || layer >= layers)
        keys.fail(key, layer, concat("layers from 0 to ", layers - 1));
      all.layers.push_back(layer.get<Index>());
    }
    out.push_back(std::move(all));
  }
  std::set<Index> seen;
  for (auto& part : out) {
    for (const Index layer : part.layers)
      if (!seen.insert(layer).second) keys.fail(key, layer, "each layer once");
    std::ranges::sort(part.layers);
  }
  std::erase_if(out, [](const HybridAttention& part) { return part.layers.empty(); });
  return out;
}

/// What they are here; `retention` is that of the other layers.
inline std::vector<AttentionLayer> attention_layers(const std::vector<HybridAttention>& parts,
                                                    const RetentionConfig& retention) {
  std::vector<AttentionLayer> out;
  for (const auto& part : parts) {
    AttentionConfig a{.heads = part.num_heads};
    if (part.num_kv_heads != part.num_heads) a.kv_heads = part.num_kv_heads;
    a.qkv_bias = part.qkv_bias;
    a.out_bias = part.out_bias;
    a.window = part.window_size;
    a.theta_base = part.rope_theta;
    if (part.retention_angles) {
      a.theta = retention.theta;
      a.theta_values = retention.theta_values;
      a.rotary_dim = retention.rotary_dim;
      if (retention.rotation == RotationLayout::none) a.rotation = RotationLayout::none;
    }
    for (const Index layer : part.layers) out.push_back({layer, a});
  }
  std::ranges::sort(out, {}, &AttentionLayer::layer);
  return out;
}

/// fla's `attn`, one object a layer.
inline nlohmann::ordered_json fla_attention_json(const std::vector<AttentionLayer>& layers) {
  if (layers.empty()) return nullptr;
  auto list = nlohmann::ordered_json::array();
  for (const auto& [layer, a] : layers) {
    nlohmann::ordered_json spec;
    spec["layers"] = {layer};
    spec["num_heads"] = a.heads;
    spec["num_kv_heads"] = a.kv();
    spec["qkv_bias"] = a.qkv_bias;
    if (a.window > 0) spec["window_size"] = a.window;
    spec["rope_theta"] = a.theta_base;
    list.push_back(std::move(spec));
  }
  return list;
}

}  // namespace retnet::inline RETNET_ABI::detail
