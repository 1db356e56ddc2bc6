// SPDX-License-Identifier: MIT
// Deferred writes are the recurrent form: after every token, for every window, and in whatever order
// the state is used, copied, selected and reset.

#include <gtest/gtest.h>

#include "layers/errors.hpp"
#include "layers/variants.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet::test {
namespace {

template <class S>
class DeferredState : public testing::Test {
 protected:
  Cpu ctx;

  // Two sequences token by token; outputs [T][2,C].
  template <class Layer, class State>
  std::vector<Buffer<S>> steps(const Layer& layer, Index tokens, std::uint64_t stream,
                               State& state) {
    std::vector<Buffer<S>> out;
    for (Index t = 0; t < tokens; ++t)
      out.push_back(
          run(ctx, layer, Form::recurrent(), Sequences::dense(2, 1),
              random_normal<S>(2 * layer.config().d_model, stream + static_cast<std::uint64_t>(t)),
              &state));
    return out;
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(DeferredState, Scalars);

TYPED_TEST(DeferredState, IsTheRecurrentForm) {
  using S = TypeParam;
  for (const auto& v : some_variants()) {
    const auto layer = random_layer<MultiScaleRetention<S>>(v.config);
    auto plain = layer.initial_state(2);
    const auto expected = this->steps(layer, 40, 1, plain);
    for (const Index window : {2, 3, 16, 64}) {
      auto state = layer.initial_state(2);
      state.defer(window);
      const auto given = this->steps(layer, 40, 1, state);
      for (std::size_t t = 0; t < given.size(); ++t)
        EXPECT_LE(relative_error(given[t], expected[t]), tolerance<S>()) << v.name << window << t;
      const bool scored = v.config.normalization == Normalization::paper_score;
      EXPECT_EQ(state.pending(1), scored ? 0 : 40 % window) << v.name;
      EXPECT_EQ(state.positions()[0], 40);
      state.settle();
      EXPECT_EQ(state.pending(1), 0);
      EXPECT_LE(state_error(state, plain), tolerance<S>()) << v.name << window;
    }
  }
}

TYPED_TEST(DeferredState, WaitsForNobody) {
  using S = TypeParam;
  const auto layer = random_layer<MultiScaleRetention<S>>(some_variants()[2].config);
  const std::array<Index, 3> borders{0, 5, 26};
  const auto rows = Sequences::packed(std::span<const Index>(borders));
  const auto x = random_normal<S>(26 * layer.config().d_model, 1);
  auto plain = layer.initial_state(2), state = plain;
  state.defer(16);
  const auto expected = run(this->ctx, layer, Form::recurrent(), rows, x, &plain);
  EXPECT_LE(relative_error(run(this->ctx, layer, Form::recurrent(), rows, x, &state), expected),
            tolerance<S>());
  EXPECT_EQ(state.pending(0), 5);
  EXPECT_EQ(state.pending(1), 5);  // 21 tokens, of which 16 are written
  // Another form goes on from all of them.
  const auto next = random_normal<S>(2 * 3 * layer.config().d_model, 2);
  const auto dense = Sequences::dense(2, 3);
  EXPECT_LE(relative_error(run(this->ctx, layer, Form::chunkwise(2), dense, next, &state),
                           run(this->ctx, layer, Form::chunkwise(2), dense, next, &plain)),
            tolerance<S>());
  EXPECT_TRUE(state.deferred());
  EXPECT_LE(state_error(state, plain), tolerance<S>());
}

TYPED_TEST(DeferredState, IsAValue) {
  using S = TypeParam;
  const auto layer = random_layer<MultiScaleRetention<S>>(some_variants()[0].config);
  auto state = layer.initial_state(2);
  state.defer(8);
  this->steps(layer, 11, 1, state);
  auto copy = state;
  const std::array<Index, 2> swap{1, 0};
  auto swapped = state.select(swap);
  EXPECT_EQ(swapped.pending(0), 3);
  const auto a = this->steps(layer, 9, 50, state), b = this->steps(layer, 9, 50, copy);
  for (std::size_t t = 0; t < a.size(); ++t) EXPECT_TRUE(same_bits(a[t], b[t]));
  // The swapped one, fed with swapped tokens, gives swapped outputs.
  for (std::size_t t = 0; t < a.size(); ++t) {
    auto x = random_normal<S>(2 * layer.config().d_model, 50 + t);
    std::rotate(x.begin(), x.begin() + layer.config().d_model, x.end());
    auto y = run(this->ctx, layer, Form::recurrent(), Sequences::dense(2, 1), x, &swapped);
    std::rotate(y.begin(), y.begin() + layer.config().d_model, y.end());
    EXPECT_TRUE(same_bits(y, a[t]));
  }
  state.reset(1);
  EXPECT_EQ(state.pending(1), 0);
  auto fresh = layer.initial_state(2);
  fresh.defer(8);
  const auto after = this->steps(layer, 4, 90, state), anew = this->steps(layer, 4, 90, fresh);
  for (std::size_t t = 0; t < 4; ++t)
    for (Index i = layer.config().d_model; i < 2 * layer.config().d_model; ++i)
      EXPECT_EQ(after[t][i], anew[t][i]);
}

TYPED_TEST(DeferredState, BitsDependNeitherOnThreadsNorOnNeighbours) {
  using S = TypeParam;
  const auto layer = random_layer<MultiScaleRetention<S>>(
      RetentionConfig{.d_model = 12, .heads = 4, .d_key = 128, .d_value = 172});
  Cpu two(2);
  auto a = layer.initial_state(3), b = a, alone = layer.initial_state(1);
  a.defer(), b.defer(), alone.defer();
  for (std::uint64_t t = 0; t < 20; ++t) {
    const auto x = random_normal<S>(3 * 12, t);
    const auto y = run(this->ctx, layer, Form::recurrent(), Sequences::dense(3, 1), x, &a);
    EXPECT_TRUE(same_bits(run(two, layer, Form::recurrent(), Sequences::dense(3, 1), x, &b), y));
    const auto one =
        run(this->ctx, layer, Form::recurrent(), Sequences::dense(1, 1), rows(x, 12, 1, 1), &alone);
    EXPECT_TRUE(same_bits(one, rows(y, 12, 1, 1)));
  }
}

TEST(DeferredStateErrors, SayWhatIsWrong) {
  RetentionState<float> state(1, 1, 2, 3, false);
  expect_error([&] { state.defer(0); }, {"RetentionState::defer", "tokens = 0"});
  const MultiScaleRetention<float> layer({.d_model = 4, .heads = 2});
  auto deferred = layer.initial_state();
  deferred.defer(4);
  const RowMajorMatrixOf<float> x = RowMajorMatrixOf<float>::Ones(1, 4);
  layer.forward_recurrent(x, deferred);
  const auto& look = deferred;
  expect_error([&] { (void)look.flat(); }, {"1 tokens are pending", "settle()"});
  deferred.settle();
  EXPECT_EQ(look.flat().size(), 16U);
  deferred.defer(1);
  EXPECT_FALSE(deferred.deferred());
}

}  // namespace
}  // namespace retnet::test
