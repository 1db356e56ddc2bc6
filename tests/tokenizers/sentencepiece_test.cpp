// SPDX-License-Identifier: MIT
// SentencePiece models, against the package of a later version.
#include "retnet/tokenizers/sentencepiece.hpp"

#include "retnet/tokenizers/load_tokenizer.hpp"
#include "tokenizers/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using tokenizer_test::cases;
using tokenizer_test::data;
using tokenizer_test::Ids;
using tokenizer_test::ids_of;

TEST(SentencePiece, EncodesAlike) {
  const SentencePieceTokenizer tokenizer(data("small.model"));
  const auto& expected = cases().at("sentencepiece");
  auto texts = cases().at("texts");
  for (const auto& text : expected.at("texts")) texts.push_back(text);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto& text = texts[i].get_ref<const std::string&>();
    const auto& item = expected.at("cases")[i];
    const Ids ids = ids_of(item.at("ids"));
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), item.value("text", text));
    tokenizer_test::expect_streams_alike(tokenizer, ids);
  }
}

TEST(SentencePiece, PutsBosAndEosWhereAsked) {
  const std::string model = io_test::read_file(data("small.model"));
  const auto tokenizer =
      SentencePieceTokenizer::from_bytes(model, "m", {.add_bos = true, .add_eos = true});
  const Ids ids = tokenizer.encode("a man");
  EXPECT_EQ(ids.front(), tokenizer.special().bos);
  EXPECT_EQ(ids.back(), tokenizer.special().eos);
  EXPECT_EQ(tokenizer.encode("a man", {.add_special = false}), Ids(ids.begin() + 1, ids.end() - 1));
  EXPECT_EQ(tokenizer.decode(ids), "a man");
  EXPECT_EQ(tokenizer.decode(ids, {.skip_special = false}), "<s>a man</s>");
  tokenizer_test::expect_streams_alike(tokenizer, ids);
}

TEST(SentencePiece, KnowsItsTokens) {
  const SentencePieceTokenizer tokenizer(data("small.model"));
  EXPECT_EQ(tokenizer.vocab_size(), 600);
  EXPECT_EQ(tokenizer.special().unk, 0);
  EXPECT_EQ(tokenizer.special().bos, 1);
  EXPECT_EQ(tokenizer.special().eos, 2);
  EXPECT_EQ(tokenizer.special().pad, 3);
  EXPECT_EQ(tokenizer.find("<|sep|>"), 4);
  EXPECT_EQ(tokenizer.find("<unk>"), 0);
  EXPECT_EQ(tokenizer.find("no such token"), std::nullopt);
}

TEST(SentencePiece, GivesBytesAsTheyAre) {
  const SentencePieceTokenizer tokenizer(data("small.model"));
  const auto byte = [&](const char* name) { return *tokenizer.find(name); };
  EXPECT_EQ(tokenizer.decode(Ids{byte("<0xF0>"), byte("<0x9F>")}), "\xF0\x9F");
}

TEST(SentencePiece, RefusesWhatItCannotUse) {
  const SentencePieceTokenizer tokenizer(data("small.model"));
  for (const std::int32_t id : {-1, 600, 1 << 30})
    expect_error<std::invalid_argument>(
        [&] { tokenizer.decode(Ids{id}); },
        {"[SentencePieceTokenizer::decode] id", "expected 0 to 599"});
  expect_error<std::invalid_argument>([&] { tokenizer.encode("\xFF"); }, {"not UTF-8"});
  const std::string model = io_test::read_file(data("small.model"));
  for (const std::string& bad : {std::string(), std::string("garbage"), model.substr(0, 1000)})
    expect_error<std::invalid_argument>([&] { SentencePieceTokenizer::from_bytes(bad, "m"); },
                                        {"m is not a SentencePiece model"});
  EXPECT_THROW(SentencePieceTokenizer(data("none.model")), std::system_error);
}

TEST(SentencePiece, IsLoadedWhereItIsNamed) {
  const io_test::TempDir dir;
  io_test::write_file(dir / "tokenizer.model", io_test::read_file(data("small.model")));
  expect_error<std::invalid_argument>(
      [&] { load_tokenizer(dir.string()); },
      {"holds no tokenizer, expected tokenizer.json, *.tiktoken (other kinds are"});
  const auto tokenizer = load_tokenizer<SentencePieceTokenizer>(dir.string());
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("Hello")), "Hello");
  EXPECT_EQ(load_tokenizer<SentencePieceTokenizer>(data("small.model"))->vocab_size(), 600);
}

}  // namespace
}  // namespace retnet
