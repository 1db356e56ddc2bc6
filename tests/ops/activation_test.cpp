// SPDX-License-Identifier: MIT
#include "retnet/ops/activation.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/cases.hpp"
#include "support/compare.hpp"
#include "support/custom_scalar.hpp"
#include "support/framed.hpp"
#include "support/gradcheck.hpp"

namespace retnet {
namespace {

using test::Framed;

constexpr Activation kKinds[] = {Activation::identity, Activation::relu, Activation::gelu,
                                 Activation::swish, Activation::sigmoid, Activation::gelu_tanh};

long double formula(Activation kind, long double x) {
  switch (kind) {
    case Activation::identity: return x;
    case Activation::relu: return x > 0.0L ? x : 0.0L;
    case Activation::gelu: return 0.5L * x * std::erfc(-x / std::sqrt(2.0L));
    case Activation::swish: return x / (1.0L + std::exp(-x));
    case Activation::sigmoid: return 1.0L / (1.0L + std::exp(-x));
    case Activation::gelu_tanh: {
      const long double z = std::sqrt(2.0L / std::numbers::pi_v<long double>)*(x + 0.044715L * x * x * x);
      return x / (1.0L + std::exp(-2.0L * z));
    }
  }
  return std::numeric_limits<long double>::quiet_NaN();
}

template <class S>
class ActivationTest : public testing::Test {
 public:
  Reference reference;
  Cpu two{2};
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ActivationTest, Scalars);

TYPED_TEST(ActivationTest, IsTheFormula) {
  using S = TypeParam;
  for (const Activation kind : kKinds)
    for (const auto& shape : test::kRowShapes) {
      const auto x = Framed<S>::random(shape.rows, shape.cols, 1, -12.0, 12.0);
      Framed<S> y(shape.rows, shape.cols, 4.0), cpu_y = y;
      activation(this->reference, kind, x.window(), y.window());
      activation(this->two, kind, x.window(), cpu_y.window());
      EXPECT_TRUE(y.frame_is(4.0));
      EXPECT_TRUE(test::same_bits(y.memory, cpu_y.memory));
      for (Index r = 0; r < shape.rows; ++r)
        for (Index c = 0; c < shape.cols; ++c) {
          const auto expected = static_cast<double>(formula(kind, x.window()(r, c)));
          EXPECT_NEAR(y.window()(r, c), expected,
                      8 * std::numeric_limits<S>::epsilon() * (1.0 + std::fabs(expected)))
              << "kind " << static_cast<int>(kind) << " x " << x.window()(r, c);
        }
    }
}

TYPED_TEST(ActivationTest, TailsAreFinite) {
  using S = TypeParam;
  const S large[] = {S(-1e4), S(-200), S(-90), S(90), S(200), S(1e4)};
  const auto n = static_cast<Index>(std::size(large));
  for (const Activation kind : kKinds) {
    S y[6], slope[6];
    const S ones[6] = {S(1), S(1), S(1), S(1), S(1), S(1)};
    activation(this->reference, kind, Window<const S>(large, 1, n), Window<S>(y, 1, n));
    activation_backward(this->reference, kind, Window<const S>(large, 1, n),
                        Window<const S>(ones, 1, n), Window<S>(slope, 1, n));
    for (Index i = 0; i < n; ++i) {
      const auto expected = static_cast<double>(formula(kind, large[i]));
      EXPECT_NEAR(y[i], expected, 1e-6 * (1.0 + std::fabs(expected)));
      const bool saturated =
          kind == Activation::sigmoid || (large[i] < S(0) && kind != Activation::identity);
      EXPECT_NEAR(slope[i], saturated ? 0.0 : 1.0, 1e-6);
    }
  }
}

TYPED_TEST(ActivationTest, NaNIsNotHidden) {
  using S = TypeParam;
  Buffer<S> x(test::kRowShapes.back().cols);
  Buffer<S> y(x.size());
  for (const Activation kind : {Activation::gelu, Activation::swish, Activation::sigmoid,
                                Activation::gelu_tanh}) {
    activation(this->reference, kind, Window<const S>(x.data(), 1, x.size()),
               Window<S>(y.data(), 1, y.size()));
    for (const S v : y) EXPECT_TRUE(std::isnan(v));
  }
}

TYPED_TEST(ActivationTest, GateIsTheProduct) {
  using S = TypeParam;
  for (const Activation kind : kKinds)
    for (const auto& shape : test::kRowShapes) {
      const auto g = Framed<S>::random(shape.rows, shape.cols, 1, -4.0, 4.0);
      const auto u = Framed<S>::random(shape.rows, shape.cols, 2);
      Framed<S> act(shape.rows, shape.cols), y(shape.rows, shape.cols, 4.0);
      activation(this->reference, kind, g.window(), act.window());
      gate(this->two, kind, g.window(), u.window(), y.window());
      EXPECT_TRUE(y.frame_is(4.0));
      for (Index r = 0; r < shape.rows; ++r)
        for (Index c = 0; c < shape.cols; ++c)
          EXPECT_EQ(y.window()(r, c), act.window()(r, c) * u.window()(r, c));
      gate(this->two, kind, g.window(), u.window(), act.window());
      auto aliased = u;
      gate(this->two, kind, g.window(), Window<const S>(aliased.window()), aliased.window());
      EXPECT_TRUE(test::same_bits(aliased.window(), act.window()));
    }
}

TYPED_TEST(ActivationTest, GateBackwardMayWriteOverItsInput) {
  using S = TypeParam;
  const auto g = Framed<S>::random(3, 33, 1, -4.0, 4.0), u = Framed<S>::random(3, 33, 2);
  const auto dy = Framed<S>::random(3, 33, 3);
  for (const Activation kind : kKinds) {
    Framed<S> dg(3, 33), du(3, 33), other(3, 33);
    gate_backward(this->two, kind, g.window(), u.window(), dy.window(), dg.window(), du.window());
    auto d = dy;
    gate_backward(this->two, kind, g.window(), u.window(), Window<const S>(d.window()), d.window(),
                  other.window());
    EXPECT_TRUE(test::same_bits(d.window(), dg.window()));
    d = dy;
    gate_backward(this->two, kind, g.window(), u.window(), Window<const S>(d.window()),
                  other.window(), d.window());
    EXPECT_TRUE(test::same_bits(d.window(), du.window()));
    d = dy;
    Framed<S> dx(3, 33);
    activation_backward(this->two, kind, g.window(), dy.window(), dx.window());
    activation_backward(this->two, kind, g.window(), Window<const S>(d.window()), d.window());
    EXPECT_TRUE(test::same_bits(d.window(), dx.window()));
  }
}

TEST(Activation, GradientsEqualFiniteDifferences) {
  const Index rows = 3, cols = 13;
  auto g = test::random_uniform<double>(rows * cols, 1, -4.0, 4.0);
  for (double& v : g)  // away from the kink of relu
    if (std::fabs(v) < 1e-2) v = 0.5;
  auto u = test::random_uniform<double>(rows * cols, 2);
  const auto dy = test::random_uniform<double>(rows * cols, 3);
  const Window<const double> gw(g.data(), rows, cols), uw(u.data(), rows, cols);
  const Window<const double> dyw(dy.data(), rows, cols);
  Buffer<double> y(rows * cols), dg(rows * cols), du(rows * cols);
  const auto as_window = [&](Buffer<double>& b) { return Window<double>(b.data(), rows, cols); };
  Cpu ctx;
  for (const Activation kind : kKinds) {
    const auto single = [&] {
      activation(ctx, kind, gw, as_window(y));
      return simd::dot(y.data(), dy.data(), y.size());
    };
    activation_backward(ctx, kind, gw, dyw, as_window(dg));
    EXPECT_LT(test::gradient_error(g.span(), dg.span(), single), 1e-6) << static_cast<int>(kind);
    const auto gated = [&] {
      gate(ctx, kind, gw, uw, as_window(y));
      return simd::dot(y.data(), dy.data(), y.size());
    };
    gate_backward(ctx, kind, gw, uw, dyw, as_window(dg), as_window(du));
    EXPECT_LT(test::gradient_error(g.span(), dg.span(), gated), 1e-6) << static_cast<int>(kind);
    EXPECT_LT(test::gradient_error(u.span(), du.span(), gated), 1e-6) << static_cast<int>(kind);
  }
}

TEST(Activation, ReluHasSlopeZeroAtZero) {
  const double x[] = {-0.0, 0.0, 1e-300, -1e-300}, one[] = {1.0, 1.0, 1.0, 1.0};
  double dx[4];
  Cpu ctx;
  activation_backward(ctx, Activation::relu, Window<const double>(x, 1, 4),
                      Window<const double>(one, 1, 4), Window<double>(dx, 1, 4));
  EXPECT_EQ(dx[0], 0.0);
  EXPECT_EQ(dx[1], 0.0);
  EXPECT_EQ(dx[2], 1.0);
  EXPECT_EQ(dx[3], 0.0);
}

TEST(Activation, OtherScalarsUseTheirOwnFunctions) {
  using S = test::Custom;
  const auto x = Framed<S>::random(2, 5, 1, -3.0, 3.0), u = Framed<S>::random(2, 5, 2);
  const auto wide_x = Framed<double>::random(2, 5, 1, -3.0, 3.0);
  const auto wide_u = Framed<double>::random(2, 5, 2);
  Cpu ctx;
  for (const Activation kind : kKinds) {
    Framed<S> y(2, 5), dg(2, 5), du(2, 5);
    Framed<double> wide_y(2, 5), wide_dg(2, 5), wide_du(2, 5);
    gate(ctx, kind, x.window(), u.window(), y.window());
    gate(ctx, kind, wide_x.window(), wide_u.window(), wide_y.window());
    gate_backward(ctx, kind, x.window(), u.window(), u.window(), dg.window(), du.window());
    gate_backward(ctx, kind, wide_x.window(), wide_u.window(), wide_u.window(), wide_dg.window(),
                  wide_du.window());
    EXPECT_LT(test::relative_error(y.window(), wide_y.window()), 1e-14);
    EXPECT_LT(test::relative_error(dg.window(), wide_dg.window()), 1e-14);
    EXPECT_LT(test::relative_error(du.window(), wide_du.window()), 1e-14);
  }
}

}  // namespace
}  // namespace retnet
