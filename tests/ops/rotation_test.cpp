// SPDX-License-Identifier: MIT
#include "retnet/ops/rotation.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "support/compare.hpp"
#include "support/custom_scalar.hpp"
#include "support/framed.hpp"
#include "support/gradcheck.hpp"

namespace retnet {
namespace {

using test::Framed;

constexpr RotationLayout kLayouts[] = {RotationLayout::none, RotationLayout::interleaved,
                                       RotationLayout::half_split};
constexpr double kBase = 10000.0;

TEST(Theta, InclusiveReachesTheEndPoint) {
  const auto theta = theta_inclusive(16, kBase);
  ASSERT_EQ(theta.size(), 8U);
  EXPECT_EQ(theta.front(), 1.0);
  EXPECT_NEAR(theta.back() * kBase, 1.0, 1e-14);
  for (std::size_t i = 0; i < theta.size(); ++i)
    EXPECT_NEAR(theta[i], std::pow(kBase, -static_cast<double>(i) / 7.0), 1e-15);
  EXPECT_EQ(theta_inclusive(2, kBase), std::vector<double>{1.0});
}

TEST(Theta, RotaryIsTheUsualOne) {
  const auto theta = theta_rotary(16, kBase);
  ASSERT_EQ(theta.size(), 8U);
  for (std::size_t i = 0; i < theta.size(); ++i)
    EXPECT_NEAR(theta[i], std::pow(kBase, -2.0 * static_cast<double>(i) / 16.0), 1e-15);
}

struct Problem {
  Index heads = 3, key_dim = 20;
  RotationLayout layout = RotationLayout::interleaved;
  std::vector<double> theta = theta_inclusive(20, kBase);
  RowScale scale;
  bool inverse = false;

  double xpos_base = 0.0;

  /// Dimensions that turn.
  Index rotary() const { return 2 * static_cast<Index>(theta.size()); }
  RotationTable table() const {
    RotationTable t(layout, theta);
    if (xpos_base > 0.0) t.set_xpos(log_xpos(rotary(), xpos_base));
    return t;
  }

  /// One row by the definition, in long double.
  template <class S>
  void expected_row(std::int64_t n, const S* x, S* y) const {
    for (Index h = 0; h < heads; ++h) {
      long double factor = scale.constant;
      if (!scale.log_gamma.empty())
        factor /= std::sqrt(static_cast<long double>(
            decay_row_sum(scale.log_gamma[static_cast<std::size_t>(h)], n)));
      const S* in = x + h * key_dim;
      S* out = y + h * key_dim;
      const Index pairs = rotary() / 2;
      for (Index i = rotary(); i < key_dim; ++i) out[i] = static_cast<S>(factor * in[i]);
      for (Index i = 0; i < pairs; ++i) {
        const bool neighbours = layout == RotationLayout::interleaved;
        const Index first = neighbours ? 2 * i : i, second = neighbours ? 2 * i + 1 : i + pairs;
        long double a = static_cast<long double>(n) * theta[static_cast<std::size_t>(i)];
        if (inverse) a = -a;
        if (layout == RotationLayout::none) a = 0.0L;
        const long double c = std::cos(a), s = std::sin(a), x0 = in[first], x1 = in[second];
        long double zeta = 1.0L;  // Sun et al. 2022, with gamma = 0.4
        if (xpos_base > 0.0)
          zeta = std::pow((2.0L * i + 0.4L * rotary()) / (1.4L * rotary()),
                          scale.xpos * static_cast<long double>(n) / xpos_base);
        out[first] = static_cast<S>(factor * zeta * (x0 * c - x1 * s));
        out[second] = static_cast<S>(factor * zeta * (x1 * c + x0 * s));
      }
    }
  }
};

template <class S>
class RotateTest : public testing::Test {
 public:
  Reference reference;
  Cpu two{2};

