// SPDX-License-Identifier: MIT
// A RetNetConfig as JSON and back: each field under its own name, enumerators as words.
//
//   {"version": 1, "vocab": 256, "d_model": 128, "layers": 4,
//    "retention": {"heads": 4, "decay": "pow2", ...}, "feed_forward": {...}, "norm": "rms", ...}
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/config_words.hpp"
#include "retnet/io/detail/json_text.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/model/config.hpp"

namespace retnet::inline RETNET_ABI {

/// Of the fields below. A new optional field keeps it; a field that changes its meaning does not.
inline constexpr int kConfigVersion = 1;

namespace detail {

// The one list of fields: v(name, field) each, v.required(name, field) for those without a default.
template <class Config, class Plain>
concept ConfigOf = std::same_as<std::remove_const_t<Config>, Plain>;

template <class Visitor, ConfigOf<Init> C>
void visit_fields(Visitor& v, C& c) {
  v.required("kind", c.kind);
  v("gain", c.gain);
}

template <class Visitor, ConfigOf<RetentionConfig> C>
void visit_fields(Visitor& v, C& c) {
  v("d_model", c.d_model);
  v.required("heads", c.heads);
  v("kv_heads", c.kv_heads);
  v("d_key", c.d_key);
  v("d_value", c.d_value);
  v("decay", c.decay);
  v("gamma", c.gamma);
  v("gate_divisor", c.gate_divisor);
  v("rotation", c.rotation);
  v("theta", c.theta);
  v("theta_base", c.theta_base);
  v("theta_values", c.theta_values);
  v("rotary_dim", c.rotary_dim);
  v("xpos_base", c.xpos_base);
  v("normalization", c.normalization);
  v("scale_on", c.scale_on);
  v("head_norm", c.head_norm);
  v("head_norm_affine", c.head_norm_affine);
  v("head_norm_bias", c.head_norm_bias);
  v("head_norm_eps", c.head_norm_eps);
  v("bottleneck", c.bottleneck);
  v("gate", c.gate);
  v("gate_activation", c.gate_activation);
  v("bias", c.bias);
  v("init_projection", c.init_projection);
  v("init_value", c.init_value);
  v("init_output", c.init_output);
}

template <class Visitor, ConfigOf<FeedForwardConfig> C>
void visit_fields(Visitor& v, C& c) {
  v("d_model", c.d_model);
  v("hidden", c.hidden);
  v("kind", c.kind);
  v("activation", c.activation);
  v("bias", c.bias);
  v("sub_norm", c.sub_norm);
  v("sub_norm_eps", c.sub_norm_eps);
  v("activation_dropout", c.activation_dropout);
  v("init_in", c.init_in);
  v("init_out", c.init_out);
}

template <class Visitor, class C>
  requires(ConfigOf<C, AttentionConfig> || ConfigOf<C, CrossAttentionConfig>)
void visit_fields(Visitor& v, C& c) {
  v("d_model", c.d_model);
  v.required("heads", c.heads);
  v("kv_heads", c.kv_heads);
  v("head_dim", c.head_dim);
  if constexpr (ConfigOf<C, AttentionConfig>) {
    v("qkv_bias", c.qkv_bias);
    v("out_bias", c.out_bias);
    v("window", c.window);
    v("rotary_dim", c.rotary_dim);
    v("qk_norm", c.qk_norm);
    v("qk_norm_eps", c.qk_norm_eps);
  } else {
    v("norm_eps", c.norm_eps);
  }
  v("rotation", c.rotation);
  v("theta", c.theta);
  v("theta_base", c.theta_base);
  v("theta_values", c.theta_values);
  v("scale", c.scale);
  v("init_projection", c.init_projection);
  v("init_output", c.init_output);
}

template <class Visitor, ConfigOf<AttentionLayer> C>
void visit_fields(Visitor& v, C& c) {
  v.required("layer", c.layer);
  v.required("attention", c.attention);
}

template <class Visitor, ConfigOf<CrossDecoderConfig> C>
void visit_fields(Visitor& v, C& c) {
  v.required("layers", c.layers);
  v.required("attention", c.attention);
}

template <class Visitor, ConfigOf<RetNetConfig> C>
void visit_fields(Visitor& v, C& c) {
  v.required("vocab", c.vocab);
  v.required("d_model", c.d_model);
  v.required("layers", c.layers);
  v.required("retention", c.retention);
  v("feed_forward", c.feed_forward);
  v("attention", c.attention);
  if (Visitor::kReads || c.cross_decoder.layers > 0) v("cross_decoder", c.cross_decoder);
  v("norm", c.norm);
  v("norm_eps", c.norm_eps);
  v("ffn_norm", c.ffn_norm);
  v("residual", c.residual);
  v("deepnorm", c.deepnorm);
  v("scale_embedding", c.scale_embedding);
  v("embedding_norm", c.embedding_norm);
  v("final_norm", c.final_norm);
  v("tied_output", c.tied_output);
  v("output_bias", c.output_bias);
  v("dropout", c.dropout);
  v("init_embedding", c.init_embedding);
}

class ConfigWriter {
 public:
  static constexpr bool kReads = false;
  explicit ConfigWriter(nlohmann::ordered_json& json) : json_(json) {}

