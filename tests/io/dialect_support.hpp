// SPDX-License-Identifier: MIT
// Small configs of every dialect for the tests that change a key of them.
#pragma once

#include <array>

#include "io/support.hpp"
#include "retnet/io/dialect.hpp"

namespace retnet::io_test {

using Json = nlohmann::ordered_json;

inline constexpr std::array kForeign = {Dialect::torchscale_v1, Dialect::torchscale_v2,
                                        Dialect::syncdoth, Dialect::xatl, Dialect::fla};

inline Json small(Dialect dialect) {
  if (dialect == Dialect::fla)
    return {{"hidden_size", 64}, {"num_hidden_layers", 2}, {"num_heads", 4}, {"vocab_size", 11}};
  return {{"decoder_embed_dim", 48},
          {"decoder_layers", 2},
          {"decoder_retention_heads", 4},
          {"vocab_size", 11}};
}
inline RetNetConfig read(Dialect dialect, const Json& keys, DialectOptions options = {}) {
  Json json = small(dialect);
  if (!keys.is_null()) json.update(keys);
  return dialect_config_from_json(json.dump(), dialect, options);
}
inline void expect_refused(Dialect dialect, const Json& keys,
                           std::initializer_list<std::string_view> parts) {
  expect_error<std::invalid_argument>([&] { read(dialect, keys); }, parts);
}

}  // namespace retnet::io_test
