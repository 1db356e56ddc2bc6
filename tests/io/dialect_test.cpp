// SPDX-License-Identifier: MIT
// config.json of the torchscale family, and what every dialect means by a key that is not given.
#include "io/dialect_support.hpp"
#include "retnet/model/presets.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::expect_refused;
using io_test::Json;
using io_test::kForeign;
using io_test::read;

TEST(DialectNames, AreWords) {
  for (const Dialect d : kForeign) EXPECT_EQ(dialect_from_name(dialect_name(d)), d);
  EXPECT_EQ(dialect_from_name("retnet"), Dialect::retnet);
  EXPECT_FALSE(dialect_from_name("llama"));
  EXPECT_FALSE(dialect_from_name(""));
}

// ---- what is not given ----

TEST(DialectDefaults, AreThoseOfTheClasses) {
  const auto v1 = dialect_config_from_json(R"({"vocab_size": 7})", Dialect::torchscale_v1);
  EXPECT_EQ(v1.d_model, 768);
  EXPECT_EQ(v1.layers, 12);
  EXPECT_EQ(v1.retention.heads, 3);
  EXPECT_EQ(v1.retention.d_value, 1536);
  EXPECT_EQ(v1.feed_forward.hidden, 1536);
  EXPECT_EQ(v1.norm_eps, 1e-5);
  EXPECT_EQ(v1.retention.head_norm_eps, 1e-6);
  EXPECT_EQ(v1.feed_forward.sub_norm, NormKind::layer);
  // Its 1280 values do not fit its 3 heads.
  const std::string heads = R"({"vocab_size": 7, "decoder_retention_heads": 4})";
  const auto v2 = dialect_config_from_json(heads, Dialect::torchscale_v2);
  EXPECT_EQ(v2.retention.d_value, 1280);
  EXPECT_EQ(v2.feed_forward.hidden, 1280);
  EXPECT_EQ(v2.feed_forward.activation, Activation::gelu);
  EXPECT_EQ(v2.norm_eps, 1e-6);
  EXPECT_FALSE(v2.scale_embedding);
  const std::string four = R"({"decoder_retention_heads": 4})";
  EXPECT_EQ(dialect_config_from_json(four, Dialect::syncdoth).vocab, 50257);
  EXPECT_EQ(dialect_config_from_json(four, Dialect::xatl).retention.normalization,
            Normalization::none);
  const auto fla = dialect_config_from_json("{}", Dialect::fla);
  EXPECT_EQ(fla.d_model, 2048);
  EXPECT_EQ(fla.layers, 24);
  EXPECT_EQ(fla.retention.d_value, 4096);
  EXPECT_EQ(fla.feed_forward.hidden, 2816);
  EXPECT_EQ(fla.vocab, 32000);
  for (const Dialect d : {Dialect::torchscale_v1, Dialect::torchscale_v2})
    expect_error<std::invalid_argument>([&] { dialect_config_from_json("{}", d); }, {"vocab_size"});
}

TEST(DialectDefaults, AreThePresets) {
  const ModelSize size{
      .vocab = 11, .d_model = 48, .layers = 2, .heads = 4, .d_value = 80, .ffn = 64};
  const Json v1{{"decoder_ffn_embed_dim", 96}};
  EXPECT_EQ(config_to_json(read(Dialect::torchscale_v1, v1)),
            config_to_json(
                presets::torchscale_v1({.vocab = 11, .d_model = 48, .layers = 2, .heads = 4})));
  const Json v2{
      {"decoder_value_embed_dim", 80}, {"decoder_ffn_embed_dim", 64}, {"activation_fn", "swish"}};
  EXPECT_EQ(config_to_json(read(Dialect::torchscale_v2, v2)),
            config_to_json(presets::torchscale_v2(size)));
  Json scaled = v2;
  scaled.update({{"no_scale_embedding", false}, {"layernorm_embedding", true}});
  EXPECT_EQ(config_to_json(read(Dialect::syncdoth, scaled)),
            config_to_json(presets::syncdoth(size)));
  EXPECT_EQ(config_to_json(read(Dialect::xatl, v2)), config_to_json(presets::xatl(size)));
  EXPECT_EQ(config_to_json(read(Dialect::fla, {})),
            config_to_json(presets::fla({.vocab = 11, .d_model = 64, .layers = 2, .heads = 4})));
}

// ---- torchscale family ----

