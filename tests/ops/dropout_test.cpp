// SPDX-License-Identifier: MIT
#include "retnet/ops/dropout.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "support/compare.hpp"
#include "support/framed.hpp"

namespace retnet {
namespace {

using test::Framed;

template <class S>
class DropoutTest : public testing::Test {
 public:
  Reference reference;
  Cpu two{2};

  template <class Context>
  Framed<S> mask(Context& ctx, double rate, Seed seed, std::uint64_t stream, Index rows = 130,
                 Index cols = 43) {
    Framed<S> x(rows, cols, 1.0);
    dropout(ctx, rate, seed, stream, x.window());
    return x;
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(DropoutTest, Scalars);

TYPED_TEST(DropoutTest, DropsAtTheRateAndScalesTheRest) {
  using S = TypeParam;
  for (const double rate : {0.1, 0.5, 0.9}) {
    const Index rows = 500, cols = 203;
    const auto m = this->mask(this->two, rate, Seed{5}, 6, rows, cols);
    EXPECT_EQ(m.memory[0], S(1));  // the frame
    Index dropped = 0;
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c) {
        const S v = m.window()(r, c);
        dropped += v == S(0);
        EXPECT_TRUE(v == S(0) || v == S(1.0 / (1.0 - rate))) << v;
      }
    const auto n = static_cast<double>(rows * cols);
    EXPECT_NEAR(static_cast<double>(dropped) / n, rate, 5.0 * std::sqrt(rate * (1.0 - rate) / n));
  }
}

TYPED_TEST(DropoutTest, RateZeroChangesNothing) {
  using S = TypeParam;
  auto x = Framed<S>::random(7, 9, 1);
  const auto before = x;
  dropout(this->two, 0.0, Seed{5}, 6, x.window());
  EXPECT_TRUE(test::same_bits(x.memory, before.memory));
}

TYPED_TEST(DropoutTest, MaskDependsOnTheKeyAlone) {
  const auto m = this->mask(this->reference, 0.3, Seed{5}, 6);
  EXPECT_TRUE(test::same_bits(m.memory, this->mask(this->two, 0.3, Seed{5}, 6).memory));
  EXPECT_TRUE(test::same_bits(m.memory, this->mask(this->reference, 0.3, Seed{5}, 6).memory));
  EXPECT_FALSE(test::same_bits(m.memory, this->mask(this->two, 0.3, Seed{6}, 6).memory));
  EXPECT_FALSE(test::same_bits(m.memory, this->mask(this->two, 0.3, Seed{5}, 7).memory));
}

TYPED_TEST(DropoutTest, BackwardDrawsTheSameMask) {
  using S = TypeParam;
  const auto m = this->mask(this->two, 0.3, Seed{5}, 6, 65, 33);
  auto dy = Framed<S>::random(65, 33, 1);
  const auto before = dy;
  dropout(this->two, 0.3, Seed{5}, 6, dy.window());
  for (Index r = 0; r < 65; ++r)
    for (Index c = 0; c < 33; ++c)
      EXPECT_EQ(dy.window()(r, c), before.window()(r, c) * m.window()(r, c));
}

TEST(Dropout, MaskIsTheSameInEveryScalar) {
  Cpu ctx;
  Framed<float> f(20, 21, 1.0);
  Framed<double> d(20, 21, 1.0);
  dropout(ctx, 0.5, Seed{1}, 2, f.window());
  dropout(ctx, 0.5, Seed{1}, 2, d.window());
  EXPECT_EQ(test::relative_error(f.window(), d.window()), 0.0);
}

TEST(DropoutKey, NamesEveryPlaceOnce) {
  std::set<std::uint64_t> streams;
  for (const std::uint64_t step : {0, 1, 2, 1000})
    for (Index layer = 0; layer < 100; ++layer)
      for (Index site = 0; site < 4; ++site)
        streams.insert(DropoutKey{Seed{1}, step}.stream(layer, site));
  EXPECT_EQ(streams.size(), 4U * 100 * 4);
}

}  // namespace
}  // namespace retnet
