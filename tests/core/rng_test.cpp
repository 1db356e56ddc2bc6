// SPDX-License-Identifier: MIT
#include "retnet/core/rng.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>

namespace retnet {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The first three vectors of the Random123 distribution's kat_vectors, philox 4x32 10; counter words
// 0 and 1 are our counter, 2 and 3 our stream.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox(Seed{0}, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint64_t kOnes = ~std::uint64_t{0};
  EXPECT_EQ(philox(Seed{kOnes}, kOnes, kOnes),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(Seed{0x299f31d0a4093822}, 0x0370734413198a2e, 0x85a308d3243f6a88),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  static_assert(philox(Seed{0}, 0, 0)[0] == 0x6627e8d5);
}

TEST(Philox, EveryArgumentMatters) {
  std::set<Words> seen;
  for (const std::uint64_t one :
       {std::uint64_t{1}, std::uint64_t{1} << 32, std::uint64_t{1} << 63}) {
    seen.insert(philox(Seed{one}, 0, 0));
    seen.insert(philox(Seed{0}, one, 0));
    seen.insert(philox(Seed{0}, 0, one));
  }
  EXPECT_EQ(seen.size(), 9U);
}

// Bounds are five standard deviations of the estimate.
TEST(Uniform, HasTheRightMoments) {
  constexpr int kN = 200'000;
  double sum = 0.0, squares = 0.0, lag = 0.0, previous = 0.0;
  for (int i = 0; i < kN; ++i) {
    const double u = uniform(Seed{1}, 2, static_cast<std::uint64_t>(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    const double centred = u - 0.5;
    sum += centred, squares += centred * centred, lag += centred * previous;
    previous = centred;
  }
  const double root = std::sqrt(static_cast<double>(kN));
  EXPECT_NEAR(sum / kN, 0.0, 5.0 * std::sqrt(1.0 / 12) / root);
  EXPECT_NEAR(squares / kN, 1.0 / 12, 5.0 * std::sqrt(1.0 / 180) / root);
  EXPECT_NEAR(lag / kN, 0.0, 5.0 / 12 / root);
}

TEST(Normal, HasTheRightMoments) {
  constexpr int kN = 200'000;
  double m1 = 0.0, m2 = 0.0, m3 = 0.0, m4 = 0.0;
  int beyond_two = 0;
  for (int i = 0; i < kN; ++i) {
    const double x = normal(Seed{1}, 3, static_cast<std::uint64_t>(i));
    ASSERT_TRUE(std::isfinite(x));
    m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
    beyond_two += std::fabs(x) > 2.0;
  }
  const double root = std::sqrt(static_cast<double>(kN));
  EXPECT_NEAR(m1 / kN, 0.0, 5.0 / root);
  EXPECT_NEAR(m2 / kN, 1.0, 5.0 * std::sqrt(2.0) / root);
  EXPECT_NEAR(m3 / kN, 0.0, 5.0 * std::sqrt(15.0) / root);
  EXPECT_NEAR(m4 / kN, 3.0, 5.0 * std::sqrt(96.0) / root);
  EXPECT_NEAR(beyond_two / static_cast<double>(kN), 0.0455, 5.0 * 0.21 / root);
}

}  // namespace
}  // namespace retnet
