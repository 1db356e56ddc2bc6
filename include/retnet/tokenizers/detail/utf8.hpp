// SPDX-License-Identifier: MIT
// UTF-8: one character forward, checks, and bytes that are none replaced by U+FFFD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "retnet/core/check.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// What stands at the front of a text. Of an error, `bytes` is the longest start of a character
/// that is there, at least 1; `cut` says that the text ends within it.
struct Utf8Char {
  char32_t code = 0;
  std::size_t bytes = 0;
  bool valid = false;
  bool cut = false;
};

/// `text` is not empty. Overlong forms, surrogates and numbers above U+10FFFF are errors.
constexpr Utf8Char front_char(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return {first, 1, true, false};
  const std::size_t size = first < 0xC2   ? 0
                           : first < 0xE0 ? 2
                           : first < 0xF0 ? 3
                           : first < 0xF5 ? 4
                                          : 0;
  if (size == 0) return {0, 1, false, false};
  char32_t code = first & (0x7FU >> size);
  for (std::size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {0, i, false, true};
    const unsigned low = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = i > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (byte(i) < low || byte(i) > high) return {0, i, false, false};
    code = code << 6 | (byte(i) & 0x3F);
  }
  return {code, size, true, false};
}

/// The place of the first byte that does not belong, text.size() if all do.
constexpr std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const Utf8Char c = front_char(text.substr(i));
    if (!c.valid) break;
    i += c.bytes;
  }
  return i;
}

inline void check_utf8(const char* where, std::string_view text) {
  const std::size_t good = valid_utf8_prefix(text);
  RETNET_CHECK(good == text.size(), where, "the text is not UTF-8 at its byte ", good,
               ", expected UTF-8 (repair_utf8 makes it so)");
}

inline void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

/// f(code, its bytes) for each character of a valid text.
template <class F>
void for_each_char(std::string_view text, const F& f) {
  while (!text.empty()) {
    const Utf8Char c = front_char(text);
    f(c.code, text.substr(0, c.bytes));
    text.remove_prefix(c.bytes);
  }
}

/// Moves what is complete from the front of `bytes` to the end of `out`, with U+FFFD for errors;
/// a character that lacks its end stays.
inline void take_utf8(std::string& bytes, std::string& out) {
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const Utf8Char c = front_char(rest);
    if (c.cut) break;
    out.append(c.valid ? rest.substr(0, c.bytes) : kReplacementCharacter);
    rest.remove_prefix(c.bytes);
  }
  bytes.erase(0, bytes.size() - rest.size());
}

}  // namespace retnet::inline RETNET_ABI::detail
