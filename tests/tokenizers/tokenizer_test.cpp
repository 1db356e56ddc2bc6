// SPDX-License-Identifier: MIT
// UTF-8, bytes as tokens, and the stream that prints ids as they come.
#include "retnet/tokenizers/tokenizer.hpp"

#include <map>

#include "tokenizers/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using tokenizer_test::Ids;

TEST(Utf8, TakesWhatUnicodeAllows) {
  for (const char32_t code :
       {0x0U, 0x7FU, 0x80U, 0x7FFU, 0x800U, 0xD7FFU, 0xE000U, 0xFFFFU, 0x10000U, 0x10FFFFU}) {
    std::string text;
    detail::append_utf8(text, code);
    const auto c = detail::front_char(text);
    EXPECT_TRUE(c.valid);
    EXPECT_EQ(c.code, code);
    EXPECT_EQ(c.bytes, text.size());
  }
  // Overlong forms, surrogates, too large numbers, lone bytes.
  for (const char* bad : {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                          "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5", "\xFF", "\x80", "\xC3("})
    EXPECT_FALSE(detail::front_char(bad).valid);
}

TEST(Utf8, RepairsByMaximalParts) {
  EXPECT_EQ(repair_utf8("plain ä 🙂"), "plain ä 🙂");
  EXPECT_EQ(repair_utf8("a\xFF\xFE b"), "a\uFFFD\uFFFD b");
  EXPECT_EQ(repair_utf8("\xF0\x9F\x99x"), "\uFFFDx");
  EXPECT_EQ(repair_utf8("\xE2\x82"), "\uFFFD");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8(std::string("\0\xC3", 2)), std::string("\0\uFFFD", 4));
}

TEST(ByteTokenizer, TakesEverything) {
  std::string text;
  for (int b = 0; b < 256; ++b) text += static_cast<char>(b);
  const ByteTokenizer tokenizer;
  const Ids ids = tokenizer.encode(text);
  ASSERT_EQ(ids.size(), 256u);
  for (int b = 0; b < 256; ++b) EXPECT_EQ(ids[static_cast<std::size_t>(b)], b);
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_EQ(tokenizer.vocab_size(), 256);
  EXPECT_EQ(tokenizer.find("\xFF"), 255);
  EXPECT_EQ(tokenizer.find("ab"), std::nullopt);
  EXPECT_EQ(tokenizer.special().eos, std::nullopt);
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(ByteTokenizer, RefusesOtherIds) {
  for (const std::int32_t id : {-1, 256, 1 << 30})
    expect_error<std::invalid_argument>(
        [&] {
          ByteTokenizer().decode(Ids{65, id});
        },
        {"[ByteTokenizer::decode] id " + std::to_string(id), "expected 0 to 255"});
}

TEST(TextStream, WaitsForTheEndOfACharacter) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer);
  EXPECT_EQ(stream.add('a'), "a");
  EXPECT_EQ(stream.add(0xF0), "");
  EXPECT_EQ(stream.add(0x9F), "");
  EXPECT_EQ(stream.add(0x99), "");
  EXPECT_EQ(stream.add(0x82), "🙂");
  EXPECT_EQ(stream.finish(), "");
}

TEST(TextStream, ReplacesWhatCannotBeText) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer);
  EXPECT_EQ(stream.add(0xFF), "\uFFFD");
  EXPECT_EQ(stream.add(0xE2), "");
  EXPECT_EQ(stream.add('x'), "\uFFFDx");
  EXPECT_EQ(stream.add(0xE2), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.add('y'), "y");
}

TEST(TextStream, GoesOnAfterAWrongId) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer);
  stream.add(0xC3);
  EXPECT_THROW(stream.add(256), std::invalid_argument);
  EXPECT_EQ(stream.add(0xA4), "ä");
}

/// Words with a space before them, except at the start of a text; 0 is special.
class Words final : public Tokenizer {
 public:
  std::int32_t vocab_size() const override { return 4; }
  std::optional<std::int32_t> find(std::string_view) const override { return std::nullopt; }

 private:
  void do_encode(std::string_view, const EncodeOptions&, Ids&) const override {}
  std::string do_decode(std::span<const std::int32_t> ids,
                        const DecodeOptions& options) const override {
    std::string text;
    for (const auto id : ids)
      if (id != 0)
        text += id == 1 ? " " : " " + std::to_string(id);
      else if (!options.skip_special)
        text += "<0>";
    const auto first = text.find_first_not_of(' ');
    return first == std::string::npos ? "" : text.substr(first);
  }
};

TEST(TextStream, KeepsTheSpacesBetweenWords) {
  const Words tokenizer;
  for (const Ids& ids :
       {Ids{2, 3}, Ids{0, 2, 0, 0, 3, 0}, Ids{1, 1, 2, 1, 1, 3}, Ids{0, 1, 0, 2, 1, 0, 1, 3, 1}})
    tokenizer_test::expect_streams_alike(tokenizer, ids);
}

}  // namespace
}  // namespace retnet
