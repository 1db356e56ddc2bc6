// SPDX-License-Identifier: MIT
// The dialects of published RetNet checkpoints: which one a folder speaks, and its config.json as a
// RetNetConfig and back. The tensors are key_map.hpp's, whole folders pretrained.hpp's.
//
//   retnet         our own files (model_file.hpp)
//   torchscale_v1  microsoft/torchscale, 2023-07-24 to 2023-09-28
//   torchscale_v2  the same since then
//   syncdoth       syncdoth/RetNet, Hugging Face
//   xatl           syncdoth/RetNet-XATL and NucleusAI, Hugging Face
//   fla            fla-org/flash-linear-attention, Hugging Face
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/io/config_json.hpp"
#include "retnet/io/detail/dialect_detect.hpp"
#include "retnet/io/detail/dialect_fla.hpp"
#include "retnet/io/detail/dialect_torchscale.hpp"
#include "retnet/io/detail/dialect_write.hpp"

namespace retnet::inline RETNET_ABI {

/// The dialect of that name ("fla", "torchscale_v2", ...); none if there is no such dialect.
inline std::optional<Dialect> dialect_from_name(std::string_view name) {
  for (int i = 0; detail::word(static_cast<Dialect>(i)) != nullptr; ++i)
    if (name == detail::word(static_cast<Dialect>(i))) return static_cast<Dialect>(i);
  return std::nullopt;
}
constexpr const char* dialect_name(Dialect dialect) { return detail::word(dialect); }

/// The dialect of a config.json, by its keys and by the names of the tensors beside it (none known:
/// an empty list). Throws std::invalid_argument naming the family of a model that is not read here,
/// or what is missing to tell.
inline Dialect detect_dialect(std::string_view text, const std::vector<std::string>& tensors = {},
                              std::string_view source = "config.json") {
  return detail::detect(detail::parse_strictly("detect_dialect", text, source), tensors, source);
}

/// The config that a config.json of the dialect means. A key that is not given has the default of
/// that implementation; keys that only train or bookkeep are passed over. Throws
/// std::invalid_argument naming `source` and the key: one that is unknown, of the wrong type, or
/// set to something that this library does not run.
inline RetNetConfig dialect_config_from_json(std::string_view text, Dialect dialect,
                                             const DialectOptions& options = {},
                                             std::string_view source = "config.json") {
  constexpr const char* kWhere = "dialect_config_from_json";
  if (dialect == Dialect::retnet) return config_from_json(text, source);
  const nlohmann::json json = detail::parse_strictly(kWhere, text, source);
  detail::DialectKeys keys(dialect, json, options, source);
  RetNetConfig config =
      dialect == Dialect::fla ? detail::fla_config(keys) : detail::torchscale_config(keys);
  keys.finish();
  config.validate();
  return config;
}

/// The config.json of a model in the dialect; `storage` is what its weights are stored in. Throws
/// std::invalid_argument naming the field that the dialect has no words for.
inline std::string dialect_config_to_json(const RetNetConfig& config, Dialect dialect,
                                          Dtype storage = Dtype::f32) {
  if (dialect == Dialect::retnet) return config_to_json(config);
  return detail::write_dialect_config(config, dialect, storage);
}

}  // namespace retnet::inline RETNET_ABI
