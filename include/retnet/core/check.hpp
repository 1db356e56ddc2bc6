// SPDX-License-Identifier: MIT
// Errors at the public door: "[Class::function] what was given, what was expected".
#pragma once

#include <array>
#include <cassert>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "retnet/version.hpp"

/// Checks inside ops, on in debug builds. Define it before the first include to replace it.
#ifndef RETNET_ASSERT
#define RETNET_ASSERT(condition) assert(condition)
#endif

/// Throws std::invalid_argument with the concatenated parts when the condition does not hold.
#define RETNET_CHECK(condition, where, ...)        \
  do {                                             \
    if (!(condition)) [[unlikely]]                 \
      ::retnet::throw_invalid(where, __VA_ARGS__); \
  } while (false)

namespace retnet::inline RETNET_ABI {

namespace detail {

template <class T>
std::string to_text(const T& part) {
  if constexpr (std::is_same_v<T, bool>) {
    return part ? "true" : "false";
  } else if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<long long>(part));
  } else if constexpr (std::is_floating_point_v<T>) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.6g", static_cast<double>(part));
    return text.data();
  } else if constexpr (std::is_integral_v<T>) {
    return std::to_string(part);
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return std::string(std::string_view(part));
  } else {
    return part.shape_text();
  }
}

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::string text;
  (text.append(to_text(parts)), ...);
  return text;
}

}  // namespace detail

template <class... Parts>
[[noreturn]] void throw_invalid(std::string_view where, const Parts&... parts) {
  throw std::invalid_argument(detail::concat("[", where, "] ", parts...));
}

}  // namespace retnet::inline RETNET_ABI