  template <class T>
  void required(const char* name, const T& field) {
    (*this)(name, field);
  }
  template <class T>
  void operator()(const char* name, const T& field) {
    if constexpr (std::is_enum_v<T>) {
      json_[name] = word(field);
    } else if constexpr (std::same_as<T, std::vector<AttentionLayer>>) {
      auto& list = json_[name] = nlohmann::ordered_json::array();
      for (const AttentionLayer& layer : field) {
        ConfigWriter inner(list.emplace_back(nlohmann::ordered_json::object()));
        visit_fields(inner, layer);
      }
    } else if constexpr (std::is_class_v<T> && !std::same_as<T, std::vector<double>>) {
      ConfigWriter inner(json_[name] = nlohmann::ordered_json::object());
      visit_fields(inner, field);
    } else {
      json_[name] = field;
    }
  }

 private:
  nlohmann::ordered_json& json_;
};

class ConfigReader {
 public:
  static constexpr bool kReads = true;
  ConfigReader(std::string_view source, const nlohmann::json& json, std::string path)
      : source_(source), json_(json), path_(std::move(path)) {
    if (!json.is_object()) fail("", describe(json), "an object");
  }

  template <class T>
  void required(const char* name, T& field) {
    if (!json_.contains(name)) fail(name, "missing", "it to be given");
    (*this)(name, field);
  }
  template <class T>
  void operator()(const char* name, T& field) {
    known_.insert(name);
    if (const auto it = json_.find(name); it != json_.end()) read(name, *it, field);
  }
  /// Call it last: every key that no field asked for is a mistake.
  void finish() const {
    std::string names;
    for (const auto& name : known_) names += (names.empty() ? "" : ", ") + name;
    for (const auto& [key, value] : json_.items())
      if (!known_.contains(key)) fail(key, "unknown", concat("one of ", names));
  }

 private:
  [[noreturn]] void fail(const std::string& name, std::string_view given,
                         std::string_view expected) const {
    const bool inner = !path_.empty() && !name.empty();
    const std::string key = shown(concat(path_, inner ? "." : "", name));
    throw_invalid("config_from_json", source_, ": ",
                  path_.empty() && name.empty() ? "the config" : key, " is ", given, ", expected ",
                  expected);
  }

  void read(const std::string& name, const nlohmann::json& value, bool& field) const {
    if (!value.is_boolean()) fail(name, describe(value), "true or false");
    field = value.get<bool>();
  }
  void read(const std::string& name, const nlohmann::json& value, double& field) const {
    if (!value.is_number()) fail(name, describe(value), "a number");
    field = value.get<double>();
  }
  void read(const std::string& name, const nlohmann::json& value, Index& field) const {
    // Sums and products of widths must not overflow before they are compared with anything.
    constexpr std::int64_t kLargest = (std::numeric_limits<std::int32_t>::max)();
    const auto number = value.is_number_integer() ? value.get<std::int64_t>() : -1;
    if (number < 0 || number > kLargest)
      fail(name, describe(value), "an integer from 0 to 2^31 - 1");
    field = static_cast<Index>(number);
  }
  void read(const std::string& name, const nlohmann::json& value,
            std::vector<double>& field) const {
    if (!value.is_array()) fail(name, describe(value), "an array of numbers");
    field.assign(value.size(), 0.0);
    for (std::size_t i = 0; i < value.size(); ++i)
      read(concat(name, "[", i, "]"), value[i], field[i]);
  }
  void read(const std::string& name, const nlohmann::json& value,
            std::vector<AttentionLayer>& field) const {
    if (!value.is_array()) fail(name, describe(value), "an array of layers");
    field.assign(value.size(), {});
    for (std::size_t i = 0; i < value.size(); ++i)
      read(concat(name, "[", i, "]"), value[i], field[i]);
  }
  template <class T>
  void read(const std::string& name, const nlohmann::json& value, T& field) const {
    if constexpr (std::is_enum_v<T>) {
      if (!value.is_string() || !from_word(value.get_ref<const std::string&>(), field))
        fail(name, describe(value), concat("one of ", all_words<T>()));
    } else {
      ConfigReader inner(source_, value, concat(path_, path_.empty() ? "" : ".", name));
      visit_fields(inner, field);
      inner.finish();
    }
  }

  std::string_view source_;
  const nlohmann::json& json_;
  std::string path_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace detail

/// The config as JSON text with every field, numbers exactly. Throws std::invalid_argument for a
/// config that does not validate().
inline std::string config_to_json(const RetNetConfig& config) {
  config.validate();
  nlohmann::ordered_json json;
  json["version"] = kConfigVersion;
  detail::ConfigWriter writer(json);
  detail::visit_fields(writer, config);
  return json.dump(2);
}

/// The config that the text describes. Required are version, vocab, d_model, layers and
/// retention.heads; a field that is not given keeps its default. Throws std::invalid_argument
/// naming `source` and the key for one that is unknown, missing, given twice or of the wrong type,
/// and what RetNetConfig::validate throws.
inline RetNetConfig config_from_json(std::string_view text, std::string_view source = "config") {
  const nlohmann::json json = detail::parse_strictly("config_from_json", text, source);
  detail::ConfigReader reader(source, json, "");
  Index version = 0;
  reader.required("version", version);
  RETNET_CHECK(version >= 1 && version <= kConfigVersion, "config_from_json", source,
               ": version is ", version, ", expected 1 to ", kConfigVersion);
  RetNetConfig config;
  detail::visit_fields(reader, config);
  reader.finish();
  config.validate();
  return config;
}

}  // namespace retnet::inline RETNET_ABI
