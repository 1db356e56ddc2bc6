// SPDX-License-Identifier: MIT
// A million tokens, one by one in float, against the chunkwise form: neither the state nor the
// angle of a position drifts.

#include <gtest/gtest.h>

#include "layers/variants.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet::test {
namespace {

constexpr Index kSteps = 1'000'000;
constexpr Index kWidth = 12;
constexpr Index kKept = 1000;  // outputs that are compared, the last ones

template <class S>
struct Result {
  Buffer<S> last{kKept * kWidth};
  RetentionState<S> state;
};

template <class S>
Result<S> one_by_one(const MultiScaleRetention<S>& layer, const Buffer<S>& x) {
  Cpu ctx;
  Result<S> result;
  result.state = layer.initial_state();
  Buffer<S> y(kWidth);
  const auto one = Sequences::dense(1, 1);
  for (Index t = 0; t < kSteps; ++t) {
    layer.forward(ctx, layer.weights(), Pass{Form::recurrent(), one},
                  ConstView<S, 3>(x.data() + t * kWidth, {1, 1, kWidth}), &result.state,
                  View<S, 3>(y.data(), {1, 1, kWidth}));
    if (t >= kSteps - kKept)
      std::copy_n(y.data(), kWidth, result.last.data() + (t - kSteps + kKept) * kWidth);
  }
  return result;
}

template <class S>
Result<S> in_chunks(const MultiScaleRetention<S>& layer, const Buffer<S>& x) {
  constexpr Index kBlock = 20'000;  // tokens a call
  Cpu ctx;
  Result<S> result;
  result.state = layer.initial_state();
  Buffer<S> y(kBlock * kWidth);
  const auto sequences = Sequences::dense(1, kBlock);
  for (Index t = 0; t < kSteps; t += kBlock)
    layer.forward(ctx, layer.weights(), Pass{Form::chunkwise(64), sequences},
                  ConstView<S, 3>(x.data() + t * kWidth, {1, kBlock, kWidth}), &result.state,
                  View<S, 3>(y.data(), {1, kBlock, kWidth}));
  std::copy_n(y.data() + (kBlock - kKept) * kWidth, kKept * kWidth, result.last.data());
  return result;
}

void expect_no_drift(const RetentionConfig& config) {
  const auto layer = random_layer<MultiScaleRetention<float>>(config);
  const auto x = random_uniform<float>(kSteps * kWidth, 1);
  const auto steps = one_by_one(layer, x), chunks = in_chunks(layer, x);
  EXPECT_EQ(steps.state.positions()[0], kSteps);
  EXPECT_LE(state_error(steps.state, chunks.state), 1e-5);
  EXPECT_LE(relative_error(steps.last, chunks.last), 1e-5);

  Buffer<double> wide(x.size());
  std::copy(x.begin(), x.end(), wide.begin());
  const MultiScaleRetention<double> exact(config, layer.weight_buffer().cast<double>());
  const auto truth = in_chunks(exact, wide);
  EXPECT_LE(relative_error(steps.last, truth.last), 1e-5);
  EXPECT_LE(relative_error(std::as_const(steps.state).flat(), std::as_const(truth.state).flat()),
            1e-5);
}

TEST(AMillionTokens, RowSum) {
  expect_no_drift({.d_model = kWidth, .heads = 6, .d_key = 12, .d_value = 24});
}

TEST(AMillionTokens, Fla) {
  RetentionConfig config{.d_model = kWidth, .heads = 3, .d_key = 12, .d_value = 24};
  config.rotation = RotationLayout::half_split;
  config.theta = ThetaKind::rotary;
  config.normalization = Normalization::none;
  config.scale_on = ScaleOn::query;
  config.head_norm_affine = Affine::per_head_dim;
  expect_no_drift(config);
}

}  // namespace
}  // namespace retnet::test
