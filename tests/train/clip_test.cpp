// SPDX-License-Identifier: MIT
#include "retnet/train/clip.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "support/compare.hpp"
#include "support/random.hpp"

namespace retnet {
namespace {

template <class S>
double norm_of(const Buffer<S>& x) {
  Cpu ctx;
  return global_norm(ctx, x.span());
}

template <class S>
class Clip : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Clip, Scalars);

TYPED_TEST(Clip, TheNormIsEuclidean) {
  Buffer<TypeParam> x(3);
  x[0] = 2, x[1] = -3, x[2] = 6;
  EXPECT_DOUBLE_EQ(norm_of(x), 7.0);
  EXPECT_DOUBLE_EQ(norm_of(Buffer<TypeParam>(0)), 0.0);
  for (const Index size : {1, 4095, 4096, 4097, 20000}) {
    const auto random = test::random_normal<TypeParam>(size, 1);
    long double sum = 0;
    for (const TypeParam v : random)
      sum += static_cast<long double>(v) * static_cast<long double>(v);
    EXPECT_NEAR(norm_of(random), static_cast<double>(std::sqrt(sum)), 1e-12 * norm_of(random));
  }
}

TYPED_TEST(Clip, LargeValuesDoNotOverflow) {
  const auto x = test::filled<TypeParam>(100, 1e30);
  EXPECT_NEAR(norm_of(x) / 1e31, 1.0, 1e-6);
}

TYPED_TEST(Clip, ScalesDownToTheLimit) {
  auto x = test::random_normal<TypeParam>(10000, 2);
  const auto before = x;
  const double norm = norm_of(x), limit = 0.25;
  Cpu ctx;
  EXPECT_EQ(clip_by_global_norm(ctx, x.span(), limit), norm) << "the norm before clipping";
  EXPECT_NEAR(norm_of(x), limit, 1e-6 * limit);
  for (Index i = 0; i < x.size(); ++i)
    EXPECT_NEAR(x[i] / before[i], limit / norm, 1e-6 * limit / norm) << "the direction stays";
}

TYPED_TEST(Clip, ChangesNothingAtOrBelowTheLimit) {
  auto x = test::random_normal<TypeParam>(5000, 3);
  const auto before = x;
  const double norm = norm_of(x);
  Cpu ctx;
  for (const double limit : {norm, 2 * norm, std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(clip_by_global_norm(ctx, x.span(), limit), norm);
    EXPECT_TRUE(test::same_bits(x, before));
  }
}

TYPED_TEST(Clip, LeavesWhatIsNotFiniteAlone) {
  for (const TypeParam bad :
       {std::numeric_limits<TypeParam>::quiet_NaN(), std::numeric_limits<TypeParam>::infinity(),
        -std::numeric_limits<TypeParam>::infinity()}) {
    auto x = test::random_normal<TypeParam>(5000, 4);
    x[4321] = bad;
    const auto before = x;
    Cpu ctx;
    EXPECT_FALSE(std::isfinite(clip_by_global_norm(ctx, x.span(), 1.0)));
    EXPECT_TRUE(test::same_bits(x, before));
  }
}

TYPED_TEST(Clip, DoesNotDependOnTheThreads) {
  const auto x = test::random_normal<TypeParam>(50001, 5);
  auto one = x, three = x;
  Reference reference;
  Cpu single(1), several(3);
  const double expected = global_norm(reference, x.span());
  EXPECT_EQ(clip_by_global_norm(single, one.span(), 1.0), expected);
  EXPECT_EQ(clip_by_global_norm(several, three.span(), 1.0), expected);
  EXPECT_TRUE(test::same_bits(one, three));
}

}  // namespace
}  // namespace retnet
