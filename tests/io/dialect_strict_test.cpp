// SPDX-License-Identifier: MIT
// What config.json may not hold, which family it belongs to, and what a dialect cannot say.
#include "io/dialect_support.hpp"
#include "retnet/model/presets.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::expect_refused;
using io_test::Json;
using io_test::kForeign;
using io_test::read;

// ---- strictness ----

TEST(DialectKeysTest, AreOfTheirType) {
  const auto expect = [](const Json& keys, std::initializer_list<std::string_view> parts) {
    expect_refused(Dialect::syncdoth, keys, parts);
  };
  expect({{"decoder_layers", 0}}, {"decoder_layers is 0", "from 1"});
  expect({{"decoder_layers", -1}}, {"decoder_layers is -1"});
  expect({{"decoder_layers", 2.0}}, {"decoder_layers is 2.0"});
  expect({{"decoder_layers", "2"}}, {"decoder_layers is \"2\""});
  expect({{"decoder_layers", nullptr}}, {"decoder_layers is null"});
  expect({{"decoder_layers", 4294967296}}, {"decoder_layers"});
  expect({{"layernorm_eps", "x"}}, {"layernorm_eps is \"x\""});
  expect({{"layernorm_eps", -1.0}}, {"norm_eps = -1"});
  expect({{"deepnorm", 1}}, {"deepnorm is 1", "true or false"});
  expect({{"activation_fn", 3}}, {"activation_fn is 3"});
  expect({{"dropout", 1.0}}, {"dropout = 1"});
  expect({{"decoder_retention_heads", 5}}, {"not divisible"});
}

TEST(DialectKeysTest, AreAllKnown) {
  for (const Dialect d : kForeign) {
    expect_refused(d, {{"sliding_window", 3}, {"alibi", true}}, {"alibi, sliding_window"});
    EXPECT_NO_THROW(read(d, {{"alibi", true}}, {.ignore_unknown_keys = true}));
  }
}

TEST(DialectKeysTest, ComeFromJson) {
  for (const Dialect d : kForeign) {
    const auto expect = [&](std::string_view text, std::initializer_list<std::string_view> parts) {
      expect_error<std::invalid_argument>([&] { dialect_config_from_json(text, d, {}, "here"); },
                                          parts);
    };
    expect("", {"here", "not JSON"});
    expect("[]", {"here is array", "an object"});
    expect("{\"vocab_size\": 1, \"vocab_size\": 1}", {"vocab_size is given twice"});
    expect(std::string(50, '['), {"nested deeper"});
  }
}

// ---- detection ----

TEST(DetectDialect, ByKeys) {
  const auto detect = [](const Json& json) { return detect_dialect(json.dump()); };
  for (const Dialect d : kForeign) {
    const auto text = dialect_config_to_json(read(d, {{"vocab_size", 11}}), d);
    EXPECT_EQ(detect_dialect(text), d);
  }
  EXPECT_EQ(detect_dialect(
                config_to_json(presets::fla({.vocab = 8, .d_model = 8, .layers = 1, .heads = 1}))),
            Dialect::retnet);
  EXPECT_EQ(detect({{"decoder_embed_dim", 8}, {"rotary_percentage", 1.0}}), Dialect::xatl);
  EXPECT_EQ(detect({{"hidden_size", 8}, {"use_rms_norm", true}}), Dialect::xatl);
  EXPECT_EQ(detect({{"decoder_embed_dim", 8}, {"model_type", "retnet"}}), Dialect::syncdoth);
  EXPECT_EQ(detect({{"hidden_size", 8}, {"expand_v", 2}, {"model_type", "retnet"}}), Dialect::fla);
}

TEST(DetectDialect, ByTensors) {
  const std::string v1 = R"({"decoder_embed_dim": 8, "moe_freq": 0})";
  EXPECT_EQ(detect_dialect(v1, {"layers.0.retention.q_proj.bias"}), Dialect::torchscale_v1);
  EXPECT_EQ(detect_dialect(v1, {"layers.0.retention.q_proj.weight"}), Dialect::torchscale_v2);
  EXPECT_EQ(detect_dialect(R"({"decoder_embed_dim": 8})", {"lm_head.weight"}), Dialect::syncdoth);
}

