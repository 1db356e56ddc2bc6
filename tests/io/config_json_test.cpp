// SPDX-License-Identifier: MIT
// A config survives JSON with every field, and a mistake in the text is named.
#include "retnet/io/config_json.hpp"

#include <map>

#include "io/support.hpp"
#include "retnet/model/presets.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using nlohmann::json;

RetNetConfig small() {
  RetNetConfig c{.vocab = 256, .d_model = 32, .layers = 2};
  c.retention.heads = 4;
  return c;
}

/// Every field differs from its default, but ffn_norm, which DeepNorm needs.
RetNetConfig unusual() {
  RetNetConfig c{.vocab = 100, .d_model = 24, .layers = 3};
  c.retention = {.d_model = 24,
                 .heads = 4,
                 .kv_heads = 2,
                 .d_key = 16,
                 .d_value = 40,
                 .decay = DecayKind::values,
                 .gamma = {0.5, 1.0 / 3.0, 0.999999999999, 1.0},
                 .gate_divisor = 8.0,
                 .rotation = RotationLayout::half_split,
                 .theta = ThetaKind::values,
                 .theta_base = 5000.5,
                 .theta_values = {0.1, 1e-300},
                 .rotary_dim = 4,
                 .xpos_base = 256.0,
                 .normalization = Normalization::torchscale,
                 .scale_on = ScaleOn::none,
                 .head_norm = NormKind::layer,
                 .head_norm_affine = Affine::per_channel,
                 .head_norm_bias = true,
                 .head_norm_eps = 1e-12,
                 .bottleneck = 12,
                 .gate = false,
                 .gate_activation = Activation::sigmoid,
                 .bias = true,
                 .init_projection = {Init::Kind::normal, 0.1},
                 .init_value = {Init::Kind::zeros, 0.2},
                 .init_output = {Init::Kind::ones, 0.3}};
  c.feed_forward = {.d_model = 24,
                    .hidden = 36,
                    .kind = FeedForwardKind::glu,
                    .activation = Activation::relu,
                    .bias = true,
                    .sub_norm = NormKind::rms,
                    .sub_norm_eps = 1e-4,
                    .activation_dropout = 0.125,
                    .init_in = {Init::Kind::kaiming_uniform, 0.4},
                    .init_out = {Init::Kind::xavier_uniform, 0.5}};
  c.attention = {{.layer = 1, .attention = {.d_model = 24, .heads = 4, .window = 3}}};
  c.cross_decoder = {.layers = 2, .attention = {.d_model = 24, .heads = 2}};
  c.norm = NormKind::layer;
  c.norm_eps = 1e-7;
  c.residual = Residual::post;
  c.deepnorm = c.scale_embedding = c.embedding_norm = true;
  c.tied_output = c.output_bias = true;
  c.final_norm = false;
  c.dropout = 0.3;
  c.init_embedding = 0.02;
  return c;
}

TEST(ConfigJson, EveryFieldOfEveryPresetComesBack) {
  const ModelSize size{.vocab = 64, .d_model = 32, .layers = 2, .heads = 4};
  for (const auto& c : {small(), unusual(), presets::paper(size), presets::torchscale_v1(size),
                        presets::torchscale_v2(size), presets::xatl(size), presets::fla(size),
                        presets::yoco(size), presets::yar(size), presets::jamie(size)}) {
    const auto text = config_to_json(c);
    EXPECT_EQ(config_to_json(config_from_json(text)), text);
  }
  const auto back = config_from_json(config_to_json(unusual()));
  EXPECT_EQ(back.retention.gamma, unusual().retention.gamma);
  EXPECT_EQ(back.retention.theta_values, unusual().retention.theta_values);
  EXPECT_EQ(back.retention.init_value.kind, Init::Kind::zeros);
  EXPECT_EQ(back.retention.init_value.gain, 0.2);
  EXPECT_EQ(back.residual, Residual::post);
  EXPECT_EQ(back.feed_forward.hidden, 36);
  ASSERT_EQ(back.attention.size(), 1U);
  EXPECT_EQ(back.attention[0].attention.window, 3);
  EXPECT_EQ(back.cross_decoder.layers, 2);
}

/// Where two texts differ, by path.
void differences(const json& a, const json& b, const std::string& path,
                 std::vector<std::string>& same) {
  for (const auto& [key, value] : a.items()) {
    const auto inner = path.empty() ? key : path + "." + key;
    if (value.is_object()) {
      differences(value, b.at(key), inner, same);
    } else if (value == b.at(key)) {
      same.push_back(inner);
    }
  }
}

TEST(ConfigJson, NoFieldIsLeftAtItsDefaultUnseen) {
  RetNetConfig plain = small();
  std::vector<std::string> same;
  differences(json::parse(config_to_json(plain)), json::parse(config_to_json(unusual())), "", same);
  // The fields where unusual() cannot differ: sizes that must agree, inits of the same kind.
  const std::vector<std::string> expected{"feed_forward.init_in.kind", "ffn_norm",
                                          "retention.heads", "version"};
  EXPECT_EQ(same, expected);
}

/// Converts to anything: counts the fields of an aggregate.
struct Anything {
  template <class T>
  operator T() const;  // NOLINT(google-explicit-constructor)
};
template <class T, class... Fields>
consteval int count_fields() {
  if constexpr (requires { T{Fields{}..., Anything{}}; }) {
    return count_fields<T, Fields..., Anything>();
  } else {
    return sizeof...(Fields);
  }
}

