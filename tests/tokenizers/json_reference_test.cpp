// SPDX-License-Identifier: MIT
// tokenizer.json files of every style, against what the package that defines the format makes of
// them.
#include "retnet/tokenizers/tokenizer_json.hpp"
#include "tokenizers/support.hpp"

namespace retnet {
namespace {

using tokenizer_test::cases;
using tokenizer_test::data;
using tokenizer_test::Ids;
using tokenizer_test::ids_of;
using tokenizer_test::Json;

class JsonReference : public testing::TestWithParam<const char*> {
 protected:
  const Json& expected() const { return cases().at("json").at(GetParam()); }
  const JsonTokenizer tokenizer_{data(std::string(GetParam()) + ".json")};
};

TEST_P(JsonReference, EncodesAlike) {
  const auto& texts = cases().at("texts");
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto& text = texts[i].get_ref<const std::string&>();
    const auto& item = expected().at("cases")[i];
    const Ids ids = ids_of(item.at("ids"));
    EXPECT_EQ(tokenizer_.encode(text), ids) << text;
    const Ids plain = tokenizer_.encode(text, {.add_special = false});
    EXPECT_TRUE(plain.empty() ||
                std::search(ids.begin(), ids.end(), plain.begin(), plain.end()) != ids.end())
        << text;
    EXPECT_EQ(tokenizer_.encode(text, {.add_special = false, .parse_special = false}),
              item.contains("no_special") ? ids_of(item.at("no_special")) : plain)
        << text;
  }
}

TEST_P(JsonReference, DecodesAlike) {
  const auto& texts = cases().at("texts");
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto& item = expected().at("cases")[i];
    const Ids ids = ids_of(item.at("ids"));
    const auto text = item.value("text", texts[i].get<std::string>());
    EXPECT_EQ(tokenizer_.decode(ids), text);
    EXPECT_EQ(tokenizer_.decode(ids, {.skip_special = false}), item.value("all", text));
    tokenizer_test::expect_streams_alike(tokenizer_, ids);
  }
}

TEST_P(JsonReference, EncodesLongRunsAlikeAndFast) {
  tokenizer_test::expect_long(tokenizer_, expected().at("long"));
}

INSTANTIATE_TEST_SUITE_P(Styles, JsonReference,
                         testing::Values("gpt2", "neox", "llama3", "llama", "metaspace", "affixes"),
                         [](const auto& style) { return std::string(style.param); });

TEST(JsonTokenizer, KnowsItsTokens) {
  const JsonTokenizer tokenizer(data("llama.json"));
  EXPECT_EQ(tokenizer.vocab_size(), 600);
  EXPECT_EQ(tokenizer.find("<s>"), 1);
  EXPECT_EQ(tokenizer.find("<0x00>"), 3);
  EXPECT_EQ(tokenizer.find("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer.special().bos, 1);
  EXPECT_EQ(tokenizer.special().eos, 2);
  EXPECT_EQ(tokenizer.special().unk, 0);
  EXPECT_EQ(tokenizer.special().pad, std::nullopt);
}

}  // namespace
}  // namespace retnet