TEST(DetectDialect, NamesFamiliesThatAreNotRead) {
  const auto expect = [](const Json& json, const std::vector<std::string>& tensors,
                         std::initializer_list<std::string_view> parts) {
    expect_error<std::invalid_argument>([&] { detect_dialect(json.dump(), tensors, "here"); },
                                        parts);
  };
  const Json torchscale{{"decoder_embed_dim", 8}};
  expect({{"num_rettention_heads", 2}}, {}, {"here", "team-lucid"});
  expect({{"hidden_size", 8}, {"num_layers", 2}}, {}, {"YAML"});
  expect({{"dim", 8}, {"n_self_heads", 2}}, {}, {"YOCO"});
  expect({{"model_type", "llama"}}, {}, {"model_type is \"llama\""});
  expect(Json::object(), {}, {"none of the keys"});
  expect({{"hidden_dim", 8}, {"ffn_size", 2}}, {}, {"Jamie"});
  expect({{"num_tokens", 8}, {"dim_feedforward", 2}}, {}, {"yet-another-retnet"});
  expect(torchscale, {"retentions.0.retentions.0.W_Q"}, {"Jamie-Stirling"});
  expect(torchscale, {"decoder.layers.0.retention.thetas"}, {"yet-another-retnet"});
  expect(torchscale, {"self_decoder.layers.0.mixer.gt_proj.weight"}, {"YOCO"});
  expect(torchscale, {"layers.1.moe_layer.gate.wg.weight"}, {"mixture of experts"});
  expect(torchscale, {"layers.1.retention.q_proj.A.weight"}, {"multiway"});
  expect(torchscale, {"model.layers.1.retention.decay_proj.weight"}, {"tensor-parallel"});
  expect(torchscale, {"score.weight"}, {"classifier"});
  expect(torchscale, {"transformer.h.0.attn.reten.weight"}, {"lit-gpt"});
}

// ---- what a dialect cannot say ----

TEST(DialectConfigToJson, NamesTheFieldThatHasNoWords) {
  const auto expect = [](Dialect d, const auto& change,
                         std::initializer_list<std::string_view> parts) {
    RetNetConfig c = read(d, {});
    change(c);
    expect_error<std::invalid_argument>([&] { dialect_config_to_json(c, d); }, parts);
  };
  const auto v2 = Dialect::torchscale_v2;
  expect(v2, [](RetNetConfig& c) { c.retention.kv_heads = 2; }, {"retention.kv_heads = 2"});
  expect(v2, [](RetNetConfig& c) { c.retention.gate = false; }, {"retention.gate = false"});
  expect(v2, [](RetNetConfig& c) { c.retention.bias = true; }, {"retention.bias = true"});
  expect(v2, [](RetNetConfig& c) { c.retention.head_norm_eps = 1e-3; }, {"head_norm_eps"});
  expect(v2, [](RetNetConfig& c) { c.norm = NormKind::layer; }, {"norm = \"layer\""});
  expect(v2, [](RetNetConfig& c) { c.output_bias = true; }, {"output_bias = true"});
  expect(v2, [](RetNetConfig& c) { c.final_norm = false; }, {"residual"});
  expect(v2, [](RetNetConfig& c) { c.retention.normalization = Normalization::paper_score; },
         {"normalization = \"paper_score\""});
  expect(v2,
         [](RetNetConfig& c) {
           c.retention.decay = DecayKind::gated;
           c.retention.normalization = Normalization::none;
         },
         {"gated"});
  expect(v2, [](RetNetConfig& c) { c.retention.xpos_base = 512.0; }, {"xpos_base"});
  expect(v2, [](RetNetConfig& c) { c.feed_forward.activation = Activation::gelu_tanh; },
         {"gelu_new"});
  expect(Dialect::torchscale_v1, [](RetNetConfig& c) { c.retention.d_value = 48; },
         {"retention.d_value = 48", "96"});
  expect(Dialect::fla, [](RetNetConfig& c) { c.retention.decay = DecayKind::linspace; },
         {"retention.decay"});
  expect(Dialect::fla, [](RetNetConfig& c) { c.retention.theta_base = 500.0; },
         {"retention.theta_base"});
  expect(Dialect::fla, [](RetNetConfig& c) { c.dropout = 0.1; }, {"dropout"});
  expect(Dialect::fla, [](RetNetConfig& c) { c.embedding_norm = true; }, {"embedding_norm"});
  expect(Dialect::xatl, [](RetNetConfig& c) { c.retention.kv_heads = 2; }, {"kv_heads"});
}

TEST(DialectConfigToJson, KnowsTheTypeOfTheWeights) {
  const auto c = read(Dialect::fla, {});
  EXPECT_NE(dialect_config_to_json(c, Dialect::fla, Dtype::bf16).find("bfloat16"),
            std::string::npos);
  EXPECT_NE(dialect_config_to_json(c, Dialect::fla).find("\"float32\""), std::string::npos);
}

}  // namespace
}  // namespace retnet