TEST(TorchscaleDialect, DeepnormAndSublnFollowEachClass) {
  const auto residual = [](Dialect d, const Json& keys) { return read(d, keys).residual; };
  const Json both{{"deepnorm", true}, {"decoder_normalize_before", true}};
  EXPECT_EQ(residual(Dialect::torchscale_v2, both), Residual::pre);
  for (const Dialect d : {Dialect::torchscale_v1, Dialect::syncdoth, Dialect::xatl}) {
    EXPECT_EQ(residual(d, both), Residual::post);
    EXPECT_FALSE(read(d, both).final_norm);
    EXPECT_EQ(read(d, both).feed_forward.sub_norm, NormKind::none);
    EXPECT_EQ(residual(d, {{"subln", true}, {"decoder_normalize_before", false}}), Residual::pre);
    EXPECT_EQ(residual(d, {{"subln", false}, {"decoder_normalize_before", false}}), Residual::post);
  }
  EXPECT_EQ(residual(Dialect::torchscale_v2, {{"decoder_normalize_before", false}}),
            Residual::post);
}

TEST(TorchscaleDialect, CompatIsTheScaling) {
  for (const Dialect d : {Dialect::torchscale_v1, Dialect::torchscale_v2, Dialect::syncdoth}) {
    EXPECT_EQ(read(d, {}).retention.normalization, Normalization::row_sum);
    EXPECT_EQ(
        read(d, {}, {.compat = Compat::reference}).retention.normalization,
        d == Dialect::torchscale_v1 ? Normalization::torchscale_v1 : Normalization::torchscale);
  }
  const Json stable{{"retnet_stability_update", true}};
  EXPECT_EQ(read(Dialect::xatl, stable).retention.normalization, Normalization::row_sum);
  EXPECT_EQ(read(Dialect::xatl, stable, {.compat = Compat::reference}).retention.normalization,
            Normalization::torchscale);
  EXPECT_EQ(read(Dialect::xatl, {}, {.compat = Compat::reference}).retention.normalization,
            Normalization::none);
}

TEST(TorchscaleDialect, V1SublnStartsLarger) {
  const double gamma = std::sqrt(std::log(4.0));
  EXPECT_EQ(read(Dialect::torchscale_v1, {}).retention.init_output.gain, gamma);
  EXPECT_EQ(read(Dialect::torchscale_v1, {{"subln", false}}).retention.init_output.gain, 1.0);
}

TEST(TorchscaleDialect, RefusesWhatDoesNotRun) {
  for (const Dialect d : {Dialect::torchscale_v1, Dialect::torchscale_v2}) {
    expect_refused(d, {{"moe_freq", 2}}, {"moe_freq = 2", "mixture of experts"});
    expect_refused(d, {{"use_xmoe", true}}, {"use_xmoe = true"});
    expect_refused(d, {{"multiway", true}}, {"multiway = true"});
    expect_refused(d, {{"no_output_layer", true}}, {"no_output_layer = true"});
    expect_refused(d, {{"activation_fn", "tanh"}}, {"activation_fn is \"tanh\"", "one of gelu"});
    expect_refused(d, {{"use_glu", true}}, {"unknown keys", "use_glu"});
  }
  expect_refused(Dialect::torchscale_v1, {{"activation_fn", "swish"}}, {"one of gelu, relu"});
}

TEST(SyncdothDialect, HasAnMlpAsWell) {
  const Json mlp{{"use_glu", false}, {"decoder_ffn_embed_dim", 48}};
  EXPECT_EQ(read(Dialect::syncdoth, mlp).feed_forward.kind, FeedForwardKind::mlp);
  EXPECT_TRUE(read(Dialect::syncdoth, mlp).feed_forward.bias);
  EXPECT_FALSE(read(Dialect::syncdoth, mlp).retention.bias);
  EXPECT_EQ(read(Dialect::syncdoth, mlp).feed_forward.sub_norm, NormKind::layer);
  EXPECT_EQ(read(Dialect::syncdoth, mlp).feed_forward.sub_norm_eps, 1e-6);
  Json rms = mlp;
  rms["use_ffn_rms_norm"] = true;
  EXPECT_EQ(read(Dialect::syncdoth, rms).feed_forward.sub_norm, NormKind::rms);
  Json wide = mlp;
  wide["decoder_ffn_embed_dim"] = 64;
  expect_refused(Dialect::syncdoth, wide, {"decoder_ffn_embed_dim = 64", "subln = false"});
  wide["subln"] = false;
  EXPECT_EQ(read(Dialect::syncdoth, wide).feed_forward.sub_norm, NormKind::none);
}

TEST(SyncdothDialect, DecaysAsThePaperTrained) {
  EXPECT_EQ(read(Dialect::syncdoth, {{"use_lm_decay", true}}).retention.decay, DecayKind::linspace);
}

