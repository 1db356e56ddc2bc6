// SPDX-License-Identifier: MIT
#include "retnet/ops/linear.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/compare.hpp"
#include "support/custom_scalar.hpp"
#include "support/framed.hpp"
#include "support/gradcheck.hpp"

namespace retnet {
namespace {

using test::Framed;

struct Shape {
  Index rows, in, out;
};
constexpr Shape kShapes[] = {{1, 1, 1},     {1, 7, 3},     {2, 16, 5},    {1, 64, 66},
                             {3, 33, 64},   {65, 20, 43},  {64, 64, 129}, {1, 300, 257},
                             {4, 257, 130}, {7, 600, 9},   {16, 1030, 6}, {33, 520, 97},
                             {300, 515, 8}, {1, 4200, 21}, {3, 2100, 35}, {11, 1601, 19}};

template <class S, class W>
Framed<S> expected_linear(Window<const W> weight, Window<const W> bias, Window<const S> x) {
  Framed<S> y(x.rows, weight.rows, 4.0);
  for (Index r = 0; r < x.rows; ++r)
    for (Index n = 0; n < weight.rows; ++n) {
      double sum = bias.empty() ? 0.0 : scalar_cast<double>(bias(0, n));
      for (Index k = 0; k < x.cols; ++k)
        sum += scalar_cast<double>(x(r, k)) * scalar_cast<double>(weight(n, k));
      y.window()(r, n) = scalar_cast<S>(sum);
    }
  return y;
}

template <class S>
class LinearTest : public testing::Test {
 public:
  Reference reference;
  Cpu one{1}, two{2};

