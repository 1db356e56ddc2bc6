// SPDX-License-Identifier: MIT
// What tokenizers ask of Unicode's tables, by ICU: normal forms, lower case, kinds of characters,
// regular expressions. ICU for the latter too: it has look-ahead, possessive quantifiers and set
// operations, which the published patterns use, and its \s and \w are Unicode's own.
#pragma once

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/uregex.h>
#include <unicode/utypes.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/tokenizers/detail/utf8.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// `text` is valid UTF-8, and short enough to be counted in 31 bits.
inline void assign_utf16(std::u16string& out, std::string_view text) {
  out.clear();
  out.reserve(text.size());
  for_each_char(text, [&](char32_t code, std::string_view) {
    if (code >= 0x10000) {
      out += static_cast<char16_t>(0xD7C0 + (code >> 10));
      out += static_cast<char16_t>(0xDC00 + (code & 0x3FF));
    } else {
      out += static_cast<char16_t>(code);
    }
  });
}
inline std::u16string utf16(std::string_view text) {
  std::u16string out;
  assign_utf16(out, text);
  return out;
}

inline std::int32_t units(const std::u16string& text) {
  return static_cast<std::int32_t>(text.size());
}

[[noreturn]] inline void throw_icu(const char* where, std::string_view what, UErrorCode status) {
  throw_invalid(where, what, ": ", u_errorName(status));
}

enum class NormalForm { nfc, nfd, nfkc, nfkd };

inline std::string normalized(const char* where, NormalForm form, std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  const UNormalizer2* const normalizer = form == NormalForm::nfc   ? unorm2_getNFCInstance(&status)
                                         : form == NormalForm::nfd ? unorm2_getNFDInstance(&status)
                                         : form == NormalForm::nfkc
                                             ? unorm2_getNFKCInstance(&status)
                                             : unorm2_getNFKDInstance(&status);
  const std::u16string in = utf16(text);
  std::u16string out(in.size(), u'\0');
  const auto run = [&] {
    return unorm2_normalize(normalizer, in.data(), units(in), out.data(), units(out), &status);
  };
  std::int32_t size = run();
  if (status == U_BUFFER_OVERFLOW_ERROR) {
    out.resize(static_cast<std::size_t>(size));
    status = U_ZERO_ERROR;
    size = run();
  }
  if (U_FAILURE(status)) throw_icu(where, "the text cannot be normalized", status);
  std::string result;
  result.reserve(text.size());
  for (std::int32_t i = 0; i < size; ++i) {
    char32_t code = out[static_cast<std::size_t>(i)];
    if (code >= 0xD800 && code < 0xDC00)
      code = (code << 10) + out[static_cast<std::size_t>(++i)] - 0x35FDC00;
    append_utf8(result, code);
  }
  return result;
}

/// Character by character, without regard to neighbours or language.
inline std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_char(text, [&](char32_t code, std::string_view) {
    if (code == 0x130)  // the one letter whose lower case is two characters
      out += "i\xCC\x87";
    else
      append_utf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(code))));
  });
  return out;
}

inline bool is_space(char32_t code) { return u_isUWhiteSpace(static_cast<UChar32>(code)) != 0; }
inline bool is_numeric(char32_t code) {
  return (U_GET_GC_MASK(static_cast<UChar32>(code)) & U_GC_N_MASK) != 0;
}
inline bool is_punctuation(char32_t code) {
  if (code < 0x80) return code > 0x20 && code < 0x7F && u_isalnum(static_cast<UChar32>(code)) == 0;
  return (U_GET_GC_MASK(static_cast<UChar32>(code)) & U_GC_P_MASK) != 0;
}
/// \w of regular expressions.
inline bool is_word(char32_t code) {
  const auto c = static_cast<UChar32>(code);
  return u_isUAlphabetic(c) != 0 || u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL) != 0 ||
         (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
}

/// Bytes of a text, [begin, end).
struct TextRange {
  std::size_t begin;
  std::size_t end;
  std::string_view of(std::string_view text) const { return text.substr(begin, end - begin); }
};

