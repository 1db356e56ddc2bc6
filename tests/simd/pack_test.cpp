// SPDX-License-Identifier: MIT
#include "retnet/simd/pack.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/random.hpp"

namespace retnet::simd {
namespace {

template <class P>
class PackTest : public testing::Test {};
using Packs = testing::Types<Pack<float>, Pack<float, 1>, Pack<float, 4>, Pack<float, 8>,
                             Pack<double>, Pack<double, 1>, Pack<double, 2>, Pack<double, 4>>;
TYPED_TEST_SUITE(PackTest, Packs);

template <class P>
using ScalarOf = std::remove_cvref_t<decltype(P::zero()[0])>;

/// A pack of numbers that all differ.
template <class P>
P random_pack(std::uint64_t stream) {
  const auto x = test::random_uniform<ScalarOf<P>>(P::size, stream, -3.0, 3.0);
  return P::load(x.data());
}

TYPED_TEST(PackTest, LoadsAndStoresEveryLane) {
  using S = ScalarOf<TypeParam>;
  // One element off: packs need no alignment.
  const auto x = test::random_uniform<S>(TypeParam::size + 1, 1);
  auto y = test::filled<S>(TypeParam::size + 2, 5.0);
  const TypeParam p = TypeParam::load(x.data() + 1);
  p.store(y.data() + 1);
  for (int i = 0; i < TypeParam::size; ++i) {
    EXPECT_EQ(p[i], x[i + 1]);
    EXPECT_EQ(y[i + 1], x[i + 1]);
  }
  EXPECT_EQ(y[0], S(5));
  EXPECT_EQ(y[TypeParam::size + 1], S(5));
}

TYPED_TEST(PackTest, BroadcastsToEveryLane) {
  using S = ScalarOf<TypeParam>;
  const TypeParam a = TypeParam::broadcast(S(2.5)), zero = TypeParam::zero();
  const TypeParam minus_zero = TypeParam::broadcast(S(-0.0));
  for (int i = 0; i < TypeParam::size; ++i) {
    EXPECT_EQ(a[i], S(2.5));
    EXPECT_EQ(zero[i], S(0));
    EXPECT_FALSE(std::signbit(zero[i]));
    EXPECT_TRUE(std::signbit(minus_zero[i]));
  }
}

TYPED_TEST(PackTest, ComputesEveryLane) {
  using S = ScalarOf<TypeParam>;
  const auto a = random_pack<TypeParam>(1), b = random_pack<TypeParam>(2);
  const auto c = random_pack<TypeParam>(3);
  const auto sums = a + b, differences = a - b, products = a * b, quotients = a / b;
  const auto fused = fma(a, b, c), lower = min(a, b), upper = max(a, b);
  for (int i = 0; i < TypeParam::size; ++i) {
    EXPECT_EQ(sums[i], a[i] + b[i]);
    EXPECT_EQ(differences[i], a[i] - b[i]);
    EXPECT_EQ(products[i], a[i] * b[i]);
    EXPECT_EQ(quotients[i], a[i] / b[i]);
    EXPECT_EQ(lower[i], std::min(a[i], b[i]));
    EXPECT_EQ(upper[i], std::max(a[i], b[i]));
    EXPECT_NEAR(fused[i], std::fma(a[i], b[i], c[i]), 16 * std::numeric_limits<S>::epsilon());
  }
}

TYPED_TEST(PackTest, SumsTheLanes) {
  using S = ScalarOf<TypeParam>;
  const auto a = random_pack<TypeParam>(4);
  long double expected = 0.0L;
  for (int i = 0; i < TypeParam::size; ++i) expected += a[i];
  EXPECT_NEAR(sum(a), static_cast<S>(expected), 32 * std::numeric_limits<S>::epsilon());
}

TYPED_TEST(PackTest, WidensStoredNumbersExactly) {
  using S = ScalarOf<TypeParam>;
  const auto x = test::random_normal<bfloat16>(TypeParam::size + 1, 5);
  const auto h = test::random_normal<half>(TypeParam::size, 6);
  const auto s = test::random_normal<S>(TypeParam::size, 7);
  const auto from_bfloat = load_as<S, TypeParam::size>(x.data() + 1);
  const auto from_half = load_as<S, TypeParam::size>(h.data());
  const auto same = load_as<S, TypeParam::size>(s.data());
  for (int i = 0; i < TypeParam::size; ++i) {
    EXPECT_EQ(from_bfloat[i], scalar_cast<S>(x[i + 1]));
    EXPECT_EQ(from_half[i], scalar_cast<S>(h[i]));
    EXPECT_EQ(same[i], s[i]);
  }
}

template <class S, int N>
void expect_transposed() {
  const auto x = test::random_uniform<S>(N * N, 8);
  Pack<S, N> rows[N];
  for (int r = 0; r < N; ++r) rows[r] = Pack<S, N>::load(x.data() + r * N);
  transpose(rows);
  for (int r = 0; r < N; ++r)
    for (int c = 0; c < N; ++c) EXPECT_EQ(rows[r][c], x[c * N + r]) << N << " " << r << " " << c;
}

TEST(Pack, TransposesSquares) {
  expect_transposed<float, 4>();
  expect_transposed<float, 8>();
  expect_transposed<float, 16>();
  expect_transposed<double, 2>();
  expect_transposed<double, 4>();
  expect_transposed<double, 8>();
}

TEST(Pack, FillsOneRegister) {
  EXPECT_EQ(sizeof(Pack<float>), std::size_t{kVectorBytes});
  EXPECT_EQ(sizeof(Pack<double>), std::size_t{kVectorBytes});
  EXPECT_EQ(Pack<long double>::size, 1);
}

TEST(Pack, WidensSpecialBfloat16) {
  constexpr int kN = Pack<float>::size;
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float special : {-0.0F, infinity, -infinity, 0x1p-130F}) {
    Buffer<bfloat16> x(kN);
    x.fill(bfloat16(special));
    const auto p = load_as<float, kN>(x.data());
    for (int i = 0; i < kN; ++i) {
      EXPECT_EQ(p[i], special);
      EXPECT_EQ(std::signbit(p[i]), std::signbit(special));
    }
  }
}

}  // namespace
}  // namespace retnet::simd
