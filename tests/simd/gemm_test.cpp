// SPDX-License-Identifier: MIT
#include "retnet/simd/gemm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "support/cases.hpp"
#include "support/compare.hpp"
#include "support/framed.hpp"
#include "support/random.hpp"

namespace retnet {
namespace {

using test::Framed;
using test::kNaN;

enum class Kind { nn, nt, tn };

template <class Context, class S, class TA, class TB>
void gemm(Context& ctx, Kind kind, S alpha, Window<TA> a, Window<TB> b, S beta, Window<S> c) {
  if (kind == Kind::nn) gemm_nn(ctx, alpha, a, b, beta, c);
  if (kind == Kind::nt) gemm_nt(ctx, alpha, a, b, beta, c);
  if (kind == Kind::tn) gemm_tn(ctx, alpha, a, b, beta, c);
}

struct Shape {
  Index m, n, k;
  Kind kind;
  std::string text() const {
    return "M" + std::to_string(m) + " N" + std::to_string(n) + " K" + std::to_string(k) +
           " kind " + std::to_string(static_cast<int>(kind));
  }
};

template <class T>
Framed<T> operand_a(const Shape& s) {
  Framed<T> a(s.kind == Kind::tn ? s.k : s.m, s.kind == Kind::tn ? s.m : s.k, kNaN);
  a.fill(1);
  return a;
}
template <class T>
Framed<T> operand_b(const Shape& s) {
  Framed<T> b(s.kind == Kind::nt ? s.n : s.k, s.kind == Kind::nt ? s.k : s.n, kNaN);
  b.fill(2);
  return b;
}

/// Every pair (M, N), each with a K of its own, for the three products.
template <class F>
void for_shapes(F&& f) {
  const auto& sizes = test::kProductSizes;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    for (std::size_t j = 0; j < sizes.size(); ++j)
      for (const Kind kind : {Kind::nn, Kind::nt, Kind::tn})
        f(Shape{sizes[i], sizes[j], sizes[(3 * i + 2 * j + 1) % sizes.size()], kind});
}

template <class S>
class GemmTest : public testing::Test {
 public:
  Reference reference;
  Cpu one{1}, two{2};
  Workspace scratch;
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(GemmTest, Scalars);

TYPED_TEST(GemmTest, EqualsTheLoopsAndWritesNothingElse) {
  using S = TypeParam;
  constexpr double kScales[][2] = {{1.0, 0.0}, {1.0, 1.0}, {0.5, 1.0}, {-2.0, 0.25}, {0.0, 0.5}};
  int count = 0;
  for_shapes([&](const Shape& s) {
    const auto [alpha, beta] = kScales[count++ % 5];
    auto a = operand_a<S>(s), b = operand_b<S>(s);
    Framed<S> start(s.m, s.n, 4.0);
    if (beta == 0.0) {  // what beta = 0 overwrites may be anything
      for (Index r = 0; r < s.m; ++r) std::fill_n(start.window().row(r), s.n, S(kNaN));
    } else {
      start.fill(3);
    }
    auto expected = start;
    gemm(this->reference, s.kind, S(alpha), a.window(), b.window(), S(beta), expected.window());
    const auto check = [&](auto& ctx, const char* name) {
      auto c = start;
      gemm(ctx, s.kind, S(alpha), a.window(), b.window(), S(beta), c.window());
      EXPECT_LT(test::relative_error(c.window(), expected.window()), test::tolerance<S>())
          << s.text() << " alpha " << alpha << " beta " << beta << " " << name;
      for (Index r = 0; r < s.m; ++r) std::copy_n(start.window().row(r), s.n, c.window().row(r));
      EXPECT_TRUE(test::same_bits(c.memory, start.memory)) << s.text() << " " << name;
    };
    check(this->one, "one thread");
    check(this->two, "two threads");
    check(this->scratch, "in a task");
  });
}

TYPED_TEST(GemmTest, TheLoopsAreTheDefinition) {
  using S = TypeParam;
  const Shape s{13, 11, 31, Kind::nn};
  auto a = operand_a<S>(s), b = operand_b<S>(s);
  Framed<S> c(s.m, s.n, 0.0);
  c.fill(3);
  auto given = c;
  gemm_nn(this->reference, S(0.5), a.window(), b.window(), S(-1.0), given.window());
  for (Index i = 0; i < s.m; ++i)
    for (Index j = 0; j < s.n; ++j) {
      long double sum = 0.0L;
      for (Index k = 0; k < s.k; ++k)
        sum += static_cast<long double>(a.window()(i, k)) * b.window()(k, j);
      EXPECT_NEAR(given.window()(i, j), static_cast<double>(0.5L * sum - c.window()(i, j)),
                  64 * std::numeric_limits<S>::epsilon());
    }
}

// A generation step and a training step must see the same numbers: the bits of an element depend on
// its row, its column and K.
TYPED_TEST(GemmTest, BitsOfARowDependNeitherOnItsNeighboursNorOnTheThreads) {
  using S = TypeParam;
  for (const Kind kind : {Kind::nn, Kind::nt, Kind::tn})
    for (const double beta : {0.0, 0.75}) {
      const Shape s{257, 133, 300, kind};
      auto a = operand_a<S>(s), b = operand_b<S>(s);
      Framed<S> start(s.m, s.n, 4.0);
      start.fill(3);
      auto all = start;
      gemm(this->one, kind, S(0.3), a.window(), b.window(), S(beta), all.window());

      auto threads = start, task = start;
      gemm(this->two, kind, S(0.3), a.window(), b.window(), S(beta), threads.window());
      gemm(this->scratch, kind, S(0.3), a.window(), b.window(), S(beta), task.window());
      EXPECT_TRUE(test::same_bits(all.memory, threads.memory)) << s.text();
      EXPECT_TRUE(test::same_bits(all.memory, task.memory)) << s.text();

      auto parts = start;
      for (const auto& [first, rows] : {std::pair<Index, Index>{0, 1},
                                        {1, 5},
                                        {6, 12},
                                        {18, 100},
                                        {118, 1},
                                        {119, 120},
                                        {239, 18}}) {
        const auto part = kind == Kind::tn ? a.window().block(0, first, s.k, rows)
                                           : a.window().row_block(first, rows);
        gemm(this->two, kind, S(0.3), part, b.window(), S(beta),
             parts.window().row_block(first, rows));
      }
      EXPECT_TRUE(test::same_bits(all.memory, parts.memory)) << s.text() << " beta " << beta;

      auto columns = start;
      for (const auto& [first, cols] :
           {std::pair<Index, Index>{0, 1}, {1, 31}, {32, 64}, {96, 37}}) {
        const auto part = kind == Kind::nt ? b.window().row_block(first, cols)
                                           : b.window().block(0, first, s.k, cols);
        gemm(this->one, kind, S(0.3), a.window(), part, S(beta),
             columns.window().block(0, first, s.m, cols));
      }
      EXPECT_TRUE(test::same_bits(all.memory, columns.memory)) << s.text() << " beta " << beta;
    }
}

TYPED_TEST(GemmTest, StoredWeightsEqualTheirWidenedCopy) {
  using S = TypeParam;
  for (const Shape s : {Shape{1, 33, 20, Kind::nt}, Shape{65, 43, 257, Kind::nt},
                        Shape{13, 64, 31, Kind::nn}, Shape{31, 12, 64, Kind::tn}}) {
    auto a = operand_a<S>(s);
    auto stored = operand_b<bfloat16>(s);
    Framed<S> widened(stored.rows, stored.cols, kNaN);
    for (Index r = 0; r < stored.rows; ++r)
      for (Index c = 0; c < stored.cols; ++c)
        widened.window()(r, c) = scalar_cast<S>(stored.window()(r, c));
    Framed<S> given(s.m, s.n, 4.0), expected(s.m, s.n, 4.0);
    gemm(this->two, s.kind, S(1), a.window(), stored.window(), S(0), given.window());
    gemm(this->two, s.kind, S(1), a.window(), widened.window(), S(0), expected.window());
    EXPECT_TRUE(test::same_bits(given.memory, expected.memory)) << s.text();
  }
}

TYPED_TEST(GemmTest, WideAndDeepProductsCrossTheBlocks) {
  using S = TypeParam;
  for (const Shape s : {Shape{3, 4100, 5, Kind::nn}, Shape{125, 4130, 9, Kind::nt},
                        Shape{7, 9, 1000, Kind::nt}, Shape{2, 3, 513, Kind::tn}}) {
    auto a = operand_a<S>(s), b = operand_b<S>(s);
    Framed<S> given(s.m, s.n, kNaN), expected(s.m, s.n, kNaN);
    gemm(this->two, s.kind, S(1), a.window(), b.window(), S(0), given.window());
    gemm(this->reference, s.kind, S(1), a.window(), b.window(), S(0), expected.window());
    EXPECT_LT(test::relative_error(given.window(), expected.window()), test::tolerance<S>())
        << s.text();
  }
}

TYPED_TEST(GemmTest, NoTermsLeaveTheScaledSum) {
  using S = TypeParam;
  const Window<const S> a(nullptr, 2, 0), b(nullptr, 3, 0);
  Framed<S> c(2, 3, 4.0);
  c.fill(3);
  const auto start = c;
  gemm_nt(this->one, S(1), a, b, S(0.5), c.window());
  for (Index r = 0; r < 2; ++r)
    for (Index j = 0; j < 3; ++j)
      EXPECT_EQ(c.window()(r, j), S(0.5) * Framed<S>(start).window()(r, j));
  gemm_nt(this->one, S(1), a, b, S(0), c.window());
  for (Index r = 0; r < 2; ++r)
    for (Index j = 0; j < 3; ++j) EXPECT_EQ(c.window()(r, j), S(0));
}

TYPED_TEST(GemmTest, NoRowsOrColumnsWriteNothing) {
  using S = TypeParam;
  auto x = test::filled<S>(16, 2.0);
  const auto before = x;
  gemm_nn(this->two, S(1), Window<const S>(x.data(), 0, 4), Window<const S>(x.data(), 4, 4), S(0),
          Window<S>(x.data(), 0, 4));
  gemm_nn(this->two, S(1), Window<const S>(x.data(), 4, 4), Window<const S>(x.data(), 4, 0, 4),
          S(0), Window<S>(x.data(), 4, 0, 4));
  EXPECT_TRUE(test::same_bits(x, before));
}

TEST(Gemm, OtherScalarsRunTheLoopsInEveryContext) {
  const Shape s{5, 7, 9, Kind::nt};
  auto a = operand_a<long double>(s), b = operand_b<long double>(s);
  Framed<long double> expected(s.m, s.n, 0.0), given = expected, task = expected;
  Reference reference;
  Cpu cpu(2);
  gemm_nt(reference, 1.0L, a.window(), b.window(), 0.0L, expected.window());
  gemm_nt(cpu, 1.0L, a.window(), b.window(), 0.0L, given.window());
  gemm_nt(cpu.workspace(), 1.0L, a.window(), b.window(), 0.0L, task.window());
  for (Index r = 0; r < s.m; ++r)
    for (Index j = 0; j < s.n; ++j) {
      EXPECT_EQ(given.window()(r, j), expected.window()(r, j));
      EXPECT_EQ(task.window()(r, j), expected.window()(r, j));
    }
}

}  // namespace
}  // namespace retnet
