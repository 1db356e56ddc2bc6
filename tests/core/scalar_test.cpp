// SPDX-License-Identifier: MIT
#include "retnet/core/scalar.hpp"

#include <gtest/gtest.h>

namespace retnet {
namespace {

static_assert(Vectorized<float> && Vectorized<double> && !Vectorized<long double>);
static_assert(StorageOnly<bfloat16> && StorageOnly<half> && StorageOnly<const half>);
static_assert(ComputeScalar<float> && ComputeScalar<double> && ComputeScalar<long double>);
static_assert(!ComputeScalar<bfloat16> && !ComputeScalar<half>);

TEST(ScalarCast, WidensExactlyAndRoundsToNearest) {
  EXPECT_EQ(scalar_cast<double>(bfloat16(1.5F)), 1.5);
  EXPECT_EQ(scalar_cast<float>(half(0.25F)), 0.25F);
  EXPECT_EQ(scalar_cast<float>(scalar_cast<bfloat16>(1.0)), 1.0F);
  // 1 - 2^-9 is already 1 in bfloat16: the reason why decays never live there.
  EXPECT_EQ(scalar_cast<float>(scalar_cast<bfloat16>(1.0 - 0x1p-9)), 1.0F);
  EXPECT_EQ(scalar_cast<float>(scalar_cast<bfloat16>(1.0 - 0x1p-8)), 1.0F - 0x1p-8F);
  EXPECT_EQ(scalar_cast<long double>(0.5F), 0.5L);
}

}  // namespace
}  // namespace retnet
