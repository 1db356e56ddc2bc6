// SPDX-License-Identifier: MIT
// What does not fit is refused at the door: the message names the class, what was given and what
// was expected. And what does fit comes in as any Eigen type.

#include <gtest/gtest.h>

#include <functional>

#include "layers/errors.hpp"
#include "layers/variants.hpp"
#include "retnet/core/tensor.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet::test {
namespace {

using Layer = MultiScaleRetention<float>;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

const RetentionConfig kConfig{.d_model = 12, .heads = 4};

// The message of a config that `change` has spoilt.
void expect_config_error(const std::function<void(RetentionConfig&)>& change,
                         const std::vector<std::string>& parts) {
  RetentionConfig config = kConfig;
  change(config);
  auto all = parts;
  all.emplace_back("mend: ");
  all.emplace_back("see: ");
  all.emplace_back("MultiScaleRetention");
  expect_error([&] { Layer layer(config); }, all);
  all.back() = "RetentionConfig";
  expect_error([&] { config.validate(); }, all);
}

TEST(RetentionConfigErrors, SizesThatDoNotDivide) {
  expect_config_error([](auto& c) { c.d_model = 0; }, {"d_model = 0", "heads = 4"});
  expect_config_error([](auto& c) { c.d_model = -3; }, {"d_model = -3"});
  expect_config_error([](auto& c) { c.heads = 0; }, {"heads = 0"});
  expect_config_error([](auto& c) { c.heads = 5; }, {"d_key = 12", "heads = 5"});
  expect_config_error([](auto& c) { c.d_key = 18; }, {"d_key = 18", "heads = 4"});
  expect_config_error([](auto& c) { c.d_value = 42; }, {"d_value = 42", "heads = 4"});
  expect_config_error([](auto& c) { c.d_key = -8; }, {"d_key = -8"});
  expect_config_error(
      [](auto& c) {
        c.kv_heads = 3;
        c.d_key = 8;
      },
      {"heads = 4", "kv_heads = 3"});
  expect_config_error(
      [](auto& c) {
        c.kv_heads = 8;
        c.d_key = 8;
      },
      {"heads = 4", "kv_heads = 8"});
  expect_config_error([](auto& c) { c.kv_heads = -1; }, {"kv_heads = -1"});
  expect_config_error([](auto& c) { c.d_key = 12; }, {"Dk = 3"});  // odd, and rotation on
}

TEST(RetentionConfigErrors, NumbersOutOfRange) {
  const auto even = [](auto& c) { c.d_key = 16; };
  const auto with = [&](auto change) { return [=](RetentionConfig& c) { even(c), change(c); }; };
  expect_config_error(with([](auto& c) { c.head_norm_eps = kNan; }), {"head_norm_eps = nan"});
  expect_config_error(with([](auto& c) { c.head_norm_eps = -1e-6; }), {"head_norm_eps = -1e-06"});
  expect_config_error(with([](auto& c) { c.theta_base = kNan; }), {"theta_base = nan"});
  expect_config_error(with([](auto& c) { c.theta_base = 0.0; }), {"theta_base = 0"});
  const auto gamma = [&](std::vector<double> values) {
    return with([=](auto& c) {
      c.decay = DecayKind::values;
      c.gamma = values;
    });
  };
  expect_config_error(gamma({0.5, 0.5, kNan, 0.5}), {"gamma holds nan", "(0, 1]"});
  expect_config_error(gamma({0.5, 0.5, 1.5, 0.5}), {"gamma holds 1.5"});
  expect_config_error(gamma({0.5, 0.5, 0.0, 0.5}), {"gamma holds 0"});
  expect_config_error(gamma({0.5, 0.5}), {"gamma has 2 values", "heads = 4"});
  expect_config_error(with([](auto& c) {
                        c.theta = ThetaKind::values;
                        c.theta_values = {1.0};
                      }),
                      {"theta_values has 1", "Dk = 4"});
  expect_config_error(with([](auto& c) {
                        c.theta = ThetaKind::values;
                        c.theta_values = {1.0, kNan};
                      }),
                      {"theta_values holds nan"});
  expect_config_error(with([](auto& c) {
                        c.decay = DecayKind::gated;
                        c.normalization = Normalization::none;
                        c.gate_divisor = 0.0;
                      }),
                      {"gate_divisor = 0"});
}

TEST(RetentionConfigErrors, Contradictions) {
  const auto even = [](auto& c) { c.d_key = 16; };
  const auto with = [&](auto change) { return [=](RetentionConfig& c) { even(c), change(c); }; };
  expect_config_error(with([](auto& c) { c.rotary_dim = 6; }), {"rotary_dim = 6", "Dk = 4"});
  expect_config_error(with([](auto& c) { c.rotary_dim = -2; }), {"rotary_dim = -2"});
  expect_config_error(with([](auto& c) { c.rotary_dim = 3; }), {"rotary_dim = 3 is odd"});
  expect_config_error(with([](auto& c) { c.rotary_dim = 2, c.theta = ThetaKind::values; }),
                      {"theta_values has 0 values", "rotary_dim = 2"});
  expect_config_error(with([](auto& c) { c.xpos_base = -1.0; }), {"xpos_base = -1"});
  expect_config_error(with([](auto& c) { c.xpos_base = kNan; }), {"xpos_base = nan"});
  expect_config_error(
      with([](auto& c) { c.xpos_base = 512.0, c.rotation = RotationLayout::none; }),
      {"xpos_base = 512", "without rotation"});
  expect_config_error(with([](auto& c) { c.bottleneck = -1; }), {"bottleneck = -1"});
  expect_config_error(with([](auto& c) { c.head_norm_bias = true; }),
                      {"head_norm_bias", "NormKind::layer"});
  expect_config_error(with([](auto& c) {
                        c.head_norm_bias = true;
                        c.head_norm = NormKind::layer;
                      }),
                      {"head_norm_bias without a weight"});
  expect_config_error(
      [&](auto& c) {
        even(c), c.gamma = {0.5, 0.5, 0.5, 0.5};
      },
      {"gamma is given", "DecayKind::values"});
  expect_config_error(
      [&](auto& c) {
        even(c), c.theta_values = {1.0, 0.5};
      },
      {"theta_values is given", "ThetaKind::values"});
  expect_config_error([&](auto& c) { even(c), c.decay = DecayKind::gated; },
                      {"gated", "Normalization::none"});
  expect_config_error(
      [&](auto& c) {
        even(c);
        c.head_norm = NormKind::none;
        c.head_norm_affine = Affine::per_channel;
      },
      {"head_norm_affine", "Affine::none"});
}

// The factor of a key grows with its position: an error, not an infinity.
TEST(RetentionXpos, RefusesPositionsWhereItsScaleIsNoNumber) {
  const RetentionConfig config{.d_model = 8, .heads = 2, .xpos_base = 4.0};
  const MultiScaleRetention<float> narrow(config);
  const MultiScaleRetention<double> wide(config);
  const RowMajorMatrixOf<float> x = RowMajorMatrixOf<float>::Ones(300, 8);
  expect_error([&] { (void)narrow.forward_parallel(x); },
               {"MultiScaleRetention", "forward_parallel", "position 300", "xPos", "double"});
  EXPECT_TRUE(wide.forward_parallel(RowMajorMatrixOf<double>(x.cast<double>())).allFinite());
  auto state = narrow.initial_state();
  EXPECT_TRUE(narrow.forward_chunkwise(RowMajorMatrixOf<float>(x.topRows(200)), state).allFinite());
  expect_error(
      [&] { (void)narrow.forward_recurrent(RowMajorMatrixOf<float>(x.topRows(100)), state); },
      {"position 300"});
  EXPECT_EQ(state.positions()[0], 200);
}

class RetentionErrors : public testing::Test {
 protected:
  RetentionErrors()
      : layer([] {
          RetentionConfig c = kConfig;
          c.d_key = 16;
          return c;
        }()) {}
  Layer layer;
  Tensor3<float> x{2, 5, 12};
  void SetUp() override { x.setRandom(); }
};

TEST_F(RetentionErrors, WrongWidth) {
  Tensor3<float> wide(2, 5, 13);
  wide.setZero();
  auto state = layer.initial_state(2);
  const std::vector<std::string> parts{"MultiScaleRetention", "[2,5,13]", "d_model = 12"};
  const auto with = [&](const char* form) {
    auto all = parts;
    all.emplace_back(form);
    return all;
  };
  expect_error([&] { (void)layer.forward_parallel(wide); }, with("forward_parallel"));
  expect_error([&] { (void)layer.forward_recurrent(wide, state); }, with("forward_recurrent"));
  expect_error([&] { (void)layer.forward_chunkwise(wide, state, 2); }, with("forward_chunkwise"));
  RowMajorMatrixOf<float> narrow(5, 11);
  expect_error([&] { (void)layer.forward_parallel(narrow); }, {"[1,5,11]", "d_model = 12"});
}

TEST_F(RetentionErrors, NoTokens) {
  const Tensor3<float> none(2, 0, 12);
  auto state = layer.initial_state(2);
  expect_error([&] { (void)layer.forward_parallel(none); },
               {"MultiScaleRetention", "forward_parallel", "[2,0,12]", "positive"});
  expect_error([&] { (void)layer.forward_recurrent(none, state); },
               {"forward_recurrent", "[2,0,12]"});
  const Tensor3<float> no_batch(0, 5, 12);
  expect_error([&] { (void)layer.forward_chunkwise(no_batch, state); },
               {"forward_chunkwise", "[0,5,12]"});
}

TEST_F(RetentionErrors, ChunkOfZero) {
  auto state = layer.initial_state(2);
  expect_error([&] { (void)layer.forward_chunkwise(x, state, 0); },
               {"MultiScaleRetention", "forward_chunkwise", "chunk = 0", "at least 1"});
  expect_error([&] { (void)layer.forward_chunkwise(x, state, -4); }, {"chunk = -4", "at least 1"});
}

TEST_F(RetentionErrors, StateOfAnotherBatch) {
  auto state = layer.initial_state(3);
  const auto before = state;
  expect_error([&] { (void)layer.forward_recurrent(x, state); },
               {"MultiScaleRetention", "forward_recurrent", "3 sequences", "x holds 2"});
  EXPECT_TRUE(same_state(state, before));
  expect_error([&] { (void)layer.initial_state(0); }, {"sequences = 0", "at least 1"});
}

TEST_F(RetentionErrors, StateOfAnotherLayer) {
  RetentionConfig config = layer.config();
  config.heads = 2;
  auto fewer_heads = Layer(config).initial_state(2);
  expect_error([&] { (void)layer.forward_recurrent(x, fewer_heads); },
               {"MultiScaleRetention", "another layer", "[2,8,12]", "[4,4,6]"});
  config = layer.config();
  config.normalization = Normalization::paper_score;
  auto with_sums = Layer(config).initial_state(2);
  EXPECT_TRUE(with_sums.has_key_sum());
  expect_error([&] { (void)layer.forward_chunkwise(x, with_sums, 4); }, {"another layer"});
  auto without = layer.initial_state(2);
  expect_error([&] { (void)Layer(config).forward_chunkwise(x, without, 4); }, {"another layer"});
}

TEST_F(RetentionErrors, TorchscaleGoesOnInTheRecurrentFormOnly) {
  RetentionConfig config = layer.config();
  config.normalization = Normalization::torchscale;
  const Layer compat(config);
  auto state = compat.initial_state(2);
  EXPECT_NO_THROW((void)compat.forward_parallel(x, state));
  EXPECT_NO_THROW((void)compat.forward_recurrent(x, state));
  expect_error([&] { (void)compat.forward_chunkwise(x, state, 4); },
               {"forward_chunkwise", "position 10", "expected 0", "recurrent"});
}

TEST_F(RetentionErrors, WeightsOfAnotherConfig) {
  RetentionConfig config = layer.config();
  config.d_value = 36;
  const ParamBuffer<float> weights = layer.weight_buffer();
  const auto given = std::to_string(weights.flat().size());
  const auto expected = std::to_string(Layer(config).layout().size());
  expect_error([&] { Layer other(config, weights); }, {"MultiScaleRetention", given, expected});
}

TEST_F(RetentionErrors, SequencesAndViewsThatDoNotFit) {
  Cpu ctx;
  const Buffer<float> rows_in = random_normal<float>(10 * 12, 1);
  Buffer<float> y(10 * 12);
  const ConstView<float, 3> in(rows_in.data(), {2, 5, 12});
  expect_error(
      [&] {
        layer.forward(ctx, layer.weights(), Pass{Form::parallel(), Sequences::dense(2, 4)}, in,
                      nullptr, View<float, 3>(y.data(), {2, 5, 12}));
      },
      {"MultiScaleRetention", "[2,5,12]", "8 rows"});
  expect_error(
      [&] {
        layer.forward(ctx, Form::parallel(), in, static_cast<Layer::State*>(nullptr),
                      View<float, 3>(y.data(), {1, 10, 12}));
      },
      {"MultiScaleRetention", "y is [1,10,12]", "x is [2,5,12]"});
  ParamLayout layout;
  const Layer part(layer.config(), layout, "part.");
  EXPECT_FALSE(part.owns_weights());
  expect_error([&] { (void)part.forward_parallel(x); }, {"MultiScaleRetention", "part of a model"});
  expect_error([&] { const Layer again(layer.config(), layout, "part."); },
               {"part.q_proj", "twice"});
}

// Tensor, TensorMap, Matrix and Map give the same numbers in the plain type of what was given.
TEST_F(RetentionErrors, EveryEigenTypeComesIn) {
  const Tensor3<float> y = layer.forward_parallel(x);
  ASSERT_EQ(y.dimension(0), 2);
  ASSERT_EQ(y.dimension(1), 5);
  ASSERT_EQ(y.dimension(2), 12);
  const std::span<const float> expected(y.data(), static_cast<std::size_t>(y.size()));

  const Eigen::TensorMap<const Tensor3<float>> map(x.data(), 2, 5, 12);
  auto state = layer.initial_state(2);
  const Tensor3<float> from_map = layer.forward_chunkwise(map, state, 3);
  EXPECT_LE(relative_error(std::span<const float>(from_map.data(), 120), expected), 1e-5);
  EXPECT_EQ(state.positions()[0], 5);

  using Matrix = RowMajorMatrixOf<float>;
  const Eigen::Map<const Matrix> second(x.data() + 60, 5, 12);
  auto one = layer.initial_state();
  const Matrix from_matrix = layer.forward_recurrent(second, one);
  EXPECT_LE(relative_error(std::span<const float>(from_matrix.data(), 60), expected.subspan(60)),
            1e-5);
  const Matrix plain = second;
  const Matrix again = layer.forward_parallel(plain);
  EXPECT_TRUE(same_bits(std::span<const float>(again.data(), 60), expected.subspan(60)));
}

}  // namespace
}  // namespace retnet::test
