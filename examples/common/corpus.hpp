// A text as bytes: load a file, keep its tail for validation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace examples {

// Train comes first in the file; held_out is the tail that training never sees.
struct Corpus {
  std::vector<std::uint8_t> train;
  std::vector<std::uint8_t> held_out;
};

// Smaller texts measure nothing: 10 % of 4 KiB is 400 bytes.
inline constexpr std::size_t min_corpus_bytes = 4096;

// Reads the whole file, any bytes. Throws std::runtime_error if it is missing or not readable.
inline std::vector<std::uint8_t> load_bytes(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path)) {
    throw std::runtime_error("[load_bytes] \"" + path.string() +
                             "\" does not exist or is not a file, expected a text file");
  }
  std::ifstream file(path, std::ios::binary);
  std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(file),
                                  std::istreambuf_iterator<char>()};
  if (!file) {
    throw std::runtime_error("[load_bytes] \"" + path.string() + "\" cannot be read");
  }
  return bytes;
}

// Cuts the last held_out_fraction (0 < f < 1) of the text off, at a byte, wherever that falls.
inline Corpus split_tail(std::vector<std::uint8_t> text, double held_out_fraction = 0.1) {
  if (!(held_out_fraction > 0.0 && held_out_fraction < 1.0)) {
    throw std::invalid_argument("[split_tail] held_out_fraction is " +
                                std::to_string(held_out_fraction) + ", expected 0 < f < 1");
  }
  const auto held_out =
      static_cast<std::size_t>(static_cast<double>(text.size()) * held_out_fraction);
  if (held_out == 0 || held_out == text.size()) {
    throw std::invalid_argument("[split_tail] " + std::to_string(text.size()) +
                                " bytes leave one part empty, expected more text");
  }
  const auto cut = text.end() - static_cast<std::ptrdiff_t>(held_out);
  Corpus corpus;
  corpus.held_out.assign(cut, text.end());
  text.erase(cut, text.end());
  corpus.train = std::move(text);
  return corpus;
}

// load_bytes then split_tail; an empty or tiny file is an error that names the file and its size.
inline Corpus load_corpus(const std::filesystem::path& path, double held_out_fraction = 0.1) {
  std::vector<std::uint8_t> text = load_bytes(path);
  if (text.size() < min_corpus_bytes) {
    throw std::runtime_error("[load_corpus] \"" + path.string() + "\" has " +
                             std::to_string(text.size()) + " bytes, expected at least " +
                             std::to_string(min_corpus_bytes));
  }
  return split_tail(std::move(text), held_out_fraction);
}

}  // namespace examples
