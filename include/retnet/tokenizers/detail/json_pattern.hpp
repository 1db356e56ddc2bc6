// SPDX-License-Identifier: MIT
// Patterns of a tokenizer.json: {"String": " "} or {"Regex": "\\s+"}.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/tokenizers/detail/json_node.hpp"
#include "retnet/tokenizers/detail/unicode.hpp"
#include "retnet/tokenizers/detail/vocabulary.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr const char* kEncodeWhere = "JsonTokenizer::encode";

/// The pattern as ICU has to read it. Files are written for Oniguruma, to which \w and \h are other
/// sets. None if it has X{1,3}+, which repeats there, and is possessive to ICU.
inline std::optional<std::string> icu_pattern(std::string_view pattern) {
  static constexpr std::string_view kWord =
      R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u00B2\u00B3\u00B9\u00BC-\u00BE])";
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    if (rest[0] == '{') {
      const std::size_t end = rest.find_first_not_of("0123456789,", 1);
      if (end != std::string_view::npos && end > 1 && rest.substr(end, 2) == "}+")
        return std::nullopt;
    }
    if (rest[0] != '\\' || rest.size() == 1) {
      out += rest[0];
      continue;
    }
    ++i;
    switch (rest[1]) {
      case 'w': out.append("[").append(kWord); break;
      case 'W': out.append("[^").append(kWord); break;
      case 'h': out.append("[0-9a-fA-F]"); break;
      case 'H': out.append("[^0-9a-fA-F]"); break;
      case 'p':
      case 'P':
      case 'x':  // the braces of \p{L} and \x{3000} count nothing
        i += rest.substr(2, 1) == "{" ? 1 : 0;
        out.append(rest.substr(0, rest.substr(2, 1) == "{" ? 3 : 2));
        break;
      default: out.append(rest.substr(0, 2));
    }
  }
  return out;
}

class Pattern {
 public:
  explicit Pattern(const JsonNode& node) {
    node.allow({"String", "Regex"});
    if (const auto regex = node.find("Regex")) {
      const auto pattern = icu_pattern(regex->text());
      if (!pattern) regex->refuse("no + behind a counted repetition: engines differ about it");
      // There, ^ and $ are of every line, and lines end in \n.
      regex_.emplace(kJsonWhere, node.source(), *pattern, UREGEX_MULTILINE | UREGEX_UNIX_LINES);
    } else {
      text_ = node.at("String").text();
      if (text_.empty()) node.at("String").refuse("some text");
    }
  }
  /// Of this reader's own.
  explicit Pattern(std::string_view regex) : regex_(std::in_place, kJsonWhere, "pattern", regex) {}

  /// Finds in one text after another.
  class Finder {
   public:
    explicit Finder(const Pattern& pattern) : text_(pattern.text_) {
      if (pattern.regex_) matcher_.emplace(*pattern.regex_);
    }
    const std::vector<TextRange>& find_all(std::string_view text) {
      if (matcher_) return matcher_->find_all(kEncodeWhere, text);
      found_.clear();
      for (std::size_t i = 0; (i = text.find(text_, i)) != std::string_view::npos;
           i += text_.size())
        found_.push_back({i, i + text_.size()});
      return found_;
    }

   private:
    std::string_view text_;
    std::optional<Regex::Matcher> matcher_;
    std::vector<TextRange> found_;
  };

  std::string replaced(std::string_view text, std::string_view by) const {
    std::string out;
    std::size_t done = 0;
    Finder finder(*this);
    for (const TextRange& match : finder.find_all(text)) {
      out.append(text.substr(done, match.begin - done)).append(by);
      done = match.end;
      check_growth(kEncodeWhere, text.size(), out.size());
    }
    return out.append(text.substr(done));
  }

 private:
  std::string text_;
  std::optional<Regex> regex_;
};

}  // namespace retnet::inline RETNET_ABI::detail
