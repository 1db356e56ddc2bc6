// SPDX-License-Identifier: MIT
// What the tokenizer tests share: the reference data, and how ids are written in it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "io/support.hpp"
#include "retnet/tokenizers/tokenizer.hpp"

namespace retnet::tokenizer_test {

using Ids = std::vector<std::int32_t>;
using Json = nlohmann::json;

inline std::string data(const std::string& name) {
  return RETNET_TEST_DATA_DIR "/tokenizers/data/" + name;
}
inline const Json& cases() {
  static const Json json = Json::parse(io_test::read_file(data("cases.json")));
  return json;
}

/// [id, [id, n], ...]
inline Ids ids_of(const Json& runs) {
  Ids ids;
  for (const auto& run : runs) {
    if (run.is_array())
      ids.insert(ids.end(), run[1].get<std::size_t>(), run[0].get<std::int32_t>());
    else
      ids.push_back(run.get<std::int32_t>());
  }
  return ids;
}

inline std::string repeated(std::string_view unit, std::size_t times) {
  std::string text;
  for (std::size_t i = 0; i < times; ++i) text += unit;
  return text;
}

/// Texts of one unit, 100,000 times, as the reference encodes them, and each within seconds: what
/// takes the square of the length takes minutes.
inline void expect_long(const Tokenizer& tokenizer, const Json& expected) {
  static const std::vector<std::pair<std::string, std::string>> kUnits{
      {"a", "a"},        {"space", " "}, {"newline", "\n"}, {"ab", "ab"},
      {"emoji", "🙂"}, {"han", "春"},  {"ABC", "A"},      {"digits", "7"}};
  for (const auto& [name, unit] : kUnits) {
    const std::string text = repeated(unit, 100'000);
    const auto start = std::chrono::steady_clock::now();
    const Ids ids = tokenizer.encode(text);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5)) << name;
    if (expected.contains(name)) {
      EXPECT_EQ(ids, ids_of(expected.at(name))) << name;
    }
  }
}

/// One id at a time gives what all at once gives.
inline void expect_streams_alike(const Tokenizer& tokenizer, const Ids& ids) {
  for (const bool skip : {true, false}) {
    TextStream stream(tokenizer, {.skip_special = skip});
    std::string text;
    for (const auto id : ids) {
      const std::string part = stream.add(id);
      EXPECT_EQ(detail::valid_utf8_prefix(part), part.size());
      text += part;
    }
    text += stream.finish();
    EXPECT_EQ(text, repair_utf8(tokenizer.decode(ids, {.skip_special = skip})));
  }
}

}  // namespace retnet::tokenizer_test
