// SPDX-License-Identifier: MIT
// Reads *.tiktoken, the rank files of OpenAI's models: a line a token, its bytes in base64 and its
// rank, which is also its id. Pattern and special tokens are not in the file; they go by its name.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/io/file.hpp"
#include "retnet/tokenizers/detail/base64.hpp"
#include "retnet/tokenizers/detail/bpe.hpp"
#include "retnet/tokenizers/detail/token_finder.hpp"
#include "retnet/tokenizers/detail/unicode.hpp"
#include "retnet/tokenizers/detail/vocabulary.hpp"
#include "retnet/tokenizers/tokenizer.hpp"

namespace retnet::inline RETNET_ABI {

struct TiktokenOptions {
  /// "gpt2", "r50k_base", "p50k_base", "cl100k_base" or "o200k_base": gives the pattern and the
  /// special tokens.
  std::string encoding{};
  /// Instead of an encoding: what splits a text into words, a regular expression as ICU reads it.
  std::string pattern{};
  /// In addition to those of the encoding.
  std::map<std::string, std::int32_t> special_tokens{};
};

namespace detail {

struct TiktokenEncoding {
  const char* name;
  const char* pattern;
  std::vector<std::pair<const char*, std::int32_t>> special_tokens;
};

/// Null for a name that is not known.
inline const TiktokenEncoding* find_encoding(std::string_view name) {
  static constexpr const char* kGpt2 =
      R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  static constexpr const char* kCl100k =
      R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
      R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static constexpr const char* kO200k =
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
      R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
      R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const std::array<TiktokenEncoding, 5> kEncodings{{
      {"gpt2", kGpt2, {{"<|endoftext|>", 50256}}},
      {"r50k_base", kGpt2, {{"<|endoftext|>", 50256}}},
      {"p50k_base", kGpt2, {{"<|endoftext|>", 50256}}},
      {"cl100k_base",
       kCl100k,
       {{"<|endoftext|>", 100257},
        {"<|fim_prefix|>", 100258},
        {"<|fim_middle|>", 100259},
        {"<|fim_suffix|>", 100260},
        {"<|endofprompt|>", 100276}}},
      {"o200k_base", kO200k, {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
  }};
  const auto* it = std::ranges::find(kEncodings, name, &TiktokenEncoding::name);
  return it == kEncodings.end() ? nullptr : it;
}

}  // namespace detail

/// eos is "<|endoftext|>", where there is one. Nothing is added around a text.
class TiktokenTokenizer final : public Tokenizer {
 public:
  static constexpr std::string_view kFileName = "*.tiktoken";

  /// Without options the encoding is the name of the file: cl100k_base.tiktoken. Throws
  /// std::system_error when the file cannot be read, else what from_text throws.
  explicit TiktokenTokenizer(const std::string& path, TiktokenOptions options = {})
      : TiktokenTokenizer(from_file(path, std::move(options))) {}

  /// The same from memory; `source` stands for the file in messages. Throws std::invalid_argument
  /// naming source and line for what is malformed or given twice, for a byte without a token, and
  /// for an unknown encoding.
  static TiktokenTokenizer from_text(std::string_view ranks, const TiktokenOptions& options,
                                     std::string_view source = kFileName) {
    RETNET_CHECK(options.encoding.empty() != options.pattern.empty(), kWhere, source, ": encoding ",
                 detail::shown(options.encoding), " and pattern ", detail::shown(options.pattern),
                 ", expected one of the two to be given");
    const auto* encoding = detail::find_encoding(options.encoding);
    RETNET_CHECK(encoding != nullptr || options.encoding.empty(), kWhere, source, ": encoding ",
                 detail::shown(options.encoding),
                 ", expected gpt2, r50k_base, p50k_base, cl100k_base or o200k_base, or a pattern");
    TiktokenTokenizer tokenizer;
    tokenizer.read_ranks(ranks, source);
    auto special = options.special_tokens;
    if (encoding != nullptr)
      special.insert(encoding->special_tokens.begin(), encoding->special_tokens.end());
    tokenizer.add_special(special, source);
    std::string_view pattern = options.pattern;
    if (encoding != nullptr) pattern = encoding->pattern;
    tokenizer.pattern_ = detail::Regex(kWhere, source, pattern);
    return tokenizer;
  }

  std::int32_t vocab_size() const override {
    return (std::max)(vocabulary_.size(), special_vocabulary_.size());
  }
  std::optional<std::int32_t> find(std::string_view token) const override {
    const auto id = special_vocabulary_.find(token);
    return id ? id : vocabulary_.find(token);
  }

 private:
  static constexpr const char* kWhere = "TiktokenTokenizer::from_text";

  static TiktokenTokenizer from_file(const std::string& path, TiktokenOptions options) {
    if (options.encoding.empty() && options.pattern.empty())
      options.encoding = std::filesystem::path(path).stem().string();
    const MappedFile file(path);
    const auto bytes = file.bytes();
    return from_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, options, path);
  }

  TiktokenTokenizer() = default;

  void read_ranks(std::string_view text, std::string_view source) {
    vocabulary_.reserve(static_cast<std::size_t>(std::ranges::count(text, '\n')) + 1);
    for (std::size_t number = 1; !text.empty(); ++number) {
      const std::size_t end = (std::min)(text.find('\n'), text.size());
      std::string_view line = text.substr(0, end);
      text.remove_prefix((std::min)(end + 1, text.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.empty()) continue;
      const std::size_t space = (std::min)(line.find(' '), line.size());
      const auto token = detail::from_base64(line.substr(0, space));
      std::int64_t rank = -1;
      const char* const stop = line.data() + line.size();
      const char* const first = line.data() + (std::min)(space + 1, line.size());
      const auto [last, error] = std::from_chars(first, stop, rank);
      RETNET_CHECK(token && !token->empty() && error == std::errc() && last == stop, kWhere, source,
                   ": line ", number, " is ", detail::shown(line),
                   ", expected a token in base64, a space and its rank");
      vocabulary_.add(kWhere, *token, rank, source, ": line ", number);
      longest_ = (std::max)(longest_, token->size());
    }
    for (std::size_t b = 0; b < byte_ids_.size(); ++b) {
      const char c = static_cast<char>(b);
      const auto id = vocabulary_.find({&c, 1});
      RETNET_CHECK(id.has_value(), kWhere, source, ": byte ", b,
                   " has no token, expected one for each of the 256");
      byte_ids_[b] = *id;
    }
  }

  void add_special(const std::map<std::string, std::int32_t>& tokens, std::string_view source) {
    for (const auto& [token, id] : tokens) {
      RETNET_CHECK(!token.empty() && vocabulary_.token(id) == nullptr, kWhere, source,
                   ": special token ", detail::shown(token), " has id ", id,
                   ", expected some text and an id that no other token has");
      special_vocabulary_.add(kWhere, token, id, source);
    }
    finder_ = detail::TokenFinder({tokens.begin(), tokens.end()});
    special_.eos = special_vocabulary_.find("<|endoftext|>");
  }

  void do_encode(std::string_view text, const EncodeOptions& options,
                 std::vector<std::int32_t>& ids) const override {
    constexpr const char* kEncode = "TiktokenTokenizer::encode";
    detail::check_text_size(kEncode, text);
    detail::check_utf8(kEncode, text);
    detail::Regex::Matcher matcher(pattern_);
    detail::BpeMerger merger;
    std::vector<detail::BpePart> parts;
    for (std::size_t done = 0; done < text.size();) {
      const auto special =
          options.parse_special ? finder_.find(text, done) : detail::TokenFinder::Match();
      const std::size_t end = special ? special.begin : text.size();
      const std::string_view part = text.substr(done, end - done);
      std::size_t covered = 0;
      for (const auto& word : matcher.find_all(kEncode, part)) {
        if (word.begin != covered) break;
        encode_word(word.of(part), parts, merger, ids);
        covered = word.end;
      }
      RETNET_CHECK(covered == part.size(), kEncode, "the pattern leaves out ",
                   detail::shown(part.substr(covered)), ", expected one that covers every text");
      if (special) ids.push_back(special.id);
      done = special ? special.end : end;
    }
  }

  void encode_word(std::string_view word, std::vector<detail::BpePart>& parts,
                   detail::BpeMerger& merger, std::vector<std::int32_t>& ids) const {
    if (const auto id = vocabulary_.find(word)) return ids.push_back(*id);
    parts.clear();
    for (const char c : word)
      parts.push_back(
          {byte_ids_[static_cast<unsigned char>(c)], static_cast<std::uint32_t>(parts.size()), 1});
    merger.merge(
        parts,
        [&](const detail::BpePart& left,
            const detail::BpePart& right) -> std::optional<detail::BpeMerge> {
          const std::size_t size = std::size_t{left.size} + right.size;
          if (size > longest_) return std::nullopt;
          const auto id = vocabulary_.find(word.substr(left.begin, size));
          return id ? std::optional(detail::BpeMerge{*id, *id}) : std::nullopt;
        },
        ids);
  }

  std::string do_decode(std::span<const std::int32_t> ids,
                        const DecodeOptions& options) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (const std::string* special = special_vocabulary_.token(id))
        text += options.skip_special ? std::string() : *special;
      else
        text += vocabulary_.at("TiktokenTokenizer::decode", id);
    }
    return text;
  }

  detail::Regex pattern_;
  detail::Vocabulary vocabulary_, special_vocabulary_;
  detail::TokenFinder finder_;
  std::array<std::int32_t, 256> byte_ids_{};
  std::size_t longest_ = 0;
};

}  // namespace retnet::inline RETNET_ABI
