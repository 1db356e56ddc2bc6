// SPDX-License-Identifier: MIT
// The alphabet of byte-level vocabularies: a printable character for each byte. Bytes that print
// are themselves; the others are U+0100 and up, in their order.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "retnet/core/check.hpp"
#include "retnet/tokenizers/detail/utf8.hpp"

namespace retnet::inline RETNET_ABI::detail {

struct ByteAlphabet {
  std::array<std::uint16_t, 256> letter_of{};
  std::array<std::int16_t, 0x144> byte_of{};  // -1 for what is no letter

  constexpr ByteAlphabet() {
    byte_of.fill(-1);
    std::uint16_t next = 0x100;
    for (std::uint16_t b = 0; b < 256; ++b) {
      const bool prints = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
      letter_of[b] = prints ? b : next++;
      byte_of[letter_of[b]] = static_cast<std::int16_t>(b);
    }
  }
};
inline constexpr ByteAlphabet kByteAlphabet;

inline std::string bytes_as_letters(std::string_view bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (const char c : bytes)
    append_utf8(out, kByteAlphabet.letter_of[static_cast<unsigned char>(c)]);
  return out;
}

/// A token with other characters in it stays as it is.
inline std::string letters_as_bytes(std::string_view letters) {
  std::string out;
  bool known = true;
  for_each_char(letters, [&](char32_t code, std::string_view) {
    const int byte = code < kByteAlphabet.byte_of.size() ? kByteAlphabet.byte_of[code] : -1;
    known = known && byte >= 0;
    out += static_cast<char>(byte);
  });
  return known ? out : std::string(letters);
}

}  // namespace retnet::inline RETNET_ABI::detail
