// SPDX-License-Identifier: MIT
// Pre-tokenizers of a tokenizer.json: what splits a text into the words that merges stay within.
#pragma once

#include <algorithm>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/tokenizers/detail/byte_level.hpp"
#include "retnet/tokenizers/detail/json_node.hpp"
#include "retnet/tokenizers/detail/json_pattern.hpp"
#include "retnet/tokenizers/detail/unicode.hpp"

namespace retnet::inline RETNET_ABI::detail {

struct Piece {
  std::string text;
  bool at_start;  // of the whole text
};
using Pieces = std::vector<Piece>;
using PreTokenizer = std::function<void(Pieces&)>;

/// A part of a piece: what a pattern found, or what lies between.
struct Segment {
  TextRange range;
  bool is_match;
};

inline std::vector<Segment> segments(const std::vector<TextRange>& matches, std::size_t size) {
  std::vector<Segment> out;
  std::size_t done = 0;
  for (const TextRange& match : matches) {
    if (match.begin > done) out.push_back({{done, match.begin}, false});
    out.push_back({match, true});
    done = match.end;
  }
  if (done < size) out.push_back({{done, size}, false});
  return out;
}

/// What becomes of the matches.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

inline SplitBehavior read_behavior(const JsonNode& node) {
  const std::string& word = node.text();
  if (word == "Removed") return SplitBehavior::removed;
  if (word == "Isolated") return SplitBehavior::isolated;
  if (word == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (word == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (word == "Contiguous") return SplitBehavior::contiguous;
  node.refuse("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

/// Joins neighbours as the behaviour says. Of matches in a row only the first joins what lies
/// before it (or the last what lies behind).
inline void join(std::vector<Segment>& parts, SplitBehavior behavior) {
  std::vector<Segment> out;
  const auto fold = [&](const auto& joins) {
    bool last = false;
    for (const Segment& part : parts) {
      if (!out.empty() && joins(last, part.is_match)) {
        out.back().range = {(std::min)(out.back().range.begin, part.range.begin),
                            (std::max)(out.back().range.end, part.range.end)};
      } else {
        out.push_back(part);
      }
      last = part.is_match;
    }
  };
  switch (behavior) {
    case SplitBehavior::removed:
      std::ranges::copy_if(parts, std::back_inserter(out), std::logical_not<>(),
                           &Segment::is_match);
      break;
    case SplitBehavior::isolated: return;
    case SplitBehavior::contiguous: fold(std::equal_to<>()); break;
    case SplitBehavior::merged_with_previous: fold(std::less<>()); break;
    case SplitBehavior::merged_with_next:
      std::ranges::reverse(parts);
      fold(std::less<>());
      std::ranges::reverse(out);
      break;
  }
  parts = std::move(out);
}

/// Splits every piece; `find_all(text)` gives the matches.
template <class FindAll>
void split(Pieces& pieces, SplitBehavior behavior, bool invert, FindAll&& find_all) {
  Pieces out;
  for (const Piece& piece : pieces) {
    std::vector<Segment> parts = segments(find_all(piece.text), piece.text.size());
    if (invert)
      for (Segment& part : parts) part.is_match = !part.is_match;
    join(parts, behavior);
    for (const Segment& part : parts) {
      const auto [begin, end] = part.range;
      if (begin < end)
        out.push_back({piece.text.substr(begin, end - begin), piece.at_start && begin == 0});
    }
  }
  pieces = std::move(out);
}
inline void split(Pieces& pieces, SplitBehavior behavior, bool invert, const Pattern& pattern) {
  Pattern::Finder finder(pattern);
  split(
      pieces, behavior,
      invert, [&](std::string_view text) -> const auto& { return finder.find_all(text); });
}

/// Splits at each character of a kind.
inline PreTokenizer split_at(bool (*is_kind)(char32_t), SplitBehavior behavior) {
  return [=](Pieces& pieces) {
    split(pieces, behavior, false, [&](std::string_view text) {
      std::vector<TextRange> found;
      std::size_t i = 0;
      for_each_char(text, [&](char32_t code, std::string_view bytes) {
        if (is_kind(code)) found.push_back({i, i + bytes.size()});
        i += bytes.size();
      });
      return found;
    });
  };
}

inline PreTokenizer make_byte_level(const JsonNode& node) {
  node.allow({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  std::optional<Pattern> pattern;
  if (node.boolean("use_regex", true))
    pattern.emplace(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
  return [pattern, prefix = node.boolean("add_prefix_space", true)](Pieces& pieces) {
    if (prefix)
      for (Piece& piece : pieces)
        if (!piece.text.starts_with(' ')) piece.text.insert(0, 1, ' ');
    if (pattern) split(pieces, SplitBehavior::isolated, false, *pattern);
    for (Piece& piece : pieces) piece.text = bytes_as_letters(piece.text);
  };
}

enum class PrependScheme { never, first, always };

/// Of the Metaspace pre-tokenizer and decoder, in the old spelling too.
struct MetaspaceFields {
  std::string replacement;
  PrependScheme scheme = PrependScheme::always;
  bool split;

  explicit MetaspaceFields(const JsonNode& node)
      : replacement(node.text("replacement", "\xE2\x96\x81")), split(node.boolean("split", true)) {
    node.allow({"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"});
    if (replacement.empty() || front_char(replacement).bytes != replacement.size())
      node.at("replacement").refuse("one character");
    if (!node.boolean("add_prefix_space", true)) scheme = PrependScheme::never;
    const auto word = node.find("prepend_scheme");
    if (!word) return;
    if (word->text() == "never")
      scheme = PrependScheme::never;
    else if (word->text() == "first")
      scheme = PrependScheme::first;
    else if (word->text() == "always")
      scheme = PrependScheme::always;
    else
      word->refuse("never, first or always");
  }
};

inline PreTokenizer make_metaspace(const JsonNode& node) {
  return [fields = MetaspaceFields(node)](Pieces& pieces) {
    const std::string& mark = fields.replacement;
    for (Piece& piece : pieces) {
      std::string text;
      for (const char c : piece.text) c == ' ' ? text.append(mark) : text.append(1, c);
      const bool prepends = fields.scheme == PrependScheme::always ||
                            (fields.scheme == PrependScheme::first && piece.at_start);
      piece.text = prepends && !text.starts_with(mark) ? concat(mark, text) : std::move(text);
    }
    if (!fields.split) return;
    split(pieces, SplitBehavior::merged_with_next, false, [&](std::string_view text) {
      std::vector<TextRange> found;
      for (std::size_t i = 0; (i = text.find(mark, i)) != std::string_view::npos; i += mark.size())
        found.push_back({i, i + mark.size()});
      return found;
    });
  };
}

inline PreTokenizer make_pre_tokenizer_step(const JsonNode& node) {
  const std::string& type = node.at("type").text();
  if (type == "ByteLevel") return make_byte_level(node);
  if (type == "Metaspace") return make_metaspace(node);
  if (type == "Split") {
    node.allow({"type", "pattern", "behavior", "invert"});
    return [pattern = Pattern(node.at("pattern")), behavior = read_behavior(node.at("behavior")),
            invert = node.boolean("invert", false)](Pieces& pieces) {
      split(pieces, behavior, invert, pattern);
    };
  }
  if (type == "Whitespace") {
    node.allow({"type"});
    return [pattern = Pattern(R"(\w+|[^\w\s]+)")](Pieces& pieces) {
      split(pieces, SplitBehavior::removed, true, pattern);
    };
  }
  if (type == "WhitespaceSplit") {
    node.allow({"type"});
    return split_at(is_space, SplitBehavior::removed);
  }
  if (type == "Digits") {
    node.allow({"type", "individual_digits"});
    return split_at(is_numeric, node.boolean("individual_digits", false)
                                    ? SplitBehavior::isolated
                                    : SplitBehavior::contiguous);
  }
  if (type == "Punctuation") {
    node.allow({"type", "behavior"});
    const auto behavior = node.find("behavior");
    return split_at(is_punctuation, behavior ? read_behavior(*behavior) : SplitBehavior::isolated);
  }
  node.at("type").refuse(
      "Sequence, ByteLevel, Metaspace, Split, Whitespace, WhitespaceSplit, Digits or Punctuation");
}

/// Throws std::invalid_argument for a pre-tokenizer that is not known.
inline PreTokenizer make_pre_tokenizer(const JsonNode& node) {
  std::vector<PreTokenizer> steps;
  add_steps(node, "pretokenizers", make_pre_tokenizer_step, steps);
  return [steps](Pieces& pieces) {
    const auto bytes = [&] {
      std::size_t n = 0;
      for (const Piece& piece : pieces) n += piece.text.size();
      return n;
    };
    const std::size_t before = bytes();
    for (const PreTokenizer& step : steps) {
      step(pieces);
      check_growth(kEncodeWhere, before, bytes());
    }
  };
}

}  // namespace retnet::inline RETNET_ABI::detail
