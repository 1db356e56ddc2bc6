// SPDX-License-Identifier: MIT
// The model of a tokenizer.json, of type BPE: a vocabulary and the merges in the order of their
// ranks, as "a b" or ["a", "b"].
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/tokenizers/detail/bpe.hpp"
#include "retnet/tokenizers/detail/json_node.hpp"
#include "retnet/tokenizers/detail/json_pattern.hpp"
#include "retnet/tokenizers/detail/utf8.hpp"
#include "retnet/tokenizers/detail/vocabulary.hpp"

namespace retnet::inline RETNET_ABI::detail {

class JsonBpe {
 public:
  /// Throws std::invalid_argument naming the place for whatever is not as it should be.
  explicit JsonBpe(const JsonNode& node) {
    if (const auto type = node.find("type"); type && type->text() != "BPE") type->refuse("BPE");
    node.allow({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
    if (const auto dropout = node.find("dropout"); dropout && dropout->json() != 0)
      dropout->refuse("null or 0: the same text always has the same tokens");
    prefix_ = node.text("continuing_subword_prefix", "");
    suffix_ = node.text("end_of_word_suffix", "");
    fuse_unk_ = node.boolean("fuse_unk", false);
    ignore_merges_ = node.boolean("ignore_merges", false);
    read_vocabulary(node.at("vocab"));
    read_merges(node.at("merges"));
    if (const auto unk = node.find("unk_token")) {
      unk_ = vocabulary_.find(unk->text());
      if (!unk_) unk->refuse("a token of the vocabulary");
    }
    if (node.boolean("byte_fallback", false)) read_byte_tokens(node);
  }

  const Vocabulary& vocabulary() const { return vocabulary_; }
  std::optional<std::int32_t> unk() const { return unk_; }

  /// What encode works with, from one word to the next.
  struct Scratch {
    std::vector<BpePart> parts;
    BpeMerger merger;
  };

  /// Throws std::invalid_argument for a character without a token where there is no unk_token.
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
    if (ignore_merges_) {
      if (const auto id = vocabulary_.find(word)) return ids.push_back(*id);
    }
    spell(word, scratch.parts);
    scratch.merger.merge(
        scratch.parts,
        [this](const BpePart& left, const BpePart& right) -> std::optional<BpeMerge> {
          const auto it = merges_.find(key(left.id, right.id));
          return it == merges_.end() ? std::nullopt : std::optional(it->second);
        },
        ids);
  }

 private:
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
  }

  void read_vocabulary(const JsonNode& node) {
    vocabulary_.reserve(node.object().size());
    for (const auto& [token, id] : node.object().items()) {
      if (!id.is_number_integer())
        node.refuse(concat("with ", shown(token), " of another type"), "an integer for each token");
      // Beyond the int64 range, the number would come out as some other one.
      const bool fits = !id.is_number_unsigned() || id.get<std::uint64_t>() <= kLargestTokenId;
      vocabulary_.add(kJsonWhere, token,
                      fits ? id.get<std::int64_t>() : std::int64_t{kLargestTokenId} + 1,
                      node.source());
    }
    if (vocabulary_.size() == 0) node.refuse("empty", "at least one token");
  }

  // Tens of thousands of them, so not by way of nodes.
  void read_merges(const JsonNode& node) {
    if (!node.json().is_array()) node.refuse("an array");
    merges_.reserve(node.json().size());
    std::int32_t rank = 0;
    for (const auto& item : node.json()) {
      const auto check = [&](bool good, const auto&... text) {
        RETNET_CHECK(good, kJsonWhere, node.source(), ": merge ", rank, text...);
      };
      const auto [a, b] = halves(item);
      check(!a.empty() && !b.empty(), " is not two tokens, expected \"a b\" or [\"a\", \"b\"]");
      check(b.starts_with(prefix_), ": ", shown(b), " does not begin with the prefix ",
            shown(prefix_));
      const std::string whole = concat(a, b.substr(prefix_.size()));
      const auto left = vocabulary_.find(a), right = vocabulary_.find(b);
      const auto merged = vocabulary_.find(whole);
      check(left && right && merged, ": ",
            shown(!left    ? a
                  : !right ? b
                           : whole),
            " is not in the vocabulary, expected ", shown(a), ", ", shown(b), " and ", shown(whole),
            " there");
      merges_.insert_or_assign(key(*left, *right), BpeMerge{rank++, *merged});
    }
  }
  static std::pair<std::string_view, std::string_view> halves(const nlohmann::json& item) {
    if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string())
      return {item[0].get_ref<const std::string&>(), item[1].get_ref<const std::string&>()};
    if (!item.is_string()) return {};
    const std::string_view text = item.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      return {};
    return {text.substr(0, space), text.substr(space + 1)};
  }

  // All or none: with some of them, it would hang on the character how it is spelt.
  void read_byte_tokens(const JsonNode& node) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    std::array<std::int32_t, 256> ids{};
    std::size_t count = 0;
    for (std::size_t b = 0; b < 256; ++b) {
      const std::array<char, 6> name{'<', '0', 'x', kDigits[b / 16], kDigits[b % 16], '>'};
      const auto id = vocabulary_.find(std::string_view(name.data(), name.size()));
      count += id.has_value() ? 1 : 0;
      ids[b] = id.value_or(0);
    }
    if (count == 256) byte_ids_ = ids;
    if (count != 256 && count != 0)
      node.refuse(concat("with byte_fallback and ", count, " of the tokens <0x00> to <0xFF>"),
                  "all 256 or none");
  }

  /// The word as tokens of single characters, or bytes.
  void spell(std::string_view word, std::vector<BpePart>& parts) const {
    parts.clear();
    const auto add = [&](std::int32_t id) {
      parts.push_back({id, static_cast<std::uint32_t>(parts.size()), 1});
    };
    std::string spelling;
    bool in_unknown = false;
    std::size_t done = 0;
    for_each_char(word, [&](char32_t, std::string_view bytes) {
      std::string_view token = bytes;
      if (!prefix_.empty() || !suffix_.empty()) {
        spelling.assign(done == 0 ? "" : prefix_).append(bytes);
        if (done + bytes.size() == word.size()) spelling.append(suffix_);
        token = spelling;
      }
      done += bytes.size();
      const bool was_unknown = std::exchange(in_unknown, false);
      if (const auto id = vocabulary_.find(token)) return add(*id);
      if (byte_ids_) {
        for (const char c : token) add((*byte_ids_)[static_cast<unsigned char>(c)]);
        return;
      }
      RETNET_CHECK(unk_.has_value(), kEncodeWhere, "the character ", shown(bytes),
                   " has no token, and the tokenizer no unk_token to stand for it");
      in_unknown = true;
      if (!was_unknown || !fuse_unk_) add(*unk_);
    });
  }

  Vocabulary vocabulary_;
  std::unordered_map<std::uint64_t, BpeMerge> merges_;
  std::string prefix_, suffix_;
  std::optional<std::int32_t> unk_;
  std::optional<std::array<std::int32_t, 256>> byte_ids_;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
};

}  // namespace retnet::inline RETNET_ABI::detail
