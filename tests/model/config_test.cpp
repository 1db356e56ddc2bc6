// SPDX-License-Identifier: MIT
// Model configs: what the presets stand for, how many parameters they have, what is refused.

#include "retnet/model/presets.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "layers/errors.hpp"
#include "retnet/layers/cross_attention.hpp"
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
  EXPECT_EQ(paper.block().mixer.value_width(), 128);
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

// The sizes of Sun et al. 2023, Table 2, are 12 d^2 a layer.
TEST(Presets, PaperSizes) {
  for (const auto& [size, billions] :
       {std::pair{sizes::paper_1_3b(10), 1.208}, std::pair{sizes::paper_2_7b(10), 2.517},
        std::pair{sizes::paper_6_7b(10), 6.442}}) {
    const auto config = presets::paper(size);
    EXPECT_EQ(config.block().mixer.key_dim(), 256);
    const Index count = matrices(block_layout(config));
    EXPECT_EQ(count, 12 * size.d_model * size.d_model);
    EXPECT_NEAR(static_cast<double>(size.layers * count) / 1e9, billions, 5e-4);
  }
}

// 7 d^2 of retention and 5 d^2 of the network, d_v = d_ffn = 5/3 d rounded.
TEST(Presets, TorchscaleSizes) {
  for (const auto& size :
       {sizes::torchscale_base(10), sizes::torchscale_medium(10), sizes::torchscale_xl(10),
        sizes::torchscale_3b(10), sizes::torchscale_7b(10), sizes::torchscale_13b(10),
        sizes::torchscale_65b(10)}) {
    const auto config = presets::torchscale_v2(size);
    EXPECT_NO_THROW(config.validate());
    EXPECT_EQ(config.block().mixer.key_dim(), 256);
    const Index d = size.d_model, count = matrices(block_layout(config));
    EXPECT_EQ(count, 2 * d * d + 6 * d * size.d_value);
    EXPECT_NEAR(static_cast<double>(count) / static_cast<double>(d * d), 12.0, 0.13);
  }
  // Exactly 12 d^2 where 5/3 d is whole.
  const auto config =
      presets::torchscale_v2({.vocab = 10, .d_model = 768, .layers = 1, .heads = 4});
  EXPECT_EQ(config.block().mixer.value_width(), 1280);
  EXPECT_EQ(matrices(block_layout(config)), 12 * 768 * 768);
}

// The published 1.3B model has 1351.7 million parameters.
TEST(Presets, FlaSize) {
  const auto size = sizes::fla_1_3b();
  auto config = presets::fla(size);
  EXPECT_EQ(config.feed_forward.width(), 2816);
  EXPECT_EQ(config.feed_forward.width(),
            presets::fla({.vocab = 1, .d_model = 2048, .layers = 1, .heads = 8}).feed_forward.width());
  const Index total = 24 * block_layout(config).count() + 2 * 32000 * 2048 + 2048;
  EXPECT_NEAR(static_cast<double>(total) / 1e6, 1351.7, 0.05);
}

