// SPDX-License-Identifier: MIT
#include "retnet/core/buffer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <utility>

namespace retnet {
namespace {

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % kAlignment == 0; }

template <class S>
class BufferTest : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(BufferTest, Scalars);

TYPED_TEST(BufferTest, KeepsItsMemoryWhenItShrinks) {
  Buffer<TypeParam> x(100);
  EXPECT_EQ(x.size(), 100);
  EXPECT_TRUE(aligned(x.data()));
  const TypeParam* place = x.data();
  x.resize(10);
  EXPECT_EQ(x.size(), 10);
  EXPECT_EQ(x.data(), place);
  x.resize(100);
  EXPECT_EQ(x.data(), place);
  x.resize(1000);
  EXPECT_EQ(x.size(), 1000);
  EXPECT_TRUE(aligned(x.data()));
}

TYPED_TEST(BufferTest, IsPoisonedWheneverItsContentsAreUndefined) {
  Buffer<TypeParam> x(33);
  for (const TypeParam v : x) EXPECT_TRUE(std::isnan(v));
  x.fill(TypeParam(1));
  x.resize(20);
  for (const TypeParam v : x) EXPECT_TRUE(std::isnan(v));
}

TYPED_TEST(BufferTest, CopiesValuesAndMovesMemory) {
  Buffer<TypeParam> x(7);
  for (Index i = 0; i < x.size(); ++i) x[i] = static_cast<TypeParam>(i);
  Buffer<TypeParam> copy = x;
  ASSERT_EQ(copy.size(), 7);
  EXPECT_NE(copy.data(), x.data());
  for (Index i = 0; i < x.size(); ++i) EXPECT_EQ(copy[i], static_cast<TypeParam>(i));
  copy[0] = TypeParam(9);
  EXPECT_EQ(x[0], TypeParam(0));

  Buffer<TypeParam> larger(50);
  const TypeParam* place = larger.data();
  larger = x;
  EXPECT_EQ(larger.size(), 7);
  EXPECT_EQ(larger.data(), place);

  const TypeParam* of_x = x.data();
  const Buffer<TypeParam> moved = std::move(x);
  EXPECT_EQ(moved.data(), of_x);
  EXPECT_EQ(moved.span().size(), 7U);
  EXPECT_EQ(moved.end() - moved.begin(), 7);
}

// Such buffers lie in large pages; given back and taken again, they must go the way they came.
TEST(Buffer, LargerThanAPageOfTwoMegabytes) {
  constexpr Index kSize = Index{3} << 20;
  Buffer<double> b(kSize);
  b[0] = 1.0;
  b[kSize - 1] = 2.0;
  const Buffer<double> copy = b;
  b.resize(8);
  b.resize(2 * kSize);
  b[2 * kSize - 1] = 3.0;
  EXPECT_TRUE(aligned(b.data()));
  EXPECT_EQ(copy[0] + copy[kSize - 1] + b[2 * kSize - 1], 6.0);
}

TEST(Buffer, HoldsNothingAtFirst) {
  Buffer<float> x;
  EXPECT_TRUE(x.empty());
  EXPECT_EQ(x.data(), nullptr);
  const Buffer<float> copy = x;
  EXPECT_TRUE(copy.empty());
  x.resize(0);
  EXPECT_EQ(x.begin(), x.end());
}

TEST(Buffer, PoisonsIntegersWithAllOnes) {
  const Buffer<std::int32_t> x(5);
  for (const std::int32_t v : x) EXPECT_EQ(v, -1);
  const Buffer<std::int32_t> none(0);
  EXPECT_TRUE(none.empty());
}

TEST(Buffer, PoisonsBfloat16WithNaN) {
  const Buffer<bfloat16> x(5);
  for (const bfloat16 v : x) EXPECT_TRUE(std::isnan(static_cast<float>(v)));
}

}  // namespace
}  // namespace retnet
