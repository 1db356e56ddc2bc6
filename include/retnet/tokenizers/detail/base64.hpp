// SPDX-License-Identifier: MIT
// Base64 as RFC 4648 has it, read strictly: with its padding, and no bit to spare.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "retnet/version.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// None for text that is not base64.
inline std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  static constexpr auto kValues = [&] {
    std::array<std::int16_t, 256> values{};
    values.fill(-1);
    for (std::size_t i = 0; i < kDigits.size(); ++i)
      values[static_cast<unsigned char>(kDigits[i])] = static_cast<std::int16_t>(i);
    return values;
  }();
  if (text.size() % 4 != 0) return std::nullopt;
  for (int i = 0; i < 2; ++i)
    if (text.ends_with('=')) text.remove_suffix(1);
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = kValues[static_cast<unsigned char>(c)];
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xFF);
  }
  const bool spare = count == 6 || (bits & ((1U << count) - 1)) != 0;
  return spare ? std::nullopt : std::optional(out);
}

}  // namespace retnet::inline RETNET_ABI::detail
