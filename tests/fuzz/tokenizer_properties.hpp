// SPDX-License-Identifier: MIT
// What holds of every tokenizer that a reader accepts, whatever the text.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "retnet/tokenizers/tokenizer.hpp"

namespace retnet::fuzz {

/// One id at a time gives what all at once gives.
inline void check_stream(const Tokenizer& tokenizer, std::span<const std::int32_t> ids,
                         const DecodeOptions& options) {
  std::string whole, parts;
  const auto refused = refusal([&] { whole = tokenizer.decode(ids, options); });
  if (refused) {
    require(refused->find("has no token") == std::string::npos, "encode gives ids of tokens");
    return;
  }
  TextStream stream(tokenizer, options);
  if (!accepts([&] {
        for (const auto id : ids) parts += stream.add(id);
      }))
    return;
  parts += stream.finish();
  require(parts == repair_utf8(whole), "a stream gives what decode gives");
}

/// Encodes and decodes; `exact`: the ids stand for the text, byte by byte.
inline void check_tokenizer(const Tokenizer& tokenizer, std::string_view given, bool exact) {
  constexpr std::size_t kStreamed = 24;  // each id decodes some of those before it again
  const std::string text = repair_utf8(given);
  if (text != given) require(!accepts([&] { tokenizer.encode(given); }), "only UTF-8 is encoded");
  for (const bool special : {true, false}) {
    std::vector<std::int32_t> ids;
    if (!accepts([&] {
          ids = tokenizer.encode(text, {.add_special = special, .parse_special = special});
        }))
      continue;
    for (const auto id : ids)
      require(id >= 0 && id < tokenizer.vocab_size(), "ids are below vocab_size()");
    if (exact)
      require(tokenizer.decode(ids, {.skip_special = false}) == text, "decode undoes encode");
    const std::span few(ids.data(), std::min(ids.size(), kStreamed));
    check_stream(tokenizer, few, {.skip_special = special});
  }
  for (const char c : text.substr(0, kStreamed))
    accepts([&] {
      tokenizer.decode(std::vector<std::int32_t>{static_cast<unsigned char>(c)});
    });
}

}  // namespace retnet::fuzz
