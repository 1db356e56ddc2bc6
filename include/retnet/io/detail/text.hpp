// SPDX-License-Identifier: MIT
// Words for error messages: names that come from files, shapes.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// A name out of a file, which may hold anything: on one line, and not endless.
inline std::string shown(std::string_view name) {
  constexpr std::size_t kLongest = 200;
  std::string text(name.substr(0, kLongest));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  if (name.size() > kLongest) text += "...";
  return text.empty() ? "\"\"" : text;
}

inline std::string shape_text(std::span<const Index> shape) {
  std::string text = "[";
  for (const Index n : shape) {
    if (text.size() > 1) text += ',';
    text += std::to_string(n);
  }
  text += ']';
  return text;
}

}  // namespace retnet::inline RETNET_ABI::detail
