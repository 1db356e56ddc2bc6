// SPDX-License-Identifier: MIT
// Numbers and words as text and back, exactly, whatever the locale.
#pragma once

#include <charconv>
#include <cmath>
#include <concepts>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "retnet/io/dtype.hpp"

namespace retnet::inline RETNET_ABI::detail {

template <class T>
concept TextNumber = StoredInteger<T> || OneOf<T, bool, float, double>;
template <class T>
concept TextWritable = TextNumber<T> || std::convertible_to<const T&, std::string_view>;
template <class T>
concept TextReadable = TextNumber<T> || std::same_as<T, std::string>;

template <TextWritable T>
std::string value_text(const T& value) {
  if constexpr (std::same_as<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (StoredInteger<T>) {
    return std::to_string(value);
  } else if constexpr (std::floating_point<T>) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    // The shortest text that reads back.
    return nlohmann::json(static_cast<double>(value)).dump();
  } else {
    return std::string(std::string_view(value));
  }
}

template <std::floating_point T>
std::optional<T> float_from_text(const std::string& text) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  if (text == "nan") return std::numeric_limits<T>::quiet_NaN();
  if (text == "inf") return kInfinity;
  if (text == "-inf") return -kInfinity;
  if (text.find_first_not_of("0123456789+-.eE") != std::string::npos) return std::nullopt;
  const auto parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_number()) return std::nullopt;
  const auto value = parsed.get<double>();
  if (std::abs(value) > static_cast<double>((std::numeric_limits<T>::max)())) return std::nullopt;
  return static_cast<T>(value);
}

/// None if the text is not a T.
template <TextReadable T>
std::optional<T> value_from_text(const std::string& text) {
  if constexpr (std::same_as<T, std::string>) {
    return text;
  } else if constexpr (std::same_as<T, bool>) {
    if (text == "true") return true;
    return text == "false" ? std::optional(false) : std::nullopt;
  } else if constexpr (StoredInteger<T>) {
    T value{};
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    return error == std::errc() && stop == end ? std::optional(value) : std::nullopt;
  } else {
    return float_from_text<T>(text);
  }
}

template <TextReadable T>
std::string value_kind() {
  using Limits = std::numeric_limits<T>;
  if constexpr (std::same_as<T, std::string>) return "text";
  if constexpr (std::same_as<T, bool>) return "true or false";
  if constexpr (std::floating_point<T>) return "a number";
  if constexpr (StoredInteger<T>)
    return "an integer from " + std::to_string((Limits::min)()) + " to " +
           std::to_string((Limits::max)());
}

}  // namespace retnet::inline RETNET_ABI::detail
