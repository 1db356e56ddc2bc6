// SPDX-License-Identifier: MIT
// Model configs: what the presets stand for, how many parameters they have, what is refused.

#include "retnet/model/config.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "layers/errors.hpp"
#include "retnet/layers/retnet_block.hpp"

namespace retnet::test {
namespace {

constexpr ModelSize kSize{.vocab = 100, .d_model = 64, .layers = 3, .heads = 4};

/// Parameters of one block, counted without memory for them.
ParamLayout block_layout(const RetNetConfig& config) {
  ParamLayout layout;
  const RetNetBlock<float> block(config.block(), layout, "");
  return layout;
}

Index matrices(const ParamLayout& layout) {
  Index n = 0;
  for (const auto& e : layout.entries())
    if (e.place.rows > 1) n += e.place.size();
  return n;
}

TEST(Presets, AreValidAndSayWhatTheyAre) {
  const auto paper = presets::paper(kSize);
  EXPECT_NO_THROW(paper.validate());
  EXPECT_EQ(paper.retention.normalization, Normalization::row_sum);
  EXPECT_EQ(paper.retention.decay, DecayKind::pow2);
  EXPECT_EQ(paper.retention.head_norm, NormKind::layer);
  EXPECT_EQ(paper.block().retention.value_width(), 128);
  EXPECT_EQ(paper.block().feed_forward.width(), 128);
  EXPECT_EQ(paper.feed_forward.kind, FeedForwardKind::mlp);
  EXPECT_EQ(paper.feed_forward.activation, Activation::gelu);

  const auto torchscale = presets::torchscale_v2(kSize);
  EXPECT_NO_THROW(torchscale.validate());
  EXPECT_EQ(torchscale.retention.rotation, RotationLayout::interleaved);
  EXPECT_EQ(torchscale.retention.theta, ThetaKind::inclusive);
  EXPECT_EQ(torchscale.retention.scale_on, ScaleOn::key);
  EXPECT_EQ(torchscale.feed_forward.kind, FeedForwardKind::glu);

  const auto fla = presets::fla(kSize);
  EXPECT_NO_THROW(fla.validate());
  EXPECT_EQ(fla.retention.rotation, RotationLayout::half_split);
  EXPECT_EQ(fla.retention.theta, ThetaKind::rotary);
  EXPECT_EQ(fla.retention.normalization, Normalization::none);
  EXPECT_EQ(fla.retention.scale_on, ScaleOn::query);
  EXPECT_EQ(fla.retention.head_norm_affine, Affine::per_head_dim);
  EXPECT_EQ(fla.feed_forward.width(), 256);
}

// 8 d^2 of retention and 4 d^2 of the feed-forward part.
TEST(Presets, PaperHasTwelveSquaresALayer) {
  for (const Index d : {Index{32}, Index{256}, Index{2048}}) {
    const auto config = presets::paper({.vocab = 10, .d_model = d, .layers = 1, .heads = d / 16});
    EXPECT_EQ(matrices(block_layout(config)), 12 * d * d);
    EXPECT_EQ(block_layout(config).count(), 12 * d * d + 4 * d);  // two norms, weight and bias
  }
}

// d / d_v = FFN / heads of the published sizes.
TEST(Presets, TorchscaleSizes) {
  struct Size {
    Index d, wide, heads;
  };
  for (const Size s :
       {Size{512, 864, 2}, Size{1024, 1728, 4}, Size{2048, 3456, 8}, Size{2560, 4280, 10},
        Size{4096, 6912, 16}, Size{5120, 8560, 20}, Size{8192, 13824, 32}}) {
    const auto config = presets::torchscale_v2({.vocab = 10,
                                                .d_model = s.d,
                                                .layers = 1,
                                                .heads = s.heads,
                                                .d_value = s.wide,
                                                .ffn = s.wide});
    EXPECT_EQ(config.block().retention.key_dim(), 256);
    EXPECT_EQ(matrices(block_layout(config)), 2 * s.d * s.d + 6 * s.d * s.wide);
  }
  // 7 d^2 + 5 d^2 where 5/3 d is whole
  const auto config =
      presets::torchscale_v2({.vocab = 10, .d_model = 768, .layers = 1, .heads = 4});
  EXPECT_EQ(config.block().retention.value_width(), 1280);
  EXPECT_EQ(matrices(block_layout(config)), 12 * 768 * 768);
}

// The published 1.3B model has 1351.7 million parameters.
TEST(Presets, FlaSize) {
  const auto config = presets::fla({.vocab = 32000, .d_model = 2048, .layers = 24, .heads = 8});
  EXPECT_EQ(config.feed_forward.width(), 2816);
  const Index total = 24 * block_layout(config).count() + 2 * 32000 * 2048 + 2048;
  EXPECT_NEAR(static_cast<double>(total) / 1e6, 1351.7, 0.05);
}

TEST(Presets, DeepNorm) {
  auto config = presets::paper(kSize);
  EXPECT_EQ(config.block().alpha, 1.0);
  config.deepnorm = true;
  config.layers = 8;
  const auto plain = presets::paper(kSize).block(), deep = config.block();
  EXPECT_DOUBLE_EQ(deep.alpha, 2.0);  // (2 * 8)^(1/4)
  const double beta = std::pow(64.0, -0.25);
  EXPECT_DOUBLE_EQ(deep.retention.init_value.gain, beta * plain.retention.init_value.gain);
  EXPECT_DOUBLE_EQ(deep.retention.init_output.gain, beta * plain.retention.init_output.gain);
  EXPECT_DOUBLE_EQ(deep.feed_forward.init_in.gain, beta * plain.feed_forward.init_in.gain);
  EXPECT_DOUBLE_EQ(deep.feed_forward.init_out.gain, beta * plain.feed_forward.init_out.gain);
  EXPECT_DOUBLE_EQ(deep.retention.init_projection.gain, plain.retention.init_projection.gain);
}

TEST(Presets, WidthsOfPartsMayBeLeftOut) {
  const RetNetConfig config{.vocab = 5, .d_model = 12, .layers = 1, .retention = {.heads = 2}};
  EXPECT_NO_THROW(config.validate());
  EXPECT_EQ(config.block().retention.d_model, 12);
  EXPECT_EQ(config.block().feed_forward.width(), 24);
}

TEST(ConfigErrors, NameWhatIsWrong) {
  const auto expect = [](const std::function<void(RetNetConfig&)>& change,
                         std::vector<std::string> parts) {
    auto config = presets::paper(kSize);
    change(config);
    parts.emplace_back("[RetNetConfig]");
    parts.emplace_back("mend: ");
    parts.emplace_back("see: ");
    expect_error([&] { config.validate(); }, parts);
  };
  expect([](auto& c) { c.vocab = 0; }, {"vocab = 0", "d_model = 64", "layers = 3"});
  expect([](auto& c) { c.d_model = 0; }, {"d_model = 0"});
  expect([](auto& c) { c.layers = -1; }, {"layers = -1"});
  expect([](auto& c) { c.retention.d_model = 32; }, {"retention.d_model = 32", "d_model = 64"});
  expect([](auto& c) { c.feed_forward.d_model = 32; }, {"feed_forward.d_model = 32"});
  expect([](auto& c) { c.retention.heads = 7; }, {"d_key = 64", "heads = 7"});
  expect([](auto& c) { c.norm_eps = std::nan(""); }, {"norm_eps = nan"});
  expect([](auto& c) { c.norm_eps = -1.0; }, {"norm_eps = -1"});
  expect([](auto& c) { c.norm = NormKind::none; }, {"NormKind::none"});
  expect([](auto& c) { c.dropout = 1.5; }, {"dropout = 1.5", "[0, 1)"});
  expect([](auto& c) { c.feed_forward.activation_dropout = -0.5; }, {"activation_dropout = -0.5"});
  expect([](auto& c) { c.init_embedding = -1.0; }, {"init_embedding = -1"});
  expect([](auto& c) { c.init_embedding = std::nan(""); }, {"init_embedding = nan"});
  expect([](auto& c) { c.retention.decay = DecayKind::gated; }, {"gated", "Normalization::none"});
}

}  // namespace
}  // namespace retnet::test