  template <class Context>
  Framed<S> rotated(Context& ctx, const Problem& p, const Sequences& sequences,
                    const std::int64_t* positions, const Framed<S>& x) {
    Framed<S> y(x.rows, x.cols, 4.0);
    rotate(ctx, p.table(), p.scale, p.heads, sequences, positions, x.window(), y.window(),
           p.inverse);
    return y;
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(RotateTest, Scalars);

// Part of each head turns, under the xPos scale of queries and of keys.
TYPED_TEST(RotateTest, PartialRotationAndXposAreTheDefinition) {
  using S = TypeParam;
  const Index tokens = 70;
  const std::array<std::int64_t, 1> positions{300};
  const auto sequences = Sequences::dense(1, tokens);
  for (const auto layout : {RotationLayout::interleaved, RotationLayout::half_split})
    for (const Index rotary : {2, 8, 20})
      for (const double base : {0.0, 512.0})
        for (const double xpos : {1.0, -1.0})
          for (const bool inverse : {false, true}) {
            Problem p;
            p.layout = layout, p.inverse = inverse, p.scale = {0.25, {}, xpos};
            p.theta = theta_rotary(rotary, kBase), p.xpos_base = base;
            const auto x = Framed<S>::random(tokens, p.heads * p.key_dim, 1);
            const auto y = this->rotated(this->two, p, sequences, positions.data(), x);
            EXPECT_TRUE(y.frame_is(4.0));
            std::vector<S> expected(static_cast<std::size_t>(x.cols));
            for (Index r = 0; r < tokens; ++r) {
              p.expected_row(300 + r, x.window().row(r), expected.data());
              EXPECT_LE(test::relative_error(
                            std::span<const S>(y.window().row(r), expected.size()),
                            std::span<const S>(expected)),
                        (std::is_same_v<S, float> ? 3e-7 : 2e-14));
            }
          }
}

// What a score sees of the xPos scale is the distance alone.
TEST(Xpos, ScoresDecayWithTheDistance) {
  Problem p;
  p.heads = 1, p.key_dim = 2, p.theta = {0.0}, p.xpos_base = 512.0;
  const auto sequences = Sequences::dense(1, 1);
  Reference ctx;
  const auto at = [&](std::int64_t n, double xpos) {
    const double one[] = {1.0, 0.0};
    double y[2];
    rotate(ctx, p.table(), {1.0, {}, xpos}, 1, sequences, &n, Window<const double>(one, 1, 2),
           Window<double>(y, 1, 2));
    return y[0];
  };
  const double zeta = 0.4 / 1.4;
  for (const std::int64_t m : {0, 1000, 20000})
    EXPECT_NEAR(at(m + 512, 1.0) * at(m, -1.0), zeta, 1e-10);
}

TYPED_TEST(RotateTest, IsTheDefinitionAtSmallAndLargePositions) {
  using S = TypeParam;
  const auto log_gamma = log_gamma_pow2(3);
  const Index tokens = 130;
  const std::array<std::int64_t, 2> positions{0, 1'000'037};
  const auto sequences = Sequences::dense(2, tokens);
  for (const auto layout : kLayouts)
    for (const bool inverse : {false, true})
      for (const bool row_sums : {false, true}) {
        Problem p;
        p.layout = layout, p.inverse = inverse, p.scale.constant = 0.25;
        if (row_sums) p.scale.log_gamma = log_gamma;
        const auto x = Framed<S>::random(2 * tokens, p.heads * p.key_dim, 1);
        const auto y = this->rotated(this->two, p, sequences, positions.data(), x);
        EXPECT_TRUE(y.frame_is(4.0));
        EXPECT_TRUE(test::same_bits(
            y.memory, this->rotated(this->reference, p, sequences, positions.data(), x).memory));
        for (Index b = 0; b < 2; ++b) {
          Framed<S> expected(tokens, x.cols);
          for (Index t = 0; t < tokens; ++t)
            p.expected_row(positions[static_cast<std::size_t>(b)] + t,
                           x.window().row(b * tokens + t), expected.window().row(t));
          // An angle near 10^6 is known to half an ulp of 10^6: 6e-11.
          const double bound = std::is_same_v<S, float> ? 1e-6 : (b == 0 ? 1e-13 : 2e-10);
          EXPECT_LT(test::relative_error(y.window().row_block(b * tokens, tokens),
                                         Window<const S>(expected.window())),
                    bound)
              << "layout " << static_cast<int>(layout) << " sequence " << b;
        }
      }
}

TYPED_TEST(RotateTest, InverseTurnsBack) {
  using S = TypeParam;
  const std::array<std::int64_t, 1> positions{12345};
  const auto sequences = Sequences::dense(1, 70);
  for (const auto layout : kLayouts) {
    Problem p;
    p.layout = layout;
    const auto x = Framed<S>::random(70, p.heads * p.key_dim, 1);
    const auto y = this->rotated(this->two, p, sequences, positions.data(), x);
    p.inverse = true;
    const auto back = this->rotated(this->two, p, sequences, positions.data(), y);
    EXPECT_LT(test::relative_error(back.window(), x.window()),
              8 * double(std::numeric_limits<S>::epsilon()));
  }
}

// A chunk, a whole sequence and a single generated token must turn by the very same angle.
TYPED_TEST(RotateTest, BitsDoNotDependOnHowRowsAreGrouped) {
  using S = TypeParam;
  const Index tokens = 200;
  for (const std::int64_t start : {std::int64_t{0}, std::int64_t{63}, std::int64_t{999'999}}) {
    Problem p;
    p.layout = RotationLayout::half_split;
    const auto log_gamma = log_gamma_pow2(3);
    p.scale = {0.5, log_gamma};
    const auto x = Framed<S>::random(tokens, p.heads * p.key_dim, 1);
    const auto all = this->rotated(this->two, p, Sequences::dense(1, tokens), &start, x);
    for (const Index step : {1, 3, 64, 150}) {
      Framed<S> parts(tokens, x.cols, 4.0);
      for (Index first = 0; first < tokens; first += step) {
        const Index rows = std::min(step, tokens - first);
        const std::int64_t position = start + first;
        rotate(this->two, p.table(), p.scale, p.heads, Sequences::dense(1, rows), &position,
               x.window().row_block(first, rows), parts.window().row_block(first, rows));
      }
      EXPECT_TRUE(test::same_bits(all.memory, parts.memory)) << start << " by " << step;
    }
  }
}

TYPED_TEST(RotateTest, WritesInPlaceAndLeavesPadding) {
  using S = TypeParam;
  const std::array<Index, 3> padding{0, 5, 2};
  const std::array<std::int64_t, 3> positions{0, 0, 7};
  const auto sequences = Sequences::left_padded(3, 6, padding);
  Problem p;
  auto x = Framed<S>::random(18, p.heads * p.key_dim, 1);
  const auto y = this->rotated(this->two, p, sequences, positions.data(), x);
  const auto before = x;
  rotate(this->two, p.table(), p.scale, p.heads, sequences, positions.data(),
         Window<const S>(x.window()), x.window());
  for (Index b = 0; b < 3; ++b)
    for (Index t = 0; t < 6; ++t) {
      const Index r = b * 6 + t;
      const bool padded = t < padding[static_cast<std::size_t>(b)];
      const auto row = x.window().row_block(r, 1);
      EXPECT_TRUE(test::same_bits(
          row, padded ? before.window().row_block(r, 1) : y.window().row_block(r, 1)));
      for (Index c = 0; padded && c < x.cols; ++c) EXPECT_EQ(y.window()(r, c), S(4));
    }
}

TEST(Rotate, InverseIsTheBackward) {
  Cpu ctx;
  const std::array<std::int64_t, 2> positions{3, 100};
  const auto sequences = Sequences::dense(2, 4);
  const auto log_gamma = log_gamma_pow2(2);
  for (const auto layout : kLayouts) {
    const RotationTable table(layout, theta_rotary(6, kBase));
    const RowScale scale{0.5, log_gamma};
    auto x = test::random_uniform<double>(8 * 12, 1);
    const auto dy = test::random_uniform<double>(8 * 12, 2);
    const auto loss = [&] {
      Buffer<double> y(x.size());
      rotate(ctx, table, scale, 2, sequences, positions.data(),
             Window<const double>(x.data(), 8, 12), Window<double>(y.data(), 8, 12));
      return simd::dot(y.data(), dy.data(), y.size());
    };
    auto dx = dy;
    rotate(ctx, table, scale, 2, sequences, positions.data(),
           Window<const double>(dx.data(), 8, 12), Window<double>(dx.data(), 8, 12), true);
    EXPECT_LT(test::gradient_error(x.span(), std::as_const(dx).span(), loss), 1e-6);
  }
}

TEST(Rotate, OtherScalarsAgree) {
  Cpu ctx;
  const RotationTable table(RotationLayout::interleaved, theta_rotary(6, kBase));
  const std::int64_t position = 99;
  const auto sequences = Sequences::dense(1, 5);
  const auto x = Framed<test::Custom>::random(5, 12, 1);
  const auto wide = Framed<double>::random(5, 12, 1);
  Framed<test::Custom> y(5, 12);
  Framed<double> wide_y(5, 12);
  rotate(ctx, table, RowScale{}, 2, sequences, &position, x.window(), y.window());
  rotate(ctx, table, RowScale{}, 2, sequences, &position, wide.window(), wide_y.window());
  EXPECT_LT(test::relative_error(y.window(), wide_y.window()), 1e-14);
}

}  // namespace
}  // namespace retnet