TEST(HuggingFaceDialects, PassBookkeepingOver) {
  const Json kept{{"architectures", {"RetNetForCausalLM"}},
                  {"auto_map", Json::object()},
                  {"_name_or_path", "x"},
                  {"torch_dtype", "bfloat16"},
                  {"use_cache", true},
                  {"bos_token_id", 1},
                  {"transformers_version", "4.29.1"},
                  {"pad_token_id", nullptr}};
  for (const Dialect d : {Dialect::syncdoth, Dialect::xatl, Dialect::fla}) {
    EXPECT_NO_THROW(read(d, kept));
    expect_refused(d, {{"architectures", {"RetNetForSequenceClassification"}}},
                   {"architectures", "RetNetForSequenceClassification"});
    expect_refused(d, {{"quantization_config", Json::object()}}, {"quantization_config"});
  }
}

// ---- XATL ----

TEST(XatlDialect, HonoursItsOptions) {
  const Json all{{"use_rms_norm", false},       {"use_bias", true},
                 {"groupnorm_affine", true},    {"lm_head_bias", true},
                 {"parallel_residual", true},   {"shared_attention_norm", true},
                 {"rotary_percentage", 0.5},    {"retnet_bottleneck", 20},
                 {"activation_fn", "gelu_new"}, {"decoder_value_embed_dim", 48}};
  const RetNetConfig c = read(Dialect::xatl, all);
  EXPECT_EQ(c.norm, NormKind::layer);
  EXPECT_TRUE(c.retention.bias);
  EXPECT_EQ(c.retention.head_norm, NormKind::layer);
  EXPECT_EQ(c.retention.head_norm_affine, Affine::per_head_dim);
  EXPECT_TRUE(c.retention.head_norm_bias);
  EXPECT_TRUE(c.output_bias);
  EXPECT_EQ(c.residual, Residual::parallel);
  EXPECT_FALSE(c.ffn_norm);
  EXPECT_EQ(c.retention.rotary_dim, 6);
  EXPECT_EQ(c.retention.bottleneck, 20);
  EXPECT_EQ(c.feed_forward.activation, Activation::gelu_tanh);
  EXPECT_EQ(c.retention.scale_on, ScaleOn::query);
  EXPECT_FALSE(c.feed_forward.bias);
}

TEST(XatlDialect, HeadNormIsRmsUnlessAffine) {
  const Json centred{{"use_rms_norm", false}};
  EXPECT_EQ(read(Dialect::xatl, centred).retention.head_norm, NormKind::rms);
  const Json affine{{"use_rms_norm", false}, {"groupnorm_affine", true}};
  EXPECT_EQ(read(Dialect::xatl, affine).retention.head_norm, NormKind::layer);
  EXPECT_FALSE(read(Dialect::xatl, affine).retention.head_norm_bias);
}

TEST(XatlDialect, RotaryPercentageTruncates) {
  const auto turned = [](double share) {
    const auto c = read(Dialect::xatl, {{"rotary_percentage", share}});
    return c.retention.rotation == RotationLayout::none ? 0 : c.retention.rotary_dim;
  };
  EXPECT_EQ(turned(0.35), 4);  // of 12
  EXPECT_EQ(turned(0.2), 2);
  EXPECT_EQ(turned(0.05), 0);
  EXPECT_EQ(turned(1.0), 0);  // all
  expect_refused(Dialect::xatl, {{"rotary_percentage", 0.45}}, {"rotary_dim = 5 is odd"});
  expect_refused(Dialect::xatl, {{"rotary_percentage", 1.5}}, {"rotary_percentage is 1.5"});
}

TEST(XatlDialect, LmDecayMixesItsBases) {
  const auto gamma = read(Dialect::xatl, {{"use_lm_decay", true}}).retention.gamma;
  ASSERT_EQ(gamma.size(), 4U);
  EXPECT_NEAR(gamma[0], 1.0 - std::exp(-5.0), 1e-15);
  EXPECT_NEAR(gamma[1], 1.0 - std::exp(-5.0 - 4.0 / 3.0), 1e-15);
  EXPECT_NEAR(gamma[3], 1.0 - std::exp(-9.0), 1e-15);
}

TEST(XatlDialect, KnowsItsOtherNames) {
  const auto c = dialect_config_from_json(
      R"({"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 11,
          "intermediate_size": 52, "use_bias": false})",
      Dialect::xatl);
  EXPECT_EQ(c.d_model, 48);
  EXPECT_EQ(c.feed_forward.hidden, 52);
  expect_refused(Dialect::xatl, {{"hidden_size", 64}}, {"hidden_size is 64", "decoder_embed_dim"});
}

TEST(XatlDialect, RefusesWhatDoesNotRun) {
  expect_refused(Dialect::xatl, {{"retnet_bottleneck", 20}},
                 {"retnet_bottleneck = 20", "decoder_value_embed_dim = 48"});
  expect_refused(Dialect::xatl, {{"parallel_residual", true}, {"deepnorm", true}},
                 {"parallel_residual = true"});
  expect_refused(Dialect::xatl, {{"shared_attention_norm", true}, {"deepnorm", true}},
                 {"shared_attention_norm = true"});
}

}  // namespace
}  // namespace retnet
