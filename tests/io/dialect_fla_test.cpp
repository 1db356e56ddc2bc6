// SPDX-License-Identifier: MIT
// config.json of flash-linear-attention, and layers of attention in the dialects that have them.
#include "io/dialect_support.hpp"

namespace retnet {
namespace {

using io_test::expect_refused;
using io_test::Json;
using io_test::read;

// ---- fla ----

TEST(FlaDialect, WidthsTruncateAsInPython) {
  EXPECT_EQ(read(Dialect::fla, {{"expand_k", 0.5}}).retention.d_key, 32);
  EXPECT_EQ(read(Dialect::fla, {{"expand_v", 1.3125}}).retention.d_value, 84);
  EXPECT_EQ(read(Dialect::fla, {{"expand_v", 1.33}, {"num_heads", 1}}).retention.d_value, 85);
  const Json uneven{{"hidden_size", 200}, {"num_heads", 10}, {"expand_v", 1.15}};
  EXPECT_EQ(read(Dialect::fla, uneven).retention.d_value, 230);  // 229.99999999999997
  const auto hidden = [](Index d, const Json& keys) {
    Json json = keys;
    json["hidden_size"] = d;
    return read(Dialect::fla, json).feed_forward.hidden;
  };
  EXPECT_EQ(hidden(64, {}), 256);
  EXPECT_EQ(hidden(256, {}), 512);
  EXPECT_EQ(hidden(192, {}), 256);                           // 256 exactly
  EXPECT_EQ(hidden(64, {{"hidden_ratio", 6.01}}), 256);      // 256.4 truncates first
  EXPECT_EQ(hidden(256, {{"hidden_ratio", nullptr}}), 768);  // None is 4
  EXPECT_EQ(hidden(64, {{"intermediate_size", 100}}), 100);
}

TEST(FlaDialect, KnowsItsOldNames) {
  const auto c = dialect_config_from_json(
      R"({"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
          "rms_norm_eps": 1e-5, "share_conv_kernel": true})",
      Dialect::fla);
  EXPECT_EQ(c.retention.heads, 4);
  EXPECT_EQ(c.retention.kv_heads, 2);
  EXPECT_EQ(c.norm_eps, 1e-5);
  EXPECT_EQ(c.retention.head_norm_eps, 1e-5);
  expect_refused(Dialect::fla, {{"norm_eps", 1e-6}, {"rms_norm_eps", 1e-5}}, {"rms_norm_eps"});
}

TEST(FlaDialect, RefusesWhatDoesNotRun) {
  expect_refused(Dialect::fla, {{"feature_map", "relu"}}, {"feature_map = \"relu\""});
  expect_refused(Dialect::fla, {{"use_short_conv", true}}, {"use_short_conv = true"});
  expect_refused(Dialect::fla, {{"attnres_block_size", 4}}, {"attnres_block_size = 4"});
  expect_refused(Dialect::fla, {{"hidden_act", "powlu"}}, {"hidden_act is \"powlu\""});
  expect_refused(Dialect::fla, {{"expand_v", 0}}, {"expand_v is 0"});
  expect_refused(Dialect::fla, {{"expand_v", 1e300}}, {"expand_v"});
  // A width beyond 2^31 that follows from no key.
  expect_refused(Dialect::fla, {{"hidden_size", 2147483647}}, {"expand_v is 2.0", "2147483647"});
  expect_refused(Dialect::fla, {{"hidden_size", 2000000000}, {"expand_v", 0.5}},
                 {"hidden_ratio is 2.0"});
}

// ---- attention layers ----

