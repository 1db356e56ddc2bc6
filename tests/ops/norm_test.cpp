// SPDX-License-Identifier: MIT
#include "retnet/ops/norm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "support/cases.hpp"
#include "support/compare.hpp"
#include "support/custom_scalar.hpp"
#include "support/framed.hpp"
#include "support/gradcheck.hpp"

namespace retnet {
namespace {

using test::Framed;

constexpr double kEps = 1e-5;

enum class Affine { none, shared, per_channel };

struct Case {
  NormKind kind;
  Index rows, groups, width;
  Affine weight, bias;

  Index cols() const { return groups * width; }
  Index size_of(Affine a) const {
    return a == Affine::none ? 0 : (a == Affine::shared ? width : cols());
  }
  std::string text() const {
    return (kind == NormKind::rms ? "rms R" : "layer R") + std::to_string(rows) + " groups " +
           std::to_string(groups) + " width " + std::to_string(width) + " weight " +
           std::to_string(static_cast<int>(weight)) + " bias " +
           std::to_string(static_cast<int>(bias));
  }
};

template <class F>
void for_cases(F&& f) {
  for (const NormKind kind : {NormKind::rms, NormKind::layer})
    for (const Affine weight : {Affine::none, Affine::shared, Affine::per_channel})
      for (const Affine bias : {Affine::none, Affine::shared, Affine::per_channel})
        for (const auto& [rows, width] : test::kRowShapes)
          for (const Index groups : {1, 3}) f(Case{kind, rows, groups, width, weight, bias});
}

template <class S>
Window<S> row_of(Buffer<S>& b) {
  return {b.empty() ? nullptr : b.data(), 1, b.size()};
}
template <class S>
Window<const S> row_of(const Buffer<S>& b) {
  return {b.empty() ? nullptr : b.data(), 1, b.size()};
}

template <class S, class W>
Framed<S> expected_norm(const Case& c, Window<const S> x, const Buffer<W>& w, const Buffer<W>& b) {
  Framed<S> y(x.rows, x.cols);
  for (Index r = 0; r < x.rows; ++r)
    for (Index g = 0; g < c.groups; ++g) {
      long double mean = 0.0L, squares = 0.0L;
      for (Index i = 0; i < c.width && c.kind == NormKind::layer; ++i)
        mean += scalar_cast<double>(x(r, g * c.width + i));
      mean /= static_cast<long double>(c.width);
      for (Index i = 0; i < c.width; ++i) {
        const long double d = scalar_cast<double>(x(r, g * c.width + i)) - mean;
        squares += d * d;
      }
      const long double root = std::sqrt(squares / static_cast<long double>(c.width) + kEps);
      for (Index i = 0; i < c.width; ++i) {
        const Index j = g * c.width + i;
        long double v = (scalar_cast<double>(x(r, j)) - mean) / root;
        if (!w.empty()) v *= scalar_cast<double>(w[j % w.size()]);
        if (!b.empty()) v += scalar_cast<double>(b[j % b.size()]);
        y.window()(r, j) = scalar_cast<S>(static_cast<double>(v));
      }
    }
  return y;
}

template <class S>
class NormTest : public testing::Test {
 public:
  Reference reference;
  Cpu two{2};

