// SPDX-License-Identifier: MIT
// Text to token ids and back: what all tokenizers share, the one without a file (bytes), and a
// stream that prints ids as they come.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/tokenizers/detail/utf8.hpp"

namespace retnet::inline RETNET_ABI {

/// The ids that a model is told apart from text by, where the tokenizer's file names them.
struct SpecialTokens {
  std::optional<std::int32_t> bos, eos, pad, unk;
};

struct EncodeOptions {
  /// Adds what the tokenizer puts around a text, such as bos. Off for a text that goes on.
  bool add_special = true;
  /// "<|endoftext|>" in a text is that token; off, it is so many letters. Turn it off for text
  /// that others wrote.
  bool parse_special = true;
};

struct DecodeOptions {
  bool skip_special = true;  ///< special tokens are no text
};

/// A constant object may be shared by any number of threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Throws std::invalid_argument for text that is not UTF-8 (see repair_utf8), except where bytes
  /// are the tokens, and for characters that have no token.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const {
    std::vector<std::int32_t> ids;
    do_encode(text, options, ids);
    return ids;
  }
  /// The bytes that the ids stand for. Tokens may hold parts of characters, so what a model made up
  /// need not be UTF-8: see repair_utf8 and TextStream. Throws std::invalid_argument for an id
  /// without a token.
  std::string decode(std::span<const std::int32_t> ids, const DecodeOptions& options = {}) const {
    return do_decode(ids, options);
  }

  /// The largest id + 1: what a model needs. Ids below it need not all have a token.
  virtual std::int32_t vocab_size() const = 0;
  /// The id of a token by its spelling in the tokenizer's file.
  virtual std::optional<std::int32_t> find(std::string_view token) const = 0;
  const SpecialTokens& special() const { return special_; }

 protected:
  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = default;
  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(const Tokenizer&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;

  SpecialTokens special_;

 private:
  virtual void do_encode(std::string_view text, const EncodeOptions& options,
                         std::vector<std::int32_t>& ids) const = 0;
  // What is decoded of the first ids stands at the front of what is decoded of all.
  virtual std::string do_decode(std::span<const std::int32_t> ids,
                                const DecodeOptions& options) const = 0;
};

/// The 256 bytes are the tokens. Takes any text, UTF-8 or not; there are no special tokens.
class ByteTokenizer final : public Tokenizer {
 public:
  std::int32_t vocab_size() const override { return 256; }
  std::optional<std::int32_t> find(std::string_view token) const override {
    if (token.size() != 1) return std::nullopt;
    return static_cast<unsigned char>(token[0]);
  }

 private:
  void do_encode(std::string_view text, const EncodeOptions&,
                 std::vector<std::int32_t>& ids) const override {
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  }
  std::string do_decode(std::span<const std::int32_t> ids, const DecodeOptions&) const override {
    std::string text;
    text.reserve(ids.size());
    for (const std::int32_t id : ids) {
      RETNET_CHECK(id >= 0 && id < 256, "ByteTokenizer::decode", "id ", id, ", expected 0 to 255");
      text += static_cast<char>(id);
    }
    return text;
  }
};

/// The text with U+FFFD for every maximal part that is not UTF-8.
inline std::string repair_utf8(std::string_view text) {
  std::string bytes(text), out;
  detail::take_utf8(bytes, out);
  if (!bytes.empty()) out += detail::kReplacementCharacter;
  return out;
}

/// Text as it is generated: takes ids one at a time, gives out whole characters. Bytes that cannot
/// be UTF-8 come out as U+FFFD; all that was given out together is
/// repair_utf8(tokenizer.decode(all ids)).
class TextStream {
 public:
  /// The tokenizer must outlive the stream.
  explicit TextStream(const Tokenizer& tokenizer, DecodeOptions options = {})
      : tokenizer_(&tokenizer), options_(options) {}

  /// The characters that this id completes; may be empty. Throws what decode throws, and is then as
  /// before.
  std::string add(std::int32_t id) {
    // A token may read differently at the start of a text, so the one before it is decoded along.
    const std::string before = decode(context_);
    context_.push_back(id);
    std::string after, alone;
    try {
      after = decode(context_);
      alone = decode({id});
    } catch (...) {
      context_.pop_back();
      throw;
    }
    bytes_.append(after, before.size());
    if (!alone.empty())
      context_.assign(1, id);
    else if (!before.empty() && after.size() == before.size())
      context_.pop_back();
    std::string text;
    detail::take_utf8(bytes_, text);
    return text;
  }

  /// The end: U+FFFD if a character lacks its end, else nothing. The stream starts anew.
  std::string finish() {
    context_.clear();
    return repair_utf8(std::exchange(bytes_, {}));
  }

 private:
  std::string decode(const std::vector<std::int32_t>& ids) const {
    return tokenizer_->decode(ids, options_);
  }

  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  std::vector<std::int32_t> context_;
  std::string bytes_;
};

}  // namespace retnet::inline RETNET_ABI
