// SPDX-License-Identifier: MIT
// added_tokens of a tokenizer.json: tokens that are looked for in a text before anything else
// happens to it; those with "normalized" in the normalized text.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/tokenizers/detail/json_node.hpp"
#include "retnet/tokenizers/detail/json_normalizer.hpp"
#include "retnet/tokenizers/detail/token_finder.hpp"
#include "retnet/tokenizers/detail/unicode.hpp"
#include "retnet/tokenizers/detail/vocabulary.hpp"

namespace retnet::inline RETNET_ABI::detail {

class AddedTokens {
 public:
  /// A part of a text: a token, or what lies between (id -1).
  struct Part {
    TextRange range;
    std::int32_t id;
  };

  AddedTokens() = default;
  /// Ids and tokens must be those of `model` or new ones. Throws std::invalid_argument.
  AddedTokens(const JsonNode& list, const Vocabulary& model, const Normalizer& normalizer) {
    std::vector<std::pair<std::string, std::int32_t>> raw, normalized;
    for (const JsonNode& node : list.items()) {
      node.allow({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      const std::string& content = node.at("content").text();
      if (content.empty()) node.at("content").refuse("some text");
      vocabulary_.add(kJsonWhere, content, node.at("id").integer(), list.source());
      const std::int32_t id = *vocabulary_.find(content);
      check_against(list.source(), model, content, id);
      const bool special = node.boolean("special", false);
      flags_[id] = {.special = special,
                    .single_word = node.boolean("single_word", false),
                    .lstrip = node.boolean("lstrip", false),
                    .rstrip = node.boolean("rstrip", false)};
      if (node.boolean("normalized", !special))
        normalized.emplace_back(normalizer ? normalizer(content) : content, id);
      else
        raw.emplace_back(content, id);
    }
    raw_ = TokenFinder(std::move(raw));
    normalized_ = TokenFinder(std::move(normalized));
  }

  const Vocabulary& vocabulary() const { return vocabulary_; }
  bool is_special(std::int32_t id) const {
    const auto it = flags_.find(id);
    return it != flags_.end() && it->second.special;
  }

  /// Covers the text; parts are not empty.
  std::vector<Part> split(std::string_view text, bool is_normalized, bool parse_special) const {
    const TokenFinder& finder = is_normalized ? normalized_ : raw_;
    std::vector<Part> parts;
    std::size_t done = 0, from = 0;
    while (const auto match = finder.find(text, from)) {
      auto [begin, end, id] = match;
      from = end;
      const Flags& flags = flags_.at(id);
      if (begin < done || (flags.special && !parse_special)) continue;
      if (flags.single_word && (ends_with_word(text.substr(0, begin)) ||
                                (end < text.size() && is_word(front_char(text.substr(end)).code))))
        continue;
      if (flags.lstrip) begin = done + space_before(text.substr(done), begin - done);
      if (flags.rstrip) end = space_behind(text, end);
      if (begin > done) parts.push_back({{done, begin}, kNoToken});
      parts.push_back({{begin, end}, id});
      done = end;
    }
    if (done < text.size()) parts.push_back({{done, text.size()}, kNoToken});
    return parts;
  }

  static constexpr std::int32_t kNoToken = -1;

 private:
  struct Flags {
    bool special, single_word, lstrip, rstrip;
  };

  static void check_against(std::string_view source, const Vocabulary& model,
                            const std::string& content, std::int32_t id) {
    const auto there = model.find(content);
    const std::string* taken = model.token(id);
    RETNET_CHECK(there ? *there == id : taken == nullptr, kJsonWhere, source, ": added token ",
                 shown(content), " has id ", id, there ? ", and in the model's vocabulary " : ", ",
                 there ? std::to_string(*there) : concat("which is that of ", shown(*taken)),
                 ", expected the same id in both or a free one");
  }

  static Utf8Char last_char(std::string_view text) {
    std::size_t i = text.size() - 1;
    while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
    return front_char(text.substr(i));
  }
  static bool ends_with_word(std::string_view text) {
    return !text.empty() && is_word(last_char(text).code);
  }
  static std::size_t space_before(std::string_view text, std::size_t i) {
    while (i > 0) {
      const Utf8Char c = last_char(text.substr(0, i));
      if (!is_space(c.code)) break;
      i -= c.bytes;
    }
    return i;
  }
  static std::size_t space_behind(std::string_view text, std::size_t i) {
    while (i < text.size()) {
      const Utf8Char c = front_char(text.substr(i));
      if (!is_space(c.code)) break;
      i += c.bytes;
    }
    return i;
  }

  Vocabulary vocabulary_;
  std::unordered_map<std::int32_t, Flags> flags_;
  TokenFinder raw_, normalized_;
};

}  // namespace retnet::inline RETNET_ABI::detail