// Parameters of one layer by the shapes that the other implementations give their tensors.
TEST(Presets, CountsOfTheOtherDialects) {
  const Index d = 64, v = 128, f = 160;
  const ModelSize size{.vocab = 100, .d_model = d, .layers = 2, .heads = 4, .d_value = v, .ffn = f};
  const Index norms = 4 * d;  // two layer norms, weight and bias
  EXPECT_EQ(block_layout(presets::torchscale_v1(size)).count(),
            2 * (d * d + d) + 2 * (v * d + v) + (d * v + d) + (f * d + f) + (d * f + d) + norms +
                2 * f);  // the norm inside the network
  EXPECT_EQ(block_layout(presets::syncdoth(size)).count(),
            2 * d * d + 3 * d * v + 3 * d * f + 2 * d);
  EXPECT_EQ(block_layout(presets::xatl(size)).count(),
            2 * d * d + 3 * d * v + 3 * d * f + 2 * d);
  const ModelSize narrow{.vocab = 100, .d_model = d, .layers = 2, .heads = 4, .ffn = f};
  EXPECT_EQ(block_layout(presets::yoco(narrow)).count(),
            5 * d * d + 4 * d + 3 * d * f + 2 * d);  // gt_proj [h,d]
  ParamLayout cross;
  const auto yoco = presets::yoco(narrow);
  EXPECT_EQ(yoco.layers, 1);
  EXPECT_EQ(yoco.cross_decoder.layers, 1);
  const Block<CrossAttention<float>> block(yoco.cross_block(), cross, "");
  EXPECT_EQ(cross.count(), 2 * d * d + 3 * d * f + 2 * d);
  const SharedKeyValue<float> shared(yoco.cross_block().mixer, cross, "shared.");
  EXPECT_EQ(cross.count(), 4 * d * d + 3 * d * f + 3 * d);
  EXPECT_EQ(block_layout(presets::yar(narrow)).count(),
            5 * (d * d + d) + 2 * d * f + f + d + norms);
  EXPECT_EQ(block_layout(presets::jamie(narrow)).count(),
            5 * d * d + 2 * d + 2 * d * f + f + d + norms);  // GroupNorm, weight and bias
  auto bottle = presets::xatl(narrow);
  bottle.retention.d_value = d;
  bottle.retention.bottleneck = 16;
  EXPECT_EQ(block_layout(bottle).count(), 3 * d * d + 3 * 16 * d + 3 * d * f + 2 * d);
}

TEST(Presets, EveryDialectIsValid) {
  using Preset = RetNetConfig (*)(const ModelSize&);
  for (const Preset preset :
       {Preset(presets::paper), Preset(presets::torchscale_v1), Preset(presets::torchscale_v2),
        Preset(presets::syncdoth), Preset(presets::xatl), Preset(presets::fla),
        Preset(presets::yoco), Preset(presets::yar), Preset(presets::jamie)}) {
    auto size = kSize;
    size.layers = 4;
    const auto config = preset(size);
    EXPECT_NO_THROW(config.validate());
    EXPECT_EQ(config.vocab, 100);
    EXPECT_EQ(config.layers + config.cross_decoder.layers, 4);
    EXPECT_EQ(config.retention.heads, 4);
    EXPECT_THROW(preset({}).validate(), std::invalid_argument);
  }
}

TEST(Presets, DeepNorm) {
  auto config = presets::paper(kSize);
  EXPECT_EQ(config.block().alpha, 1.0);
  config.deepnorm = true;
  config.layers = 8;
  const auto plain = presets::paper(kSize).block(), deep = config.block();
  EXPECT_DOUBLE_EQ(deep.alpha, 2.0);  // (2 * 8)^(1/4)
  const double beta = std::pow(64.0, -0.25);
  EXPECT_DOUBLE_EQ(deep.mixer.init_value.gain, beta * plain.mixer.init_value.gain);
  EXPECT_DOUBLE_EQ(deep.mixer.init_output.gain, beta * plain.mixer.init_output.gain);
  EXPECT_DOUBLE_EQ(deep.feed_forward.init_in.gain, beta * plain.feed_forward.init_in.gain);
  EXPECT_DOUBLE_EQ(deep.feed_forward.init_out.gain, beta * plain.feed_forward.init_out.gain);
  EXPECT_DOUBLE_EQ(deep.mixer.init_projection.gain, plain.mixer.init_projection.gain);
}

TEST(Presets, WidthsOfPartsMayBeLeftOut) {
  const RetNetConfig config{.vocab = 5, .d_model = 12, .layers = 1, .retention = {.heads = 2}};
  EXPECT_NO_THROW(config.validate());
  EXPECT_EQ(config.block().mixer.d_model, 12);
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
  expect([](auto& c) { c.attention = {{3, {.heads = 4}}}; }, {"layer 3", "layers = 3"});
  expect([](auto& c) { c.attention = {{1, {.heads = 4}}, {1, {.heads = 4}}}; },
         {"attention names layer 1", "once"});
  expect([](auto& c) { c.attention = {{-1, {.heads = 4}}}; }, {"layer -1"});
  expect([](auto& c) { c.attention = {{0, {.heads = 5}}}; }, {"heads = 5", "head_dim"});
  expect([](auto& c) { c.cross_decoder.layers = -1; }, {"cross_decoder.layers = -1"});
  expect([](auto& c) { c.cross_decoder.layers = 1; }, {"heads = 0"});
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
