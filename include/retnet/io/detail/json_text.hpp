// SPDX-License-Identifier: MIT
// JSON that came from elsewhere: strict, bounded in depth, with errors that name the source.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// JSON text without doubled keys, which the parser by itself would take the last of. Throws
/// std::invalid_argument naming `source`.
inline nlohmann::json parse_strictly(const char* where, std::string_view text,
                                     std::string_view source) {
  using Json = nlohmann::json;
  constexpr int kDeepest = 16;
  std::vector<std::set<std::string>> open;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    RETNET_CHECK(depth <= kDeepest, where, source, " is nested deeper than ", kDeepest, " levels");
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      RETNET_CHECK(open.back().insert(key).second, where, source, ": ", shown(key),
                   " is given twice, expected distinct keys");
    }
    return true;
  };
  try {
    RETNET_CHECK(text.find('\0') == std::string_view::npos, where, source,
                 " holds a zero byte, expected JSON");
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& e) {
    throw_invalid(where, source, " is not JSON: ", shown(e.what()));
  }
}

/// A value for an error message.
inline std::string describe(const nlohmann::json& value) {
  return value.is_structured() ? value.type_name() : shown(value.dump());
}

}  // namespace retnet::inline RETNET_ABI::detail
