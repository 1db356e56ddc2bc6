// SPDX-License-Identifier: MIT
#include "retnet/ops/decay.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "retnet/simd/vector.hpp"
#include "support/compare.hpp"
#include "support/custom_scalar.hpp"
#include "support/framed.hpp"
#include "support/gradcheck.hpp"

namespace retnet {
namespace {

using test::Framed;

TEST(LogGamma, Pow2IsTheSchedule) {
  const auto g = log_gamma_pow2(40);
  ASSERT_EQ(g.size(), 40U);
  for (std::size_t h = 0; h < g.size(); ++h) {
    const long double gamma = 1.0L - std::exp2(-5.0L - static_cast<long double>(h));
    EXPECT_NEAR(g[h] / static_cast<double>(std::log(gamma)), 1.0, 1e-15) << h;
    EXPECT_LT(g[h], 0.0);
  }
  EXPECT_DOUBLE_EQ(std::exp(g[0]), 1.0 - 1.0 / 32);
  EXPECT_TRUE(log_gamma_pow2(0).empty());
}

TEST(LogGamma, LinspaceHasItsEndsAndEqualRatios) {
  for (const Index heads : {2, 3, 8, 20}) {
    const auto g = log_gamma_linspace(heads);
    ASSERT_EQ(static_cast<Index>(g.size()), heads);
    EXPECT_NEAR(-std::expm1(g.front()), 1.0 / 32, 1e-16);
    EXPECT_NEAR(-std::expm1(g.back()), 1.0 / 512, 1e-16);
    const double ratio = std::pow(32.0 / 512.0, 1.0 / static_cast<double>(heads - 1));
    for (std::size_t h = 0; h + 1 < g.size(); ++h)
      EXPECT_NEAR(std::expm1(g[h + 1]) / std::expm1(g[h]), ratio, 1e-14);
  }
  EXPECT_NEAR(-std::expm1(log_gamma_linspace(1)[0]), 1.0 / 32, 1e-16);
}

TEST(DecayRowSum, EqualsTheDirectSum) {
  for (const long double gamma :
       {0.0L + 0x1p-40L, 0.001L, 0.3L, 0.96875L, 1.0L - 0x1p-12L, 1.0L - 0x1p-40L}) {
    const auto log_gamma = static_cast<double>(std::log(gamma));
    long double sum = 0.0L, power = 1.0L;
    for (std::int64_t n = 0; n < 3000; ++n) {
      sum += power;
      power *= gamma;
      if (n < 5 || n % 97 == 0) {
        EXPECT_NEAR(decay_row_sum(log_gamma, n) / static_cast<double>(sum), 1.0, 1e-13)
            << "gamma " << static_cast<double>(gamma) << " n " << n;
      }
    }
  }
}

TEST(DecayRowSum, WithoutDecayCountsTheTokens) {
  EXPECT_EQ(decay_row_sum(0.0, 0), 1.0);
  EXPECT_EQ(decay_row_sum(0.0, 999'999), 1e6);
  EXPECT_EQ(decay_row_sum(-0.0, 9), 10.0);
}

TEST(DecayRowSum, IsNeverBelowOneNorAboveItsLimit) {
  for (const double log_gamma : {-1e-15, -1e-6, -0.03, -1.0, -50.0, -1000.0})
    for (const std::int64_t n : {std::int64_t{0}, std::int64_t{10}, std::int64_t{1'000'000'000}}) {
      const double s = decay_row_sum(log_gamma, n);
      EXPECT_GE(s, 1.0);
      EXPECT_LE(s,
                std::fmin(static_cast<double>(n + 1), -1.0 / std::expm1(log_gamma)) * (1 + 1e-15));
    }
}

TEST(CumulativeLogDecay, OfAFixedDecayIsAMultiple) {
  const std::vector<double> log_gamma{-0.5, 0.0};
  const Decay<float> decay{log_gamma, {}};
  EXPECT_FALSE(decay.gated());
  double g[4];
  detail::cumulative_log_decay(decay, 0, 17, 4, g);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(g[i], -0.5 * (i + 1));
  detail::cumulative_log_decay(decay, 1, 0, 4, g);
  for (const double v : g) EXPECT_EQ(v, 0.0);
}

TEST(CumulativeLogDecay, OfAGateIsARunningSumInDouble) {
  const auto gate = Framed<float>::random(9, 3, 1, -2.0, 0.0);
  const Decay<float> decay{{}, gate.window()};
  EXPECT_TRUE(decay.gated());
  double g[5], sum = 0.0;
  detail::cumulative_log_decay(decay, 2, 3, 5, g);
  for (int i = 0; i < 5; ++i) {
    sum += static_cast<double>(gate.window()(3 + i, 2));
    EXPECT_EQ(g[i], sum);
  }
}

template <class S>
class GateTest : public testing::Test {
 public:
  Reference reference;
  Cpu two{2};
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(GateTest, Scalars);

TYPED_TEST(GateTest, IsTheLogarithmOfTheSigmoid) {
  using S = TypeParam;
  const auto z = Framed<S>::random(130, 5, 1, -30.0, 30.0);
  Framed<S> y(130, 5, 4.0), cpu_y = y;
  log_sigmoid_gate(this->reference, 16.0, z.window(), y.window());
  log_sigmoid_gate(this->two, 16.0, z.window(), cpu_y.window());
  EXPECT_TRUE(y.frame_is(4.0));
  EXPECT_TRUE(test::same_bits(y.memory, cpu_y.memory));
  for (Index r = 0; r < 130; ++r)
    for (Index h = 0; h < 5; ++h) {
      const long double expected =
          -std::log1p(std::exp(-static_cast<long double>(z.window()(r, h)))) / 16.0L;
      const auto e = static_cast<double>(expected);
      EXPECT_NEAR(y.window()(r, h), e,
                  4 * std::numeric_limits<S>::epsilon() * (1.0 / 16 + std::fabs(e)));
      EXPECT_LE(y.window()(r, h), S(0));
    }
}

TYPED_TEST(GateTest, TailsAreFinite) {
  using S = TypeParam;
  const S z[] = {S(-1e30), S(-1000), S(-100), S(100), S(1000), S(1e30)};
  S y[6], d[6];
  const S one[] = {S(1), S(1), S(1), S(1), S(1), S(1)};
  const Window<const S> zw(z, 2, 3);
  log_sigmoid_gate(this->two, 2.0, zw, Window<S>(y, 2, 3));
  log_sigmoid_gate_backward(this->two, 2.0, zw, Window<const S>(one, 2, 3), Window<S>(d, 2, 3));
  for (int i = 0; i < 6; ++i) {
    EXPECT_NEAR(y[i], i < 3 ? z[i] / S(2) : S(0), 1e-40);
    EXPECT_NEAR(d[i], i < 3 ? 0.5 : 0.0, 1e-12);
  }
}

TEST(Gate, GradientEqualsFiniteDifferences) {
  auto z = test::random_uniform<double>(7 * 3, 1, -6.0, 6.0);
  const auto dy = test::random_uniform<double>(7 * 3, 2);
  Cpu ctx;
  const auto loss = [&] {
    Buffer<double> y(z.size());
    log_sigmoid_gate(ctx, 16.0, Window<const double>(z.data(), 7, 3),
                     Window<double>(y.data(), 7, 3));
    return simd::dot(y.data(), dy.data(), y.size());
  };
  auto dz = dy;  // in place
  log_sigmoid_gate_backward(ctx, 16.0, Window<const double>(z.data(), 7, 3),
                            Window<const double>(dz.data(), 7, 3), Window<double>(dz.data(), 7, 3));
  EXPECT_LT(test::gradient_error(z.span(), std::as_const(dz).span(), loss), 1e-6);
}

TEST(Gate, OtherScalarsAgree) {
  using S = test::Custom;
  const auto z = Framed<S>::random(4, 3, 1, -6.0, 6.0);
  const auto wide = Framed<double>::random(4, 3, 1, -6.0, 6.0);
  Framed<S> y(4, 3), dz(4, 3);
  Framed<double> wide_y(4, 3), wide_dz(4, 3);
  Cpu ctx;
  log_sigmoid_gate(ctx, 16.0, z.window(), y.window());
  log_sigmoid_gate(ctx, 16.0, wide.window(), wide_y.window());
  log_sigmoid_gate_backward(ctx, 16.0, z.window(), z.window(), dz.window());
  log_sigmoid_gate_backward(ctx, 16.0, wide.window(), wide.window(), wide_dz.window());
  EXPECT_LT(test::relative_error(y.window(), wide_y.window()), 1e-14);
  EXPECT_LT(test::relative_error(dz.window(), wide_dz.window()), 1e-14);
}

}  // namespace
}  // namespace retnet
