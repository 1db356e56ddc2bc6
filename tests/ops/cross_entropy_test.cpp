// SPDX-License-Identifier: MIT
#include "retnet/ops/cross_entropy.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "support/cases.hpp"
#include "support/compare.hpp"
#include "support/custom_scalar.hpp"
#include "support/framed.hpp"
#include "support/gradcheck.hpp"

namespace retnet {
namespace {

using test::Framed;

template <class S>
double naive_loss(Window<const S> z, const std::int32_t* targets) {
  long double loss = 0.0L;
  for (Index r = 0; r < z.rows; ++r) {
    if (targets[r] == kIgnore) continue;
    long double highest = -HUGE_VALL, total = 0.0L;
    for (Index j = 0; j < z.cols; ++j)
      highest = std::fmax(highest, static_cast<long double>(scalar_cast<double>(z(r, j))));
    for (Index j = 0; j < z.cols; ++j)
      total += std::exp(static_cast<long double>(scalar_cast<double>(z(r, j))) - highest);
    loss += std::log(total) + highest - scalar_cast<double>(z(r, targets[r]));
  }
  return static_cast<double>(loss);
}

/// Every third row is ignored when `ignore` is set.
Buffer<std::int32_t> targets_for(Index rows, Index classes, bool ignore) {
  auto t = test::random_indices(rows, classes, 7);
  for (Index r = 0; ignore && r < rows; r += 3) t[r] = kIgnore;
  return t;
}

template <class S>
class CrossEntropyTest : public testing::Test {
 public:
  Reference reference;
  Cpu two{2};
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(CrossEntropyTest, Scalars);

TYPED_TEST(CrossEntropyTest, LossIsTheDefinitionAndLeavesTheLogits) {
  using S = TypeParam;
  for (const auto& [rows, cols] : test::kRowShapes)
    for (const bool ignore : {false, true})
      for (const double range : {1.0, 30.0}) {
        auto z = Framed<S>::random(rows, cols, 1, -range, range);
        const auto before = z;
        const auto targets = targets_for(rows, cols, ignore);
        const LossSum given = cross_entropy(this->reference, targets.data(), z.window());
        const LossSum threads = cross_entropy(this->two, targets.data(), z.window());
        const double expected = naive_loss<S>(z.window(), targets.data());
        EXPECT_NEAR(given.sum, expected, test::tolerance<S>() * (1.0 + std::fabs(expected)));
        EXPECT_EQ(given.sum, threads.sum);
        EXPECT_EQ(given.rows, ignore ? rows - (rows + 2) / 3 : rows);
        EXPECT_EQ(given.rows, threads.rows);
        EXPECT_TRUE(test::same_bits(z.memory, before.memory));
      }
}

TYPED_TEST(CrossEntropyTest, GradientIsSoftmaxMinusOneHot) {
  using S = TypeParam;
  for (const auto& [rows, cols] : test::kRowShapes) {
    const auto start = Framed<S>::random(rows, cols, 1, -5.0, 5.0);
    const auto targets = targets_for(rows, cols, true);
    auto d = start, two_d = start;
    const LossSum loss = cross_entropy(this->reference, targets.data(), d.window(), 0.25);
    const LossSum threads = cross_entropy(this->two, targets.data(), two_d.window(), 0.25);
    EXPECT_EQ(loss.sum, threads.sum);
    EXPECT_TRUE(test::same_bits(d.memory, two_d.memory));
    EXPECT_TRUE(d.frame_is(test::kNaN));
    EXPECT_NEAR(loss.sum, naive_loss<S>(start.window(), targets.data()),
                test::tolerance<S>() * (1.0 + loss.sum));
    for (Index r = 0; r < rows; ++r) {
      double total = 0.0, sum = 0.0;
      for (Index j = 0; j < cols; ++j) total += std::exp(double(start.window()(r, j)));
      for (Index j = 0; j < cols; ++j) {
        const bool ignored = targets[r] == kIgnore;
        const double softmax = std::exp(double(start.window()(r, j))) / total;
        const double expected = ignored ? 0.0 : 0.25 * (softmax - (j == targets[r] ? 1.0 : 0.0));
        EXPECT_NEAR(d.window()(r, j), expected, test::tolerance<S>());
        sum += d.window()(r, j);
      }
      EXPECT_NEAR(sum, 0.0, test::tolerance<S>());
    }
  }
}

TYPED_TEST(CrossEntropyTest, LargeLogitsAreFinite) {
  using S = TypeParam;
  const std::int32_t targets[] = {0, 1, 2};
  for (const double large : {1e3, 1e4, 1e8}) {
    S z[] = {S(large), S(0), S(-large), S(large), S(0), S(-large), S(-large), S(-large), S(-large)};
    const LossSum loss = cross_entropy(this->two, targets, Window<S>(z, 3, 3), 1.0);
    EXPECT_NEAR(loss.sum, large + std::log(3.0), 1e-6 * large);
    const double expected[] = {0, 0, 0, 1, -1, 0, 1.0 / 3, 1.0 / 3, -2.0 / 3};
    for (int i = 0; i < 9; ++i) EXPECT_NEAR(z[i], expected[i], 1e-6);
  }
}

TYPED_TEST(CrossEntropyTest, WithoutTargetsTheMeanIsZero) {
  using S = TypeParam;
  auto z = Framed<S>::random(4, 5, 1);
  const std::int32_t targets[] = {kIgnore, kIgnore, kIgnore, kIgnore};
  const LossSum loss = cross_entropy(this->two, targets, z.window());
  EXPECT_EQ(loss.rows, 0);
  EXPECT_EQ(loss.mean(), 0.0);
}

TYPED_TEST(CrossEntropyTest, NaNIsNotHidden) {
  using S = TypeParam;
  for (Index j = 0; j < 20; ++j) {
    auto z = Framed<S>::random(1, 20, 1);
    z.window()(0, j) = S(test::kNaN);
    const std::int32_t target = 3;
    EXPECT_TRUE(std::isnan(cross_entropy(this->two, &target, z.window()).sum)) << j;
  }
}

TEST(CrossEntropy, UniformLogitsGiveTheLogarithmOfTheVocabulary) {
  Cpu ctx;
  auto z = test::filled<double>(3 * 1000, 0.125);
  const std::int32_t targets[] = {0, 500, 999};
  const LossSum loss = cross_entropy(ctx, targets, Window<double>(z.data(), 3, 1000));
  EXPECT_NEAR(loss.mean(), std::log(1000.0), 1e-12);
}

TEST(CrossEntropy, GradientEqualsFiniteDifferences) {
  const Index rows = 5, cols = 9;
  auto z = test::random_uniform<double>(rows * cols, 1, -3.0, 3.0);
  const auto targets = targets_for(rows, cols, true);
  Cpu ctx;
  const auto loss = [&] {
    return cross_entropy(ctx, targets.data(), Window<double>(z.data(), rows, cols)).mean();
  };
  auto d = z;
  const double scale =
      1.0 / static_cast<double>(
                cross_entropy(ctx, targets.data(), Window<double>(z.data(), rows, cols)).rows);
  cross_entropy(ctx, targets.data(), Window<double>(d.data(), rows, cols), scale);
  EXPECT_LT(test::gradient_error(z.span(), std::as_const(d).span(), loss), 1e-6);
}

TEST(CrossEntropy, OtherScalarsAgree) {
  using S = test::Custom;
  auto z = Framed<S>::random(3, 7, 1);
  const auto targets = targets_for(3, 7, false);
  Cpu ctx;
  EXPECT_NEAR(cross_entropy(ctx, targets.data(), z.window()).sum,
              naive_loss<S>(z.window(), targets.data()), 1e-13);
}

}  // namespace
}  // namespace retnet