  template <class W>
  void expect_definition() {
    for (const auto& [rows, in, out] : kShapes) {
      const auto x = Framed<S>::random(rows, in, 1);
      const auto weight = Framed<W>::random(out, in, 2);
      const auto bias = Framed<W>::random(1, out, 3);
      for (const auto& b : {Window<const W>(), bias.window()}) {
        const auto expected = expected_linear(weight.window(), b, x.window());
        const auto check = [&](auto& ctx, bool single_token) {
          Framed<S> y(rows, out, 4.0);
          linear(ctx, weight.window(), b, x.window(), y.window(), single_token);
          EXPECT_LT(test::relative_error(y.window(), expected.window()), test::tolerance<S>())
              << rows << "x" << in << "x" << out << " single token " << single_token;
          EXPECT_TRUE(y.frame_is(4.0));
        };
        for (const bool single_token : {false, true}) {
          check(reference, single_token);
          check(one, single_token);
          check(two, single_token);
        }
      }
    }
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(LinearTest, Scalars);

TYPED_TEST(LinearTest, IsTheDefinition) { this->template expect_definition<TypeParam>(); }
TYPED_TEST(LinearTest, TakesBfloat16Weights) { this->template expect_definition<bfloat16>(); }
TYPED_TEST(LinearTest, TakesHalfWeights) { this->template expect_definition<half>(); }

TYPED_TEST(LinearTest, ATokenHasItsOwnPathOnTheCpu) {
  using S = TypeParam;
  std::vector<const char*> trace;
  this->one.trace = this->reference.trace = &trace;
  const auto x = Framed<S>::random(2, 8, 1), weight = Framed<S>::random(5, 8, 2);
  Framed<S> y(2, 5);
  linear(this->reference, weight.window(), Window<const S>(), x.window(), y.window(), true);
  EXPECT_TRUE(trace.empty());
  linear(this->one, weight.window(), Window<const S>(), x.window(), y.window(), false);
  linear(this->one, weight.window(), Window<const S>(), x.window(), y.window(), true);
  EXPECT_EQ(std::vector<std::string>(trace.begin(), trace.end()),
            (std::vector<std::string>{"linear: panels of tokens", "linear: single token"}));
}

TYPED_TEST(LinearTest, BitsOfATokenDependNeitherOnTheBatchNorOnTheThreads) {
  using S = TypeParam;
  const Index rows = 37, in = 1100, out = 257;
  const auto x = Framed<S>::random(rows, in, 1), weight = Framed<S>::random(out, in, 2);
  const Window<const S> none;
  for (const bool single_token : {false, true}) {
    Framed<S> all(rows, out), threads(rows, out), alone(rows, out);
    linear(this->one, weight.window(), none, x.window(), all.window(), single_token);
    linear(this->two, weight.window(), none, x.window(), threads.window(), single_token);
    for (Index r = 0; r < rows; ++r)
      linear(this->two, weight.window(), none, x.window().row_block(r, 1),
             alone.window().row_block(r, 1), single_token);
    EXPECT_TRUE(test::same_bits(all.memory, threads.memory));
    EXPECT_TRUE(test::same_bits(all.memory, alone.memory));
  }
}

TYPED_TEST(LinearTest, BackwardIsTheSameInEveryContext) {
  using S = TypeParam;
  for (const auto& [rows, in, out] : kShapes) {
    const auto x = Framed<S>::random(rows, in, 1), weight = Framed<S>::random(out, in, 2);
    const auto dy = Framed<S>::random(rows, out, 3);
    const auto run = [&](auto& ctx, auto& dw, auto& db, auto& dx) {
      linear_backward(ctx, weight.window(), x.window(), dy.window(), dw.window(), db.window(),
                      dx.window(), S(0.5));
    };
    auto dw = Framed<S>::random(out, in, 4), db = Framed<S>::random(1, out, 5);
    auto dx = Framed<S>::random(rows, in, 6);
    auto cpu_dw = dw, cpu_db = db, cpu_dx = dx;
    run(this->reference, dw, db, dx);
    run(this->two, cpu_dw, cpu_db, cpu_dx);
    EXPECT_LT(test::relative_error(cpu_dw.window(), dw.window()), test::tolerance<S>());
    EXPECT_LT(test::relative_error(cpu_db.window(), db.window()), test::tolerance<S>());
    EXPECT_LT(test::relative_error(cpu_dx.window(), dx.window()), test::tolerance<S>());
    EXPECT_TRUE(cpu_dw.frame_is(test::kNaN) && cpu_dx.frame_is(test::kNaN));
  }
}

TYPED_TEST(LinearTest, BackwardSkipsWhatIsNotAsked) {
  using S = TypeParam;
  const auto x = Framed<S>::random(3, 4, 1), weight = Framed<S>::random(5, 4, 2);
  const auto dy = Framed<S>::random(3, 5, 3);
  Framed<S> dx(3, 4), all_dx(3, 4);
  auto dw = Framed<S>(5, 4, 0.0), db = Framed<S>(1, 5, 0.0), only_dw = dw;
  const Window<S> none;
  linear_backward(this->one, weight.window(), x.window(), dy.window(), dw.window(), db.window(),
                  all_dx.window());
  linear_backward(this->one, weight.window(), x.window(), dy.window(), none, none, dx.window());
  linear_backward(this->one, weight.window(), x.window(), dy.window(), only_dw.window(), none,
                  none);
  EXPECT_TRUE(test::same_bits(dx.memory, all_dx.memory));
  EXPECT_TRUE(test::same_bits(only_dw.memory, dw.memory));
}

TEST(Linear, GradientsEqualFiniteDifferences) {
  const Index rows = 4, in = 6, out = 5;
  auto x = test::random_uniform<double>(rows * in, 1),
       w = test::random_uniform<double>(out * in, 2);
  auto b = test::random_uniform<double>(out, 3);
  const auto dy = test::random_uniform<double>(rows * out, 4);
  const Window<const double> xw(x.data(), rows, in), ww(w.data(), out, in), bw(b.data(), 1, out);
  Cpu ctx;
  const auto loss = [&] {
    Buffer<double> y(rows * out);
    linear(ctx, ww, bw, xw, Window<double>(y.data(), rows, out));
    return simd::dot(y.data(), dy.data(), y.size());
  };
  Buffer<double> dx(rows * in);
  auto dw = test::filled<double>(out * in, 0.0), db = test::filled<double>(out, 0.0);
  linear_backward(ctx, ww, xw, Window<const double>(dy.data(), rows, out),
                  Window<double>(dw.data(), out, in), Window<double>(db.data(), 1, out),
                  Window<double>(dx.data(), rows, in));
  EXPECT_LT(test::gradient_error(x.span(), dx.span(), loss), 1e-6);
  EXPECT_LT(test::gradient_error(w.span(), dw.span(), loss), 1e-6);
  EXPECT_LT(test::gradient_error(b.span(), db.span(), loss), 1e-6);
}

TEST(Linear, OtherScalarsRunTheLoops) {
  using S = test::Custom;
  const auto x = Framed<S>::random(3, 7, 1), weight = Framed<S>::random(5, 7, 2);
  const auto bias = Framed<S>::random(1, 5, 3);
  Cpu ctx(2);
  for (const bool single_token : {false, true}) {
    Framed<S> y(3, 5);
    linear(ctx, weight.window(), bias.window(), x.window(), y.window(), single_token);
    const auto expected = expected_linear(weight.window(), bias.window(), x.window());
    EXPECT_LT(test::relative_error(y.window(), expected.window()), 1e-14);
  }
}

}  // namespace
}  // namespace retnet
