// SPDX-License-Identifier: MIT
#include "retnet/simd/vector.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/compare.hpp"
#include "support/random.hpp"

namespace retnet::simd {
namespace {

constexpr Index kLongest = 70;  // whole packs in twos, a single pack, and every tail
constexpr double kUntouched = 99.0;

template <class S>
class VectorTest : public testing::Test {
 public:
  const Buffer<S> a = test::random_uniform<S>(kLongest + 2, 1);
  const Buffer<S> b = test::random_uniform<S>(kLongest + 2, 2);
  static constexpr double kError = 16 * double(std::numeric_limits<S>::epsilon());

  /// Runs f on b[0..n) and compares with expected(a_i, b_i); the next element stays as it was.
  template <class F, class Expected>
  void expect_elementwise(F&& f, Expected&& expected) {
    for (Index n = 0; n <= kLongest; ++n) {
      Buffer<S> y = b;
      y[n] = S(kUntouched);
      f(a.data(), y.data(), n);
      for (Index i = 0; i < n; ++i) {
        const S error = y[i] - expected(a[i], b[i]);
        EXPECT_LT(std::fabs(static_cast<double>(error)), kError) << n << " " << i;
      }
      EXPECT_EQ(y[n], S(kUntouched)) << n;
    }
  }
};
using Scalars = testing::Types<float, double, long double>;
TYPED_TEST_SUITE(VectorTest, Scalars);

TYPED_TEST(VectorTest, Dot) {
  using S = TypeParam;
  for (Index n = 0; n <= kLongest; ++n) {
    long double expected = 0.0L;
    for (Index i = 0; i < n; ++i)
      expected += static_cast<long double>(this->a[i]) * static_cast<long double>(this->b[i]);
    const S given = dot(this->a.data(), this->b.data(), n);
    EXPECT_NEAR(static_cast<double>(given), static_cast<double>(expected), this->kError) << n;
  }
}

TYPED_TEST(VectorTest, DotDoesNotDependOnAlignmentOrNeighbours) {
  using S = TypeParam;
  for (Index n = 0; n <= kLongest; ++n) {
    auto x = test::filled<S>(kLongest + 3, std::numeric_limits<double>::quiet_NaN()), y = x;
    for (Index i = 0; i < n; ++i) x[i + 1] = this->a[i], y[i + 2] = this->b[i];
    EXPECT_EQ(dot(x.data() + 1, y.data() + 2, n), dot(this->a.data(), this->b.data(), n)) << n;
  }
}

TYPED_TEST(VectorTest, Axpy) {
  using S = TypeParam;
  this->expect_elementwise([](const S* x, S* y, Index n) { axpy(S(0.75), x, y, n); },
                           [](S x, S y) { return S(0.75) * x + y; });
}

TYPED_TEST(VectorTest, Scale) {
  using S = TypeParam;
  this->expect_elementwise([](const S* x, S* y, Index n) { scale(S(-1.5), x, y, n); },
                           [](S x, S) { return S(-1.5) * x; });
}

TYPED_TEST(VectorTest, Add) {
  using S = TypeParam;
  this->expect_elementwise([](const S* x, S* y, Index n) { add(x, y, n); },
                           [](S x, S y) { return x + y; });
}

TYPED_TEST(VectorTest, ForEachPackVisitsEveryElementOnce) {
  using S = TypeParam;
  for (Index n = 0; n <= kLongest; ++n) {
    Buffer<S> visits(n + 1);
    visits.fill(S(0));
    for_each_pack<S>(n, [&](auto p, Index i) {
      using P = decltype(p);
      (P::load(visits.data() + i) + P::broadcast(S(1))).store(visits.data() + i);
    });
    for (Index i = 0; i < n; ++i) EXPECT_EQ(visits[i], S(1));
    EXPECT_EQ(visits[n], S(0));
  }
}

}  // namespace
}  // namespace retnet::simd
