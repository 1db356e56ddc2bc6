// SPDX-License-Identifier: MIT
// tokenizer.json files that are wrong, contradict themselves or ask for what is not here: every
// error names the file and the place.
#include "retnet/tokenizers/tokenizer_json.hpp"
#include "tokenizers/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using tokenizer_test::Ids;
using tokenizer_test::Json;

/// Two letters and their merge.
Json plain() {
  return Json::parse(R"({"added_tokens":[],"normalizer":null,"model":
      {"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})");
}
JsonTokenizer read(const Json& json) { return JsonTokenizer::from_text(json.dump(), "file"); }

void expect_refused(const Json& json, std::initializer_list<std::string_view> parts) {
  expect_error<std::invalid_argument>([&] { read(json); }, parts);
}
/// The plain file with a change: the value at a JSON pointer.
void expect_refused(const std::string& place, const Json& value,
                    std::initializer_list<std::string_view> parts) {
  SCOPED_TRACE(place + " " + value.dump());
  Json json = plain();
  json[Json::json_pointer(place)] = value;
  expect_refused(json, parts);
}
void expect_text_refused(std::string_view text, std::initializer_list<std::string_view> parts) {
  expect_error<std::invalid_argument>([&] { JsonTokenizer::from_text(text, "file"); }, parts);
}

TEST(JsonErrors, ThePlainFileIsFine) {
  const JsonTokenizer tokenizer = read(plain());
  EXPECT_EQ(tokenizer.encode("abab"), (Ids{2, 2}));
  EXPECT_EQ(tokenizer.vocab_size(), 3);
}

TEST(JsonErrors, Text) {
  expect_text_refused("", {"[JsonTokenizer::from_text] file is not JSON"});
  expect_text_refused("{\"model\":", {"file is not JSON"});
  expect_text_refused("{\"a\":1}x", {"file is not JSON"});
  expect_text_refused(std::string("{}\0", 3), {"file holds a zero byte"});
  expect_text_refused("{\"\xFF\":1}", {"file is not JSON"});
  expect_text_refused("[1]", {"file: the file is an array, expected an object"});
  expect_text_refused("{}", {"file: the file is without model, expected it to be given"});
  expect_text_refused(R"({"model":{"vocab":{"a":0,"a":1}}})", {"file: a is given twice"});
  expect_text_refused(std::string(100'000, '['), {"file is nested deeper than 64 levels"});
}

TEST(JsonErrors, Vocabulary) {
  expect_refused("/model/type", "WordPiece", {"file: model.type is \"WordPiece\", expected BPE"});
  expect_refused("/model/vocab", Json::array(), {"model.vocab is an array, expected an object"});
  expect_refused("/model/vocab", Json::object(), {"model.vocab is empty"});
  expect_refused("/model/vocab/c", "x", {"model.vocab is with c of another type"});
  expect_refused("/model/vocab/c", 1.5, {"model.vocab is with c of another type"});
  expect_refused("/model/vocab/c", 1, {"file: id 1 is given to b and to c"});
  expect_refused("/model/vocab/c", -1, {"token c has id -1, expected 0 to 16777215"});
  expect_refused("/model/vocab/c", std::int64_t{1} << 40, {"token c has id 16777216, expected"});
  expect_refused("/model/vocab/c", ~std::uint64_t{0}, {"token c has id 16777216, expected"});
  expect_refused("/model/unk_token", "u", {"model.unk_token is \"u\", expected a token"});
  expect_refused("/model/dropout", 0.1, {"model.dropout is 0.1, expected null or 0"});
  expect_refused("/model/fuse_unk", 1, {"model.fuse_unk is 1, expected true or false"});
  expect_refused("/model/surprise", 1, {"model has a field surprise"});
  Json json = plain();
  json["model"]["byte_fallback"] = true;
  json["model"]["vocab"]["<0x41>"] = 3;
  expect_refused(json, {"model is with byte_fallback and 1 of the tokens <0x00> to <0xFF>"});
}

TEST(JsonErrors, Merges) {
  expect_refused("/model/merges", Json::object(), {"model.merges is an object"});
  for (const char* bad : {R"("ab")", R"("a b c")", R"(" ab")", R"("a ")", R"(["a"])", "7",
                          R"(["a","b","a"])", R"(["a",7])", R"(["a",""])", "null"})
    expect_refused("/model/merges/1", Json::parse(bad), {"file: merge 1 is not two tokens"});
  expect_refused("/model/merges/0", "a c", {"merge 0: c is not in the vocabulary"});
  expect_refused("/model/merges/0", "c a", {"merge 0: c is not in the vocabulary"});
  expect_refused("/model/merges/0", Json({"b", "a"}), {"merge 0: ba is not in the vocabulary"});
  expect_refused("/model/continuing_subword_prefix", "##", {"b does not begin with the prefix ##"});
}

TEST(JsonErrors, AddedTokens) {
  const auto token = [](int id, const char* content) {
    return Json::array({{{"id", id}, {"content", content}}});
  };
  expect_refused("/added_tokens", Json::object(), {"added_tokens is an object, expected an array"});
  expect_refused("/added_tokens", token(0, "x"), {"added token x has id 0, which is that of a"});
  expect_refused("/added_tokens", token(5, "a"), {"added token a has id 5", "vocabulary 0"});
  expect_refused("/added_tokens", token(5, ""), {"added_tokens[0].content is \"\""});
  expect_refused("/added_tokens", token(-5, "x"), {"token x has id -5"});
  auto twice = token(5, "x");
  twice.push_back(twice[0]);
  expect_refused("/added_tokens", twice, {"token x is given twice"});
  twice[1]["content"] = "y";
  expect_refused("/added_tokens", twice, {"id 5 is given to x and to y"});
  twice[1]["wide"] = true;
  expect_refused("/added_tokens", twice, {"added_tokens[1] has a field wide"});
}

TEST(JsonErrors, PartsThatAreNotHere) {
  const auto part = [](const char* type) { return Json{{"type", type}}; };
  const auto in_sequence = [&](const char* items, const Json& item) {
    return Json{{"type", "Sequence"}, {items, {item}}};
  };
  expect_refused("/normalizer", part("Precompiled"),
                 {"file: normalizer.type is \"Precompiled\", expected Sequence, NFC"});
  expect_refused("/normalizer", in_sequence("normalizers", part("Nmt")),
                 {"normalizer.normalizers[0].type is \"Nmt\""});
  expect_refused("/normalizer", Json::object(), {"normalizer is without type"});
  expect_refused("/pre_tokenizer", part("UnicodeScripts"),
                 {"pre_tokenizer.type is \"UnicodeScripts\", expected Sequence, ByteLevel"});
  expect_refused("/pre_tokenizer", in_sequence("pretokenizers", part("X")),
                 {"pre_tokenizer.pretokenizers[0].type is \"X\""});
  expect_refused("/decoder", part("WordPiece"),
                 {"decoder.type is \"WordPiece\", expected Sequence"});
  expect_refused("/decoder", in_sequence("decoders", part("CTC")),
                 {"decoder.decoders[0].type is \"CTC\""});
  expect_refused("/post_processor", part("BertProcessing"),
                 {"post_processor.type is \"BertProcessing\", expected Sequence"});
  expect_refused("/truncation", Json{{"max_length", 5}},
                 {"truncation is an object, expected null"});
  expect_refused("/padding", Json{{"strategy", "Fixed"}}, {"padding is an object, expected null"});
  expect_refused("/surprise", 1, {"the file has a field surprise"});
}

TEST(JsonErrors, FieldsOfParts) {
  const auto split = [](const Json& pattern) {
    return Json{{"type", "Split"}, {"pattern", pattern}, {"behavior", "Isolated"}};
  };
  expect_refused("/pre_tokenizer", split({{"Regex", "(a"}}),
                 {"file: the pattern (a is wrong at", "U_REGEX_MISMATCHED_PAREN"});
  expect_refused("/pre_tokenizer", split({{"Regex", R"(\p{L}+\d{1,3}+)"}}),
                 {"pre_tokenizer.pattern.Regex is", "expected no + behind a counted repetition"});
  expect_refused("/pre_tokenizer", split({{"String", ""}}), {"pre_tokenizer.pattern.String is"});
  expect_refused("/pre_tokenizer", split({{"Regex", ""}}), {"the pattern has 0 bytes"});
  expect_refused("/pre_tokenizer", split({{"Glob", "a"}}), {"pattern has a field Glob"});
  expect_refused("/pre_tokenizer", split(Json::object()), {"pattern is without String"});
  Json behavior = split({{"String", "a"}});
  behavior["behavior"] = "Eaten";
  expect_refused("/pre_tokenizer", behavior,
                 {"pre_tokenizer.behavior is \"Eaten\", expected Removed"});
  expect_refused("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "__"}},
                 {"pre_tokenizer.replacement is \"__\", expected one character"});
  expect_refused("/pre_tokenizer", {{"type", "Metaspace"}, {"prepend_scheme", "last"}},
                 {"prepend_scheme is \"last\", expected never, first or always"});
  expect_refused("/decoder", {{"type", "Strip"}, {"content", " "}, {"start", -1}},
                 {"decoder.start is -1, expected 0 or more"});
  const Json fuse{{"type", "Fuse"}}, bytes{{"type", "ByteFallback"}};
  expect_refused(
      "/decoder", {{"type", "Sequence"}, {"decoders", {fuse, bytes}}},
      {"decoder.decoders[1].type is \"ByteFallback\", expected nothing but Strip behind Fuse"});
  const Json strip{{"type", "Strip"}, {"content", " "}, {"start", 0}, {"stop", 1}};
  expect_refused("/decoder", {{"type", "Sequence"}, {"decoders", {fuse, strip}}},
                 {"decoder.decoders[1].stop is 1, expected 0 behind Fuse"});
  expect_refused("/decoder", {{"type", "Strip"}, {"content", "ab"}},
                 {"decoder.content is \"ab\", expected one character"});
  const Json wide{{"type", "Strip"}, {"content", "\xE2\x96\x81"}, {"start", 1}};
  expect_refused("/decoder", {{"type", "Sequence"}, {"decoders", {fuse, wide}}},
                 {"decoder.decoders[1].content is", "expected one byte behind Fuse"});
}

// A few bytes of file may not take gigabytes of memory, nor minutes.
TEST(JsonErrors, TextsThatGrowWithoutEnd) {
  const auto in_sequence = [](const char* key, const Json& step, std::size_t times) {
    return Json{{"type", "Sequence"}, {key, Json(times, step)}};
  };
  const Json replace{
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaaaa"}};
  const Json letters{{"type", "ByteLevel"}, {"use_regex", false}, {"add_prefix_space", false}};
  const std::string text(1000, 'a'), spaces(1000, ' ');

  Json json = plain();
  json["normalizer"] = in_sequence("normalizers", replace, 10);
  expect_error<std::invalid_argument>(
      [&] { read(json).encode(text); },
      {"the tokenizer makes 100000 bytes of 1000, expected at most 36096"});
  json = plain();
  json["pre_tokenizer"] = in_sequence("pretokenizers", letters, 30);
  expect_error<std::invalid_argument>(
      [&] { read(json).encode(spaces); },
      {"the tokenizer makes 64000 bytes of 1000, expected at most 36096"});
  json = plain();
  json["decoder"] = in_sequence("decoders", replace, 10);
  expect_error<std::invalid_argument>(
      [&] { read(json).decode(Ids(1000, 0)); },
      {"[JsonTokenizer::decode] the tokenizer makes 100000 bytes of 1000"});
  json["decoder"]["decoders"][0]["content"] = std::string(5000, 'b');
  expect_error<std::invalid_argument>([&] { read(json).decode(Ids(1, 0)); },
                                      {"the tokenizer makes 5000 bytes of 1,"});

  // Sequences within sequences count as one.
  const Json nested = in_sequence("normalizers", in_sequence("normalizers", replace, 11), 3);
  expect_refused("/normalizer", nested,
                 {"normalizer.normalizers[2].normalizers[10] is one step more", "at most 32"});
}

TEST(JsonErrors, Templates) {
  const auto post = [](const Json& single) {
    return Json{{"type", "TemplateProcessing"},
                {"single", single},
                {"special_tokens", {{"<s>", {{"ids", {9}}}}, {"<t>", {{"ids", {-9}}}}}}};
  };
  const Json text{{"Sequence", {{"id", "A"}}}};
  const auto special = [](const char* name) { return Json{{"SpecialToken", {{"id", name}}}}; };
  expect_refused("/post_processor", post({special("<s>"), text}), {"id 9 has no token"});
  expect_refused("/post_processor", post({special("<t>"), text}), {"ids[0] is -9"});
  expect_refused("/post_processor", post({special("<u>"), text}),
                 {"special_tokens is without <u>"});
  expect_refused("/post_processor", post({text, text}),
                 {"single[1] is an object, expected the text"});
  expect_refused("/post_processor", post(Json::array()),
                 {"single is an array, expected the text A"});
  Json many = Json::array({text});
  for (int i = 0; i < 1001; ++i) many.push_back(special("<s>"));
  expect_refused("/post_processor", post(many), {"single[1001] is one token more", "at most 1000"});
}

TEST(JsonErrors, TextsThatCannotBeEncoded) {
  const JsonTokenizer tokenizer = read(plain());
  expect_error<std::invalid_argument>(
      [&] { tokenizer.encode("abc"); },
      {"[JsonTokenizer::encode] the character c has no token, and the tokenizer no unk_token"});
  expect_error<std::invalid_argument>([&] { tokenizer.encode("ab\xE2\x82"); },
                                      {"the text is not UTF-8 at its byte 2"});
}

// Ids are those of the file, holes or not: a model was trained with them.
TEST(JsonTokenizer, CountsTheHolesInItsIds) {
  Json json = plain();
  json["added_tokens"] = {{{"id", 10}, {"content", "<x>"}, {"special", true}}};
  const JsonTokenizer tokenizer = read(json);
  EXPECT_EQ(tokenizer.vocab_size(), 11);
  EXPECT_EQ(tokenizer.encode("ab<x>a"), (Ids{2, 10, 0}));
  for (const std::int32_t id : {-1, 3, 9, 11})
    expect_error<std::invalid_argument>(
        [&] { tokenizer.decode(Ids{id}); },
        {"[JsonTokenizer::decode] id " + std::to_string(id) + " has no token"});
}

}  // namespace
}  // namespace retnet
