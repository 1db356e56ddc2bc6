// SPDX-License-Identifier: MIT
// The checked door to the gradients. That they are right is tested in the gradient tests.
#include <gtest/gtest.h>

#include "retnet/core/tensor.hpp"
#include "retnet/layers/retnet_block.hpp"
#include "support/compare.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"

namespace retnet {
namespace {

using Layer = MultiScaleRetention<double>;
using Block = RetNetBlock<double>;

constexpr Index kBatch = 2, kTokens = 9, kWidth = 12, kRows = kBatch * kTokens;

template <class L>
L make() {
  const RetentionConfig retention{.d_model = kWidth, .heads = 3};
  if constexpr (std::is_same_v<L, Layer>) {
    return L(retention, Seed{1});
  } else {
    return L({.mixer = retention, .feed_forward = {.d_model = kWidth}}, Seed{1});
  }
}

Tensor3<double> random(std::uint64_t stream) {
  Tensor3<double> out(kBatch, kTokens, kWidth);
  test::fill_normal(std::span(out.data(), static_cast<std::size_t>(out.size())), stream);
  return out;
}
bool same_bits(const Tensor3<double>& a, const Tensor3<double>& b) {
  return test::same_bits(Window<const double>(a.data(), kRows, kWidth),
                         Window<const double>(b.data(), kRows, kWidth));
}

/// A layer, its input, and what goes in and out of its backward.
template <class L>
struct Case {
  L layer = make<L>();
  Cpu ctx;
  Sequences sequences = Sequences::dense(kBatch, kTokens);
  Pass pass{Form::chunkwise(4), sequences};
  Tensor3<double> x = random(1), dy = random(2), dx{kBatch, kTokens, kWidth};
  typename L::Saved saved;
  ParamBuffer<double> dw{layer.layout()};

  void forward() {
    Tensor3<double> y(kBatch, kTokens, kWidth);
    layer.forward(ctx, layer.weights(), pass, x, nullptr, y, &saved);
  }
  void backward(ConstView<double, 3> d_out, View<double, 3> d_in) {
    layer.backward(ctx, layer.weights(), pass, x, saved, d_out, dw.ref(), d_in);
  }
  void backward_rows() {
    const Window<const double> rows(x.data(), kRows, kWidth);
    const Window<double> d_out(dy.data(), kRows, kWidth), d_in(dx.data(), kRows, kWidth);
    if constexpr (std::is_same_v<L, Layer>) {
      layer.backward_rows(ctx, layer.weights(), pass, rows, saved, Window<const double>(d_out),
                          dw.ref(), d_in, 0.0);
    } else {
      layer.backward_rows(ctx, layer.weights(), pass, rows, saved, d_out, dw.ref(), d_in);
    }
  }
};

template <class L>
class Backward : public testing::Test {};
using Layers = testing::Types<Layer, Block>;
TYPED_TEST_SUITE(Backward, Layers);

TYPED_TEST(Backward, OnViewsIsTheOneOnRows) {
  Case<TypeParam> views, rows;
  views.forward();
  views.backward(views.dy, views.dx);
  rows.forward();
  rows.backward_rows();
  EXPECT_TRUE(same_bits(views.dx, rows.dx));
  EXPECT_TRUE(test::same_bits<double>(views.dw.flat(), rows.dw.flat()));
  EXPECT_TRUE(same_bits(views.dy, random(2))) << "the gradient of the output is left alone";
}

TYPED_TEST(Backward, AddsWeightGradientsAndAssignsTheInputs) {
  Case<TypeParam> c;
  c.forward();
  c.backward(c.dy, c.dx);
  const auto once = c.dw;
  c.forward();
  c.backward(c.dy, c.dy);  // the result may take the place of dy
  EXPECT_TRUE(same_bits(c.dy, c.dx));
  const auto twice = c.dw.flat();
  const auto single = once.flat();
  for (std::size_t i = 0; i < single.size(); ++i)
    EXPECT_NEAR(twice[i], 2.0 * single[i], 1e-12 * (1.0 + std::abs(single[i])));
}

TYPED_TEST(Backward, ErrorsSayWhatWasGivenAndWhatWasExpected) {
  Case<TypeParam> c;
  const std::string at = "[MultiScaleRetention] backward: ";
  EXPECT_EQ(test::message_of([&] { c.backward(c.dy, c.dx); }),
            at + "saved holds 0 rows, x is [2,9,12], expected what forward saved of this x");
  c.forward();
  Tensor3<double> small(kBatch, kTokens, 2);
  EXPECT_EQ(test::message_of([&] { c.backward(small, c.dx); }),
            at + "dy is [2,9,2], dx is [2,9,12], x is [2,9,12]");
  EXPECT_EQ(test::message_of([&] { c.backward(c.dy, small); }),
            at + "dy is [2,9,12], dx is [2,9,2], x is [2,9,12]");
}

}  // namespace
}  // namespace retnet