TEST(HybridDialects, NameTheirLayers) {
  const Json one{{"layers", {1}}, {"num_heads", 2}};
  const auto two = read(Dialect::fla, {{"attn", {one, {{"layers", {0}}, {"num_heads", 4}}}}});
  ASSERT_EQ(two.attention.size(), 2U);
  EXPECT_EQ(two.attention[0].layer, 0);
  EXPECT_EQ(two.attention[0].attention.heads, 4);
  EXPECT_EQ(two.attention[1].attention.heads, 2);
  EXPECT_TRUE(read(Dialect::fla, {{"attn", nullptr}}).attention.empty());
  EXPECT_TRUE(read(Dialect::fla, {{"attn", Json::array()}}).attention.empty());

  const Json square{{"decoder_embed_dim", 16},       {"decoder_value_embed_dim", 16},
                    {"decoder_retention_heads", 2},  {"decoder_ffn_embed_dim", 8},
                    {"hybrid_attention_layers", {1}}, {"rotary_percentage", 0.5},
                    {"use_bias", true}};
  const auto xatl = read(Dialect::xatl, square);
  ASSERT_EQ(xatl.attention.size(), 1U);
  const AttentionConfig& a = xatl.attention[0].attention;
  EXPECT_EQ(a.heads, 2);
  EXPECT_EQ(a.rotation, RotationLayout::half_split);
  EXPECT_EQ(a.theta, ThetaKind::inclusive);
  EXPECT_EQ(a.rotary_dim, 4);
  EXPECT_TRUE(a.qkv_bias && a.out_bias);
  Json wide = square;
  wide["decoder_value_embed_dim"] = 32;
  expect_refused(Dialect::xatl, wide, {"decoder_value_embed_dim = 32", "attention layers"});
  EXPECT_TRUE(read(Dialect::xatl, {{"hybrid_attention_layers", Json::array()}}).attention.empty());
}

TEST(HybridDialects, ReadEveryField) {
  const Json json{{"attn",
                   {{"layers", {3, 1}},
                    {"num_heads", 8},
                    {"num_kv_heads", 2},
                    {"window_size", 16},
                    {"qkv_bias", true},
                    {"qk_norm", false},
                    {"rope_theta", 500000}}}};
  const nlohmann::json copy = json;
  detail::DialectKeys keys(Dialect::fla, copy, {}, "config");
  const auto parts = detail::hybrid_attention(keys, 4, 8, false);
  ASSERT_EQ(parts.size(), 1U);
  EXPECT_EQ(parts[0].layers, (std::vector<Index>{1, 3}));
  EXPECT_EQ(parts[0].num_heads, 8);
  EXPECT_EQ(parts[0].num_kv_heads, 2);
  EXPECT_EQ(parts[0].window_size, 16);
  EXPECT_TRUE(parts[0].qkv_bias);
  EXPECT_EQ(parts[0].rope_theta, 500000.0);
}

TEST(HybridDialects, AreCheckedStrictly) {
  const auto expect = [](const Json& attn, std::initializer_list<std::string_view> parts) {
    expect_refused(Dialect::fla, {{"attn", attn}}, parts);
  };
  const Json good{{"layers", {1}}, {"num_heads", 2}};
  const auto with = [&](const char* key, const Json& value) {
    Json json = good;
    json[key] = value;
    return json;
  };
  expect(1, {"attn is 1"});
  expect({{"layers", {1}}}, {"attn.num_heads is null", "positive integer"});
  expect({{"num_heads", 2}}, {"attn.layers is null"});
  expect(with("layers", {2}), {"attn.layers"});
  expect(with("layers", {-1}), {"attn.layers"});
  expect(with("layers", {true}), {"attn.layers"});
  expect(with("layers", {1, 1}), {"attn is 1", "each layer once"});
  expect({good, good}, {"each layer once"});
  expect(with("num_heads", 0), {"attn.num_heads is 0"});
  expect(with("num_kv_heads", 1.5), {"attn.num_kv_heads is 1.5"});
  expect(with("window_size", 0), {"attn.window_size is 0"});
  expect(with("qkv_bias", 1), {"attn.qkv_bias is 1"});
  expect(with("rope_theta", -1), {"attn.rope_theta is -1"});
  expect(with("dropout", 0.1), {"attn.dropout"});
  expect(with("qk_norm", true), {"qk_norm", "does not pass on"});
  expect_refused(Dialect::xatl, {{"hybrid_attention_layers", {2}}}, {"hybrid_attention_layers"});
  expect_refused(Dialect::xatl, {{"hybrid_attention_layers", 1}}, {"a list of layers"});
}

}  // namespace
}  // namespace retnet
