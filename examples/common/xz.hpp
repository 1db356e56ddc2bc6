// What xz makes of the held-out text: a yardstick that any reader can repeat.
// Compiled against liblzma where RETNET_EXAMPLES_HAVE_LZMA is defined.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#ifdef RETNET_EXAMPLES_HAVE_LZMA
#include <lzma.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>
#endif

namespace examples {

// Bits per byte of the held-out text.
struct XzBitsPerByte {
  double alone;     // compressed by itself
  double appended;  // growth of the compressed size when it follows the training text
};

#ifdef RETNET_EXAMPLES_HAVE_LZMA

namespace internal {

// Size of the raw LZMA2 stream under preset 9 | EXTREME, without container or checksum.
inline std::size_t xz_size(std::span<const std::uint8_t> text) {
  lzma_options_lzma options;
  if (lzma_lzma_preset(&options, 9 | LZMA_PRESET_EXTREME) != 0) {
    throw std::runtime_error("[xz_size] liblzma does not know preset 9 | EXTREME");
  }
  // A dictionary of the text's size finds what the preset's 64 MiB would, in less memory.
  constexpr std::size_t smallest = LZMA_DICT_SIZE_MIN;
  constexpr std::size_t largest = std::size_t{1} << 30;
  options.dict_size =
      static_cast<std::uint32_t>(std::clamp(std::bit_ceil(text.size()), smallest, largest));
  const lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, nullptr}};
  std::vector<std::uint8_t> out(text.size() + text.size() / 16 + 1024);
  std::size_t size = 0;
  const lzma_ret status = lzma_raw_buffer_encode(filters, nullptr, text.data(), text.size(),
                                                 out.data(), &size, out.size());
  if (status != LZMA_OK) {
    throw std::runtime_error("[xz_size] liblzma returned " + std::to_string(status) + " for " +
                             std::to_string(text.size()) + " bytes, expected LZMA_OK");
  }
  return size;
}

}  // namespace internal

// About a second per MB of text. Throws if held_out is empty.
inline std::optional<XzBitsPerByte> xz_bits_per_byte(std::span<const std::uint8_t> train,
                                                     std::span<const std::uint8_t> held_out) {
  if (held_out.empty()) {
    throw std::invalid_argument("[xz_bits_per_byte] held_out is empty, expected bytes");
  }
  std::vector<std::uint8_t> both(train.begin(), train.end());
  both.insert(both.end(), held_out.begin(), held_out.end());
  const auto bytes = static_cast<double>(held_out.size());
  const auto bits = [](std::size_t size) { return 8.0 * static_cast<double>(size); };
  return XzBitsPerByte{bits(internal::xz_size(held_out)) / bytes,
                       (bits(internal::xz_size(both)) - bits(internal::xz_size(train))) / bytes};
}

#else

inline std::optional<XzBitsPerByte> xz_bits_per_byte(std::span<const std::uint8_t>,
                                                     std::span<const std::uint8_t>) {
  return std::nullopt;
}

#endif

}  // namespace examples
