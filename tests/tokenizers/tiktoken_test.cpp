// SPDX-License-Identifier: MIT
// Rank files: ids against the package that defines the format, and what is refused.
#include "retnet/tokenizers/tiktoken.hpp"

#include "tokenizers/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using tokenizer_test::cases;
using tokenizer_test::data;
using tokenizer_test::Ids;
using tokenizer_test::ids_of;

class Tiktoken : public testing::TestWithParam<const char*> {};

TEST_P(Tiktoken, EncodesAlike) {
  const TiktokenTokenizer tokenizer(data("small.tiktoken"), {.encoding = GetParam()});
  const auto& expected = cases().at("tiktoken").at(GetParam());
  const auto& texts = cases().at("texts");
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto& text = texts[i].get_ref<const std::string&>();
    const auto& item = expected.at("cases")[i];
    const Ids ids = ids_of(item.at("ids"));
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    EXPECT_EQ(tokenizer.encode(text, {.parse_special = false}),
              item.contains("no_special") ? ids_of(item.at("no_special")) : ids)
        << text;
    EXPECT_EQ(tokenizer.decode(ids, {.skip_special = false}), text);
    tokenizer_test::expect_streams_alike(tokenizer, ids);
  }
  tokenizer_test::expect_long(tokenizer, expected.at("long"));
}

INSTANTIATE_TEST_SUITE_P(Encodings, Tiktoken, testing::Values("gpt2", "cl100k_base", "o200k_base"),
                         [](const auto& encoding) { return std::string(encoding.param); });

/// A rank file of the 256 bytes, and `more`.
std::string ranks(const std::string& more = "") {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t b = 0; b < 256; ++b)
    text += std::string{kDigits[b / 4], kDigits[b % 4 * 16]} + "== " + std::to_string(b) + "\n";
  return text + more;
}

TEST(TiktokenTokenizer, TakesAPatternAndSpecialTokens) {
  const auto tokenizer = TiktokenTokenizer::from_text(
      ranks("YWI= 256\r\n\nYWJj 300"),
      {.pattern = R"(\S+|\s+)", .special_tokens = {{"<a>", 400}, {"<a><b>", 401}}});
  EXPECT_EQ(tokenizer.encode("abc ab<a><b><a>"), (Ids{300, 32, 256, 401, 400}));
  EXPECT_EQ(tokenizer.decode(Ids{300, 32, 400, 256}), "abc ab");
  EXPECT_EQ(tokenizer.decode(Ids{300, 32, 400, 256}, {.skip_special = false}), "abc <a>ab");
  EXPECT_EQ(tokenizer.vocab_size(), 402);
  EXPECT_EQ(tokenizer.find("<a>"), 400);
  EXPECT_EQ(tokenizer.find("abc"), 300);
  EXPECT_EQ(tokenizer.special().eos, std::nullopt);
  expect_error<std::invalid_argument>([&] { tokenizer.decode(Ids{299}); }, {"id 299 has no token"});
  expect_error<std::invalid_argument>([&] { tokenizer.encode("ab\xFF"); },
                                      {"[TiktokenTokenizer::encode]", "not UTF-8 at its byte 2"});
}

TEST(TiktokenTokenizer, GoesByTheNameOfTheFile) {
  const io_test::TempDir dir;
  io_test::write_file(dir / "cl100k_base.tiktoken", ranks());
  io_test::write_file(dir / "mine.tiktoken", ranks());
  const TiktokenTokenizer tokenizer(dir / "cl100k_base.tiktoken");
  EXPECT_EQ(tokenizer.special().eos, 100257);
  EXPECT_EQ(tokenizer.vocab_size(), 100277);
  expect_error<std::invalid_argument>([&] { TiktokenTokenizer(dir / "mine.tiktoken"); },
                                      {"mine.tiktoken: encoding mine", "expected gpt2, r50k_base"});
  EXPECT_THROW(TiktokenTokenizer(dir / "none.tiktoken"), std::system_error);
}

TEST(TiktokenTokenizer, RefusesWhatIsNoRankFile) {
  const auto expect_refused = [](const std::string& text,
                                 std::initializer_list<std::string_view> parts) {
    expect_error<std::invalid_argument>(
        [&] { TiktokenTokenizer::from_text(text, {.encoding = "gpt2"}, "file"); }, parts);
  };
  expect_refused("", {"[TiktokenTokenizer::from_text] file: byte 0 has no token"});
  for (const char* line :
       {"YWI=", "YWI= ", "YWI= x", "YWI= 1x", "YWI=  1", " 256", "YW= 256", "YWI 256", "YW=I 256",
        "YWJ= 256", "Y=== 256", "==== 256", "YW!= 256", "YWI= 99999999999999999999"})
    expect_refused(ranks(line), {"file: line 257 is", "expected a token in base64"});
  expect_refused(ranks("YWI= 7"), {"line 257: id 7 is given to", "and to ab"});
  expect_refused(ranks("YWI= 256\nYWI= 257"), {"line 258: token ab is given twice"});
  expect_refused(ranks("YWI= -1"), {"token ab has id -1, expected 0 to 16777215"});
  expect_refused(ranks("YWI= 1099511627776"), {"token ab has id 1099511627776"});
  expect_refused(ranks("YWI= 50256"), {"special token <|endoftext|> has id 50256"});
}

TEST(TiktokenTokenizer, RefusesWrongOptions) {
  const auto expect_refused = [](const TiktokenOptions& options,
                                 std::initializer_list<std::string_view> parts) {
    expect_error<std::invalid_argument>(
        [&] { TiktokenTokenizer::from_text(ranks(), options, "file").encode("aaa bbb"); }, parts);
  };
  expect_refused({}, {"file: encoding", "expected one of the two"});
  expect_refused({.encoding = "gpt2", .pattern = "a"}, {"expected one of the two"});
  expect_refused({.encoding = "gpt5"}, {"encoding gpt5, expected gpt2"});
  expect_refused({.pattern = "(a"}, {"file: the pattern (a is wrong", "U_REGEX_MISMATCHED_PAREN"});
  expect_refused({.pattern = "\xFF"}, {"the pattern is not UTF-8"});
  expect_refused({.pattern = std::string(1 << 15, 'a')}, {"the pattern has 32768 bytes"});
  expect_refused({.pattern = "a+"}, {"the pattern leaves out  bbb"});
  expect_refused({.pattern = ".+", .special_tokens = {{"", 300}}},
                 {"special token \"\" has id 300"});
  expect_refused({.pattern = ".+", .special_tokens = {{"<a>", 3}}}, {"special token <a> has id 3"});
  expect_refused({.pattern = ".+", .special_tokens = {{"<a>", -3}}}, {"token <a> has id -3"});
  expect_refused({.pattern = ".+", .special_tokens = {{"<a>", 300}, {"<b>", 300}}},
                 {"id 300 is given to <a> and to <b>"});
}

}  // namespace
}  // namespace retnet
