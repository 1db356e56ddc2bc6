// SPDX-License-Identifier: MIT
#include "retnet/simd/math.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/random.hpp"

namespace retnet::simd {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// The largest relative error of f over [low, high], with a different number in every lane.
template <class P, class F, class Expected>
double worst_error(float low, float high, int packs, F&& f, Expected&& expected) {
  double worst = 0.0;
  for (int k = 0; k < packs; ++k) {
    float x[P::size];
    for (int i = 0; i < P::size; ++i) {
      const double u = (k * P::size + i) / (static_cast<double>(packs) * P::size - 1.0);
      x[i] = static_cast<float>(low + u * (static_cast<double>(high) - low));
    }
    const P y = f(P::load(x));
    for (int i = 0; i < P::size; ++i) {
      const double e = expected(static_cast<double>(x[i]));
      const double error = std::fabs(static_cast<double>(y[i]) - e) / e;
      if (!(error <= worst)) worst = error;  // NaN ends up here as well
    }
  }
  return worst;
}

double exact_sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// The stated accuracy, in units of epsilon: one for exp, two for sigmoid, which adds a sum and a
// quotient.
constexpr double kExpError = 1.2e-7;
constexpr double kSigmoidError = 2.4e-7;
constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

TEST(Exp, FloatIsAccurateOverItsWholeRange) {
  using P = Pack<float>;
  const auto f = [](P x) { return exp(x); };
  const auto e = [](double x) { return std::exp(x); };
  EXPECT_LT((worst_error<P>(-87.33F, 88.37F, 200'000, f, e)), kExpError);
  EXPECT_LT((worst_error<P>(-1.0F, 1.0F, 100'000, f, e)), kExpError);
  EXPECT_LT((worst_error<P>(-1e-3F, 1e-3F, 10'000, f, e)), kExpError);
}

TEST(Exp, NarrowPacksAgreeWithTheBound) {
  using P4 = Pack<float, 4>;
  using P1 = Pack<float, 1>;
  const auto f = [](auto x) { return exp(x); };
  const auto e = [](double x) { return std::exp(x); };
  EXPECT_LT((worst_error<P4>(-87.33F, 88.37F, 200'000, f, e)), kExpError);
  EXPECT_LT((worst_error<P1>(-87.33F, 88.37F, 200'000, f, e)), kExpError);
}

TEST(Exp, FloatTailsSpecialNumbersAndNeighboursDoNotMix) {
  using P = Pack<float>;
  const float special[] = {0.0F,   -0.0F, kNaN,       88.4F, 1000.0F, kInfinity, -87.4F, -1000.0F,
                           -1e30F, 1e30F, -kInfinity, 1.0F,  kNaN,    -1.0F,     2.0F,   0.5F};
  for (int rotation = 0; rotation < 16; ++rotation) {
    float x[P::size];
    for (int i = 0; i < P::size; ++i) x[i] = special[(i + rotation) % 16];
    const P y = exp(P::load(x));
    for (int i = 0; i < P::size; ++i) {
      if (std::isnan(x[i])) {
        EXPECT_TRUE(std::isnan(y[i]));
      } else if (x[i] > 88.37F) {
        EXPECT_GE(y[i], 2.3e38F);  // saturates a little below the largest float
      } else if (x[i] < -87.34F) {
        EXPECT_EQ(y[i], 0.0F);
      } else {
        EXPECT_NEAR(y[i], std::exp(x[i]), 3e-7F * std::exp(x[i]));
      }
    }
  }
}

TEST(Exp, OfZeroIsOne) {
  EXPECT_EQ(exp(Pack<float>::zero())[0], 1.0F);
  EXPECT_EQ(exp(Pack<double>::zero())[0], 1.0);
}

TEST(Exp, DoubleIsAccurateOverItsWholeRange) {
  using P = Pack<double>;
  for (const double range : {708.39, 1.0, 1e-6}) {
    const auto x = test::random_uniform<double>(20'000 * P::size, 1, -range, range);
    long double worst = 0.0L;
    for (Index k = 0; k < x.size(); k += P::size) {
      const P y = exp(P::load(x.data() + k));
      for (int i = 0; i < P::size; ++i) {
        const long double e = std::exp(static_cast<long double>(x[k + i]));
        worst = std::max(worst, std::fabs(y[i] / e - 1.0L));
      }
    }
    EXPECT_LT(worst, kEpsilon) << range;
  }
}

TEST(Exp, DoubleTailsAndSpecialNumbers) {
  using P = Pack<double>;
  const auto one = [](double x) { return exp(P::broadcast(x))[0]; };
  EXPECT_EQ(one(-0.0), 1.0);
  EXPECT_EQ(one(-708.4), P::size > 1 ? 0.0 : std::exp(-708.4));
  EXPECT_EQ(one(-1e300), 0.0);
  EXPECT_EQ(one(-static_cast<double>(kInfinity)), 0.0);
  EXPECT_GE(one(709.5), 1.2e308);  // saturates a little below the largest double
  EXPECT_GE(one(static_cast<double>(kInfinity)), 1.2e308);
  EXPECT_TRUE(std::isnan(one(static_cast<double>(kNaN))));
}

TEST(Exp, OtherScalarsUseTheirOwnFunction) {
  const Pack<long double> x{1.0L};
  EXPECT_EQ(exp(x)[0], std::exp(1.0L));
}

TEST(Sigmoid, FloatIsAccurateInBothTails) {
  using P = Pack<float>;
  const auto f = [](P x) { return sigmoid(x); };
  EXPECT_LT((worst_error<P>(-87.0F, 100.0F, 200'000, f, exact_sigmoid)), kSigmoidError);
  EXPECT_LT((worst_error<P>(-4.0F, 4.0F, 100'000, f, exact_sigmoid)), kSigmoidError);
}

TEST(Sigmoid, SpecialNumbers) {
  using P = Pack<float>;
  const auto one = [](float x) { return sigmoid(P::broadcast(x))[0]; };
  EXPECT_EQ(one(0.0F), 0.5F);
  EXPECT_EQ(one(kInfinity), 1.0F);
  EXPECT_EQ(one(1000.0F), 1.0F);
  EXPECT_LT(one(-1000.0F), 1e-38F);
  EXPECT_GE(one(-kInfinity), 0.0F);
  EXPECT_LT(one(-kInfinity), 1e-38F);
  EXPECT_TRUE(std::isnan(one(kNaN)));
}

TEST(Sigmoid, DoubleIsAccurate) {
  using P = Pack<double>;
  const auto x = test::random_uniform<double>(64 * P::size, 2, -40.0, 40.0);
  for (Index k = 0; k < x.size(); k += P::size) {
    const P y = sigmoid(P::load(x.data() + k));
    for (int i = 0; i < P::size; ++i) {
      const long double e = 1.0L / (1.0L + std::exp(-static_cast<long double>(x[k + i])));
      EXPECT_NEAR(static_cast<double>(y[i] / e), 1.0, 2 * kEpsilon);
    }
  }
}

// Relative in both tails; where x^2/2 is large its own rounding is what remains.
TEST(NormalCdf, FloatIsAccurateOverItsWholeRange) {
  using P = Pack<float>;
  const auto f = [](P x) { return normal_cdf(x); };
  const auto e = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  EXPECT_LT((worst_error<P>(-1.0F, 8.0F, 200'000, f, e)), 6e-7);
  EXPECT_LT((worst_error<P>(-4.0F, -1.0F, 100'000, f, e)), 1.2e-6);
  EXPECT_LT((worst_error<P>(-12.0F, -4.0F, 100'000, f, e)), 8e-6);
}

TEST(NormalCdf, SpecialNumbers) {
  using P = Pack<float>;
  const auto one = [](float x) { return normal_cdf(P::broadcast(x))[0]; };
  EXPECT_NEAR(one(0.0F), 0.5F, 1e-7F);
  EXPECT_EQ(one(kInfinity), 1.0F);
  EXPECT_EQ(one(40.0F), 1.0F);
  EXPECT_EQ(one(-40.0F), 0.0F);
  EXPECT_EQ(one(-kInfinity), 0.0F);
  EXPECT_TRUE(std::isnan(one(kNaN)));
}

TEST(MapLanes, SeesEveryLaneOnce) {
  const auto x = test::random_uniform<float>(Pack<float>::size, 3);
  const auto y = map_lanes(Pack<float>::load(x.data()), [](float s) { return 2.0F * s; });
  for (int i = 0; i < Pack<float>::size; ++i) EXPECT_EQ(y[i], 2.0F * x[i]);
}

}  // namespace
}  // namespace retnet::simd
