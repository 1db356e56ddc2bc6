// SPDX-License-Identifier: MIT
// What the fuzz targets share. A target is one function of bytes, which libFuzzer calls (run.sh),
// and replay.cpp with every file of the corpus.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace retnet::fuzz {

/// Ends the program where an input shows that a promise is not kept.
inline void require(bool good, const char* promise) {
  if (good) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

/// Our errors begin with [Class::function], and what they quote of a file breaks no line.
inline bool is_ours(std::string_view text) {
  if (!text.starts_with("[") || text.find("] ") == std::string_view::npos) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool new_line = c == '\n' && text.substr(i + 1, 2) == "  ";
    if ((c < 0x20 || c == 0x7F) && !new_line) return false;
  }
  return true;
}

/// Calls f. Gives the text of the std::invalid_argument that readers refuse with; everything else
/// that is thrown ends the program.
template <class F>
std::optional<std::string> refusal(const F& f) {
  try {
    f();
    return std::nullopt;
  } catch (const std::invalid_argument& e) {
    require(is_ours(e.what()), "an error says where it comes from, in lines of its own");
    return e.what();
  }
}
template <class F>
bool accepts(const F& f) {
  return !refusal(f);
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Takes what stands before the first zero byte from the front, and that byte.
inline std::string_view take_section(std::string_view& rest) {
  const std::string_view section = rest.substr(0, rest.find('\0'));
  rest.remove_prefix(section.size() < rest.size() ? section.size() + 1 : rest.size());
  return section;
}

}  // namespace retnet::fuzz
