// SPDX-License-Identifier: MIT
// Pre-tokenizers, normalizers and decoders one by one, against the package that defines them.
#include "retnet/tokenizers/detail/added_tokens.hpp"
#include "retnet/tokenizers/detail/json_decoder.hpp"
#include "retnet/tokenizers/detail/json_normalizer.hpp"
#include "retnet/tokenizers/detail/json_pre_tokenizer.hpp"
#include "tokenizers/support.hpp"

namespace retnet::detail {
namespace {

using tokenizer_test::Json;

const Json& parts() {
  static const Json json = Json::parse(io_test::read_file(tokenizer_test::data("parts.json")));
  return json;
}

/// f(spec, input, expected or null) for each part of a kind and each input.
template <class F>
void for_each_case(const char* kind, const char* inputs, const F& f) {
  for (const auto& part : parts().at(kind))
    for (std::size_t i = 0; i < part[1].size(); ++i) {
      SCOPED_TRACE(part[0].dump() + " " + parts().at(inputs)[i].dump());
      f(JsonNode("parts.json", part[0]), parts().at(inputs)[i], part[1][i]);
    }
}

TEST(Parts, PreTokenizers) {
  for_each_case("pre_tokenizers", "texts",
                [](const JsonNode& spec, const Json& text, const Json& expected) {
                  Pieces pieces;
                  if (text != "") pieces.push_back({text.get<std::string>(), true});
                  make_pre_tokenizer(spec)(pieces);
                  std::vector<std::string> given;
                  for (const Piece& piece : pieces) given.push_back(piece.text);
                  EXPECT_EQ(Json(given), expected.is_null() ? Json::array({text}) : expected);
                });
}

TEST(Parts, Normalizers) {
  for_each_case("normalizers", "texts",
                [](const JsonNode& spec, const Json& text, const Json& expected) {
                  EXPECT_EQ(Json(make_normalizer(spec)(text.get<std::string>())),
                            expected.is_null() ? text : expected);
                });
}

TEST(Parts, Decoders) {
  for_each_case(
      "decoders", "tokens", [](const JsonNode& spec, const Json& tokens, const Json& expected) {
        auto list = tokens.get<std::vector<std::string>>();
        std::string given, unchanged;
        for (const auto& token : list) unchanged += token;
        make_decoder(spec)(list);
        for (const auto& token : list) given += token;
        EXPECT_EQ(repair_utf8(given), expected.is_null() ? unchanged : expected.get<std::string>());
      });
}

TEST(Parts, TheAlphabetOfBytesIsOneToOne) {
  for (int b = 0; b < 256; ++b) {
    const std::string byte(1, static_cast<char>(b));
    EXPECT_EQ(letters_as_bytes(bytes_as_letters(byte)), byte);
  }
  EXPECT_EQ(bytes_as_letters(" \n"), "ĠĊ");
}

TEST(Parts, APatternThatNeedsTooManyStepsIsAnError) {
  const auto json = Json::parse(R"({"Regex":"(a|aa)+$|b"})");
  const Pattern pattern(JsonNode("x", json));
  io_test::expect_error<std::invalid_argument>(
      [&] { pattern.replaced(tokenizer_test::repeated("a", 100) + "c", ""); },
      {"[JsonTokenizer::encode] the pattern (a|aa)+$|b gives up", "TIME_OUT"});
}

TEST(Parts, AddedTokensOfSpacesTakeLinearTime) {
  const auto json = Json::parse(R"([{"id":0,"content":" ","lstrip":true,"special":true}])");
  const AddedTokens tokens(JsonNode("x", json), Vocabulary(), Normalizer());
  const std::string text(300'000, ' ');
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(tokens.split(text, false, true).size(), text.size());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

}  // namespace
}  // namespace retnet::detail