struct CountVisitor {
  static constexpr bool kReads = true;
  int fields = 0;
  template <class T>
  void operator()(const char*, T&) {
    ++fields;
  }
  template <class T>
  void required(const char*, T&) {
    ++fields;
  }
};
template <class T>
int visited() {
  T config{};
  CountVisitor v;
  detail::visit_fields(v, config);
  return v.fields;
}

TEST(ConfigJson, KnowsEveryFieldThereIs) {
  EXPECT_EQ(visited<Init>(), count_fields<Init>());
  EXPECT_EQ(visited<RetentionConfig>(), count_fields<RetentionConfig>());
  EXPECT_EQ(visited<FeedForwardConfig>(), count_fields<FeedForwardConfig>());
  EXPECT_EQ(visited<AttentionConfig>(), count_fields<AttentionConfig>());
  EXPECT_EQ(visited<CrossAttentionConfig>(), count_fields<CrossAttentionConfig>());
  EXPECT_EQ(visited<AttentionLayer>(), count_fields<AttentionLayer>());
  EXPECT_EQ(visited<CrossDecoderConfig>(), count_fields<CrossDecoderConfig>());
  EXPECT_EQ(visited<RetNetConfig>(), count_fields<RetNetConfig>());
}

TEST(ConfigJson, WhatIsNotGivenKeepsItsDefault) {
  const auto c = config_from_json(
      R"({"version":1,"vocab":256,"d_model":32,"layers":2,"retention":{"heads":4}})");
  EXPECT_EQ(config_to_json(c), config_to_json(small()));
}

TEST(ConfigJson, AnIntegerIsANumber) {
  const auto c = config_from_json(R"({"version":1,"vocab":256,"d_model":32,"layers":2,)"
                                  R"("retention":{"heads":4,"theta_base":10000}})");
  EXPECT_EQ(c.retention.theta_base, 10000.0);
}

void refused(const std::string& text, std::initializer_list<std::string_view> parts) {
  expect_error<std::invalid_argument>([&] { config_from_json(text, "c.json"); }, parts);
}
std::string with(const std::string& fields, const std::string& retention = "") {
  return R"({"version":1,"vocab":256,"d_model":32,"layers":2,"retention":{"heads":4)" + retention +
         "}" + fields + "}";
}

TEST(ConfigJson, MistakesAreNamed) {
  refused(with(R"(,"nrom":"rms")"),
          {"[config_from_json] c.json: nrom is unknown, expected one of ", "norm, "});
  refused(with("", R"(,"gama":[])"), {"c.json: retention.gama is unknown", "gamma, "});
  refused(with(R"(,"norm":"batch")"),
          {"c.json: norm is \"batch\", expected one of none, rms, layer"});
  refused(with(R"(,"norm":1)"), {"c.json: norm is 1, expected one of"});
  refused(with(R"(,"deepnorm":1)"), {"c.json: deepnorm is 1, expected true or false"});
  refused(with(R"(,"dropout":"0.1")"), {"c.json: dropout is \"0.1\", expected a number"});
  refused(with(R"(,"dropout":null)"), {"c.json: dropout is null, expected a number"});
  refused(with("", R"(,"d_key":1.5)"), {"c.json: retention.d_key is 1.5, expected an integer"});
  refused(with("", R"(,"d_key":-1)"),
          {"c.json: retention.d_key is -1, expected an integer from 0"});
  refused(with("", R"(,"d_key":2147483648)"), {"c.json: retention.d_key is 2147483648"});
  refused(with("", R"(,"d_key":18446744073709551615)"),
          {"retention.d_key is 18446744073709551615"});
  refused(with("", R"(,"d_key":99999999999999999999)"), {"retention.d_key is 1e+20"});
  refused(with("", R"(,"gamma":0.5)"), {"c.json: retention.gamma is 0.5, expected an array"});
  refused(with("", R"(,"gamma":[1,"x"])"),
          {"c.json: retention.gamma[1] is \"x\", expected a number"});
  refused(with("", R"(,"init_value":{"gain":1})"),
          {"c.json: retention.init_value.kind is missing"});
  refused(with(R"(,"feed_forward":[])"), {"c.json: feed_forward is array, expected an object"});
}

TEST(ConfigJson, WhatIsMissingIsNamed) {
  refused(R"({"vocab":1})", {"c.json: version is missing"});
  refused(R"({"version":1})", {"c.json: vocab is missing"});
  refused(R"({"version":1,"vocab":1,"d_model":1,"layers":1,"retention":{}})",
          {"c.json: retention.heads is missing"});
  refused(R"({"version":2})", {"c.json: version is 2, expected 1 to 1"});
}

TEST(ConfigJson, BrokenTextIsNamed) {
  refused("", {"c.json is not JSON"});
  refused("{", {"c.json is not JSON"});
  refused("[]", {"c.json: the config is array, expected an object"});
  refused(std::string("{}\0{}", 5), {"c.json holds a zero byte"});
  refused(with(R"(,"norm":"rms","norm":"layer")"), {"c.json: norm is given twice"});
  refused(with("", R"(,"bias":true,"bias":true)"), {"c.json: bias is given twice"});
  refused(with(R"(,"x":)" + std::string(100'000, '[')), {"c.json is nested deeper than 16 levels"});
  refused("{\"\xFF\":1}", {"c.json is not JSON"});
}

TEST(ConfigJson, ContradictionsAreRefusedBothWays) {
  refused(with("", R"(,"d_key":30)"), {"RetNetConfig", "not divisible by heads"});
  RetNetConfig bad = small();
  bad.retention.heads = 5;
  EXPECT_THROW(config_to_json(bad), std::invalid_argument);
}

}  // namespace
}  // namespace retnet