  template <class W>
  void expect_definition() {
    for_cases([&](const Case& c) {
      const auto x = Framed<S>::random(c.rows, c.cols(), 1, -2.0, 3.0);
      const auto w = test::random_uniform<W>(c.size_of(c.weight), 2);
      const auto b = test::random_uniform<W>(c.size_of(c.bias), 3);
      const auto expected = expected_norm(c, x.window(), w, b);
      Framed<S> y(c.rows, c.cols(), 4.0), cpu_y = y;
      norm(reference, c.kind, kEps, c.groups, row_of(w), row_of(b), x.window(), y.window());
      norm(two, c.kind, kEps, c.groups, row_of(w), row_of(b), x.window(), cpu_y.window());
      EXPECT_LT(test::relative_error(y.window(), expected.window()), test::tolerance<S>())
          << c.text();
      EXPECT_TRUE(y.frame_is(4.0)) << c.text();
      EXPECT_TRUE(test::same_bits(y.memory, cpu_y.memory)) << c.text();
      auto in_place = x;
      norm(two, c.kind, kEps, c.groups, row_of(w), row_of(b), Window<const S>(in_place.window()),
           in_place.window());
      EXPECT_TRUE(test::same_bits(in_place.window(), y.window())) << c.text();
    });
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(NormTest, Scalars);

TYPED_TEST(NormTest, IsTheDefinition) { this->template expect_definition<TypeParam>(); }
TYPED_TEST(NormTest, TakesBfloat16Weights) { this->template expect_definition<bfloat16>(); }

TYPED_TEST(NormTest, ConstantRowsAreFinite) {
  using S = TypeParam;
  const auto x = test::filled<S>(20, 3.0);
  Buffer<S> y(20);
  const Window<const S> none;
  norm(this->reference, NormKind::layer, kEps, 1, none, none, Window<const S>(x.data(), 1, 20),
       Window<S>(y.data(), 1, 20));
  for (const S v : y) EXPECT_NEAR(v, 0.0, 1e-3);
  norm(this->reference, NormKind::rms, kEps, 1, none, none, Window<const S>(x.data(), 1, 20),
       Window<S>(y.data(), 1, 20));
  for (const S v : y) EXPECT_NEAR(v, 1.0, 1e-5);
}

TYPED_TEST(NormTest, BackwardIsTheSameForEveryNumberOfThreadsAndInPlace) {
  using S = TypeParam;
  for_cases([&](const Case& c) {
    const auto x = Framed<S>::random(c.rows, c.cols(), 1),
               dy = Framed<S>::random(c.rows, c.cols(), 2);
    const auto w = test::random_uniform<S>(c.size_of(c.weight), 3);
    const auto run = [&](auto& ctx, Window<const S> d_y, Window<S> dx, Buffer<S>& dw,
                         Buffer<S>& db) {
      norm_backward(ctx, c.kind, kEps, c.groups, row_of(w), x.window(), d_y, row_of(dw), row_of(db),
                    dx);
    };
    const auto start_w = test::random_uniform<S>(c.size_of(c.weight), 4);
    const auto start_b = test::random_uniform<S>(c.size_of(c.bias), 5);
    auto dw = start_w, db = start_b, two_dw = start_w, two_db = start_b;
    Framed<S> dx(c.rows, c.cols(), 4.0);
    run(this->reference, dy.window(), dx.window(), dw, db);
    EXPECT_TRUE(dx.frame_is(4.0)) << c.text();
    auto in_place = dy;
    run(this->two, Window<const S>(in_place.window()), in_place.window(), two_dw, two_db);
    EXPECT_TRUE(test::same_bits(in_place.window(), dx.window())) << c.text();
    EXPECT_TRUE(test::same_bits(two_dw, dw)) << c.text();
    EXPECT_TRUE(test::same_bits(two_db, db)) << c.text();
  });
}

TYPED_TEST(NormTest, BackwardAddsOnRequest) {
  using S = TypeParam;
  const Case c{NormKind::layer, 5, 3, 7, Affine::per_channel, Affine::per_channel};
  const auto x = Framed<S>::random(c.rows, c.cols(), 1),
             dy = Framed<S>::random(c.rows, c.cols(), 2);
  const auto w = test::random_uniform<S>(c.cols(), 3);
  auto dx = Framed<S>::random(c.rows, c.cols(), 4), sum = dx, expected = dx;
  Buffer<S> none;
  norm_backward(this->two, c.kind, kEps, c.groups, row_of(w), x.window(), dy.window(), row_of(none),
                row_of(none), dx.window());
  norm_backward(this->two, c.kind, kEps, c.groups, row_of(w), x.window(), dy.window(), row_of(none),
                row_of(none), sum.window(), S(0.5));
  for (Index r = 0; r < c.rows; ++r)
    for (Index j = 0; j < c.cols(); ++j)
      expected.window()(r, j) = S(0.5) * expected.window()(r, j) + dx.window()(r, j);
  EXPECT_LT(test::relative_error(sum.window(), expected.window()), test::tolerance<S>());
}

TEST(Norm, GradientsEqualFiniteDifferences) {
  Cpu ctx;
  for (const NormKind kind : {NormKind::rms, NormKind::layer})
    for (const Affine weight : {Affine::none, Affine::shared, Affine::per_channel})
      for (const Affine bias : {Affine::none, weight})
        for (const Index groups : {1, 3}) {
          const Case c{kind, 4, groups, 5, weight, bias};
          auto x = test::random_uniform<double>(c.rows * c.cols(), 1);
          auto w = test::random_uniform<double>(c.size_of(weight), 2);
          auto b = test::random_uniform<double>(c.size_of(bias), 3);
          const auto dy = test::random_uniform<double>(x.size(), 4);
          const Window<const double> xw(x.data(), c.rows, c.cols());
          const auto loss = [&] {
            Buffer<double> y(x.size());
            norm(ctx, kind, kEps, groups, row_of(std::as_const(w)), row_of(std::as_const(b)), xw,
                 Window<double>(y.data(), c.rows, c.cols()));
            return simd::dot(y.data(), dy.data(), y.size());
          };
          Buffer<double> dx(x.size());
          auto dw = test::filled<double>(w.size(), 0.0), db = test::filled<double>(b.size(), 0.0);
          norm_backward(ctx, kind, kEps, groups, row_of(std::as_const(w)), xw,
                        Window<const double>(dy.data(), c.rows, c.cols()), row_of(dw), row_of(db),
                        Window<double>(dx.data(), c.rows, c.cols()));
          EXPECT_LT(test::gradient_error(x.span(), dx.span(), loss), 1e-6) << c.text();
          if (!w.empty()) {
            EXPECT_LT(test::gradient_error(w.span(), dw.span(), loss), 1e-6) << c.text();
          }
          if (!b.empty()) {
            EXPECT_LT(test::gradient_error(b.span(), db.span(), loss), 1e-6) << c.text();
          }
        }
}

TEST(Norm, OtherScalarsAgree) {
  using S = test::Custom;
  const Case c{NormKind::layer, 3, 2, 7, Affine::per_channel, Affine::per_channel};
  const auto x = Framed<S>::random(c.rows, c.cols(), 1);
  const auto w = test::random_uniform<S>(c.cols(), 2), b = test::random_uniform<S>(c.cols(), 3);
  Framed<S> y(c.rows, c.cols());
  Cpu ctx;
  norm(ctx, c.kind, kEps, c.groups, row_of(w), row_of(b), x.window(), y.window());
  EXPECT_LT(test::relative_error(y.window(), expected_norm(c, x.window(), w, b).window()), 1e-14);
}

}  // namespace
}  // namespace retnet