/// A compiled regular expression. Copies share it; matching is thread-safe.
class Regex {
 public:
  Regex() = default;  // one to assign to
  /// Throws std::invalid_argument naming `source` for a pattern that ICU does not understand.
  /// `flags` are ICU's UREGEX_*.
  Regex(const char* where, std::string_view source, std::string_view pattern,
        std::uint32_t flags = 0)
      : pattern_(pattern) {
    constexpr std::size_t kLongest = 1 << 12;
    RETNET_CHECK(!pattern.empty() && pattern.size() <= kLongest, where, source,
                 ": the pattern has ", pattern.size(), " bytes, expected 1 to ", kLongest);
    RETNET_CHECK(valid_utf8_prefix(pattern) == pattern.size(), where, source,
                 ": the pattern is not UTF-8");
    const std::u16string text = utf16(pattern);
    UErrorCode status = U_ZERO_ERROR;
    UParseError place{};
    regex_.reset(uregex_open(text.data(), units(text), flags, &place, &status), uregex_close);
    RETNET_CHECK(U_SUCCESS(status), where, source, ": the pattern ", shown(pattern),
                 " is wrong at ", place.offset, ": ", u_errorName(status),
                 ", expected a regular expression as ICU reads it");
  }

  /// Finds one text after another; not for use across threads.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex) : name_(&regex.pattern_) {
      UErrorCode status = U_ZERO_ERROR;
      matcher_.reset(uregex_clone(regex.regex_.get(), &status));
      uregex_setStackLimit(matcher_.get(), kStackBytes, &status);
      if (U_FAILURE(status)) throw_icu("Regex::Matcher", "no matcher", status);
    }

    /// All matches from left to right. Throws std::invalid_argument when the pattern takes too many
    /// steps over this text.
    const std::vector<TextRange>& find_all(const char* where, std::string_view text) {
      assign_utf16(text_, text);
      found_.clear();
      UErrorCode status = U_ZERO_ERROR;
      uregex_setText(matcher_.get(), text_.data(), units(text_), &status);
      uregex_setTimeLimit(matcher_.get(), kSteps + units(text_) / kUnitsAStep, &status);
      Cursor cursor{text};
      while (uregex_findNext(matcher_.get(), &status) != 0) {
        const std::size_t begin = cursor.to(uregex_start(matcher_.get(), 0, &status));
        const std::size_t end = cursor.to(uregex_end(matcher_.get(), 0, &status));
        // Nothing, where the last match ended, is no match.
        if (begin < end || found_.empty() || found_.back().end < begin)
          found_.push_back({begin, end});
      }
      if (U_FAILURE(status))
        throw_icu(where,
                  concat("the pattern ", shown(*name_), " gives up on a text of ", text.size(),
                         " bytes, expected one that needs fewer steps"),
                  status);
      return found_;
    }

   private:
    // ICU's steps are of ten thousand saved states each: these are 160 thousand for a text, which
    // may be one of thousands of words, and a hundred a character.
    static constexpr std::int32_t kSteps = 16, kUnitsAStep = 100;
    static constexpr std::int32_t kStackBytes = 1 << 26;

    /// From places in UTF-16 to those in UTF-8, forward.
    struct Cursor {
      std::string_view text;
      std::size_t byte = 0;
      std::int32_t unit = 0;

      std::size_t to(std::int32_t wanted) {
        while (unit < wanted) {
          const std::size_t bytes = front_char(text.substr(byte)).bytes;
          byte += bytes;
          unit += bytes == 4 ? 2 : 1;
        }
        return byte;
      }
    };
    struct Close {
      void operator()(URegularExpression* regex) const { uregex_close(regex); }
    };

    const std::string* name_;
    std::unique_ptr<URegularExpression, Close> matcher_;
    std::u16string text_;
    std::vector<TextRange> found_;
  };

 private:
  std::string pattern_;
  std::shared_ptr<URegularExpression> regex_;
};

}  // namespace retnet::inline RETNET_ABI::detail
