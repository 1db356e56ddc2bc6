// SPDX-License-Identifier: MIT
#include "retnet/ops/retention_torchscale.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/compare.hpp"
#include "support/gradcheck.hpp"
#include "support/retention_problem.hpp"

namespace retnet {
namespace {

using test::DecayCase;
using test::RetentionProblem;

constexpr TorchscaleVersion kVersions[] = {TorchscaleVersion::v1, TorchscaleVersion::v2};
constexpr test::RetentionShape kShapes[] = {
    {1, 1, 1, 1, 2, 3}, {2, 33, 4, 2, 6, 7}, {1, 70, 4, 4, 5, 4}};

/// Queries of this size make some rows exceed the norm's lower limit of 1 and leave others below.
template <class S>
RetentionProblem<S> problem(const test::RetentionShape& shape) {
  RetentionProblem<S> p(shape, DecayCase::fixed);
  for (S& x : p.q) x = x * S(1.5);
  return p;
}

/// The formulas of the header, one sequence and head, without shortcuts. `chunk` 0: parallel.
std::vector<double> naive(TorchscaleVersion version, const RetentionProblem<double>& p,
                          Segment rows, Index h, Index chunk) {
  const bool v1 = version == TorchscaleVersion::v1;
  const auto in = p.input();
  const auto q = in.query(rows, h), k = in.key(rows, h), v = in.value(rows, h);
  const double gamma = std::exp(p.log_gamma[static_cast<std::size_t>(h)]);
  const Index block = chunk == 0 ? rows.length : chunk, dk = p.key_dim, dv = p.value_dim;
  const auto row_sum = [&](Index n) {
    double s = 0.0;
    for (Index m = 0; m <= n; ++m) s += std::pow(gamma, static_cast<double>(m));
    return s;
  };
  const auto rho = [&](Index n) { return v1 ? std::sqrt(row_sum(n)) : row_sum(n); };
  std::vector<double> out(static_cast<std::size_t>(rows.length * dv));
  std::vector<double> state(static_cast<std::size_t>(dk * dv), 0.0);
  double b = 1.0;
  for (Index first = 0; first < rows.length; first += block) {
    const Index length = std::min(block, rows.length - first);
    for (Index i = 0; i < length; ++i) {
      std::vector<double> score(static_cast<std::size_t>(i + 1));
      double a = 0.0, signed_sum = 0.0;
      for (Index m = 0; m <= i; ++m) {
        double s = 0.0;
        for (Index d = 0; d < dk; ++d) s += q(first + i, d) * k(first + m, d);
        s *= std::pow(gamma, static_cast<double>(i - m)) / std::sqrt(row_sum(i));
        score[static_cast<std::size_t>(m)] = s;
        a += std::fabs(s);
        signed_sum += s;
      }
      if (chunk == 0 && v1) a = std::fabs(signed_sum);
      a = std::fmax(a, 1.0);
      if (chunk == 0 && !v1) a = std::fmin(a, 5e4);
      for (Index j = 0; j < dv; ++j) {
        double o = 0.0, carried = 0.0;
        for (Index m = 0; m <= i; ++m) o += score[static_cast<std::size_t>(m)] * v(first + m, j);
        for (Index d = 0; d < dk; ++d)
          carried += q(first + i, d) * state[static_cast<std::size_t>(d * dv + j)];
        carried *=
            std::pow(gamma, static_cast<double>(i + 1)) * rho(block - 1) / std::sqrt(row_sum(i));
        out[static_cast<std::size_t>((first + i) * dv + j)] = (o + carried) / std::fmax(a, b);
      }
    }
    b = 1.0;
    for (Index j = 0; j < dv; ++j) {
      double column = 0.0;
      for (Index d = 0; d < dk; ++d) {
        double& s = state[static_cast<std::size_t>(d * dv + j)];
        s *= std::pow(gamma, static_cast<double>(block));
        for (Index m = 0; m < length; ++m)
          s += k(first + m, d) * v(first + m, j) *
               std::pow(gamma, static_cast<double>(block - 1 - m)) / rho(block - 1);
        column += std::fabs(s);
      }
      b = std::fmax(b, column);
    }
  }
  return out;
}

template <class S, class Context>
Buffer<S> run(Context& ctx, TorchscaleVersion version, const RetentionProblem<S>& p, Index chunk) {
  auto o = test::filled<S>(p.rows() * p.heads * p.value_dim, test::kUnwritten);
  const Window<S> out(o.data(), p.rows(), p.heads * p.value_dim);
  if (chunk == 0) retention_torchscale_parallel(ctx, version, p.input(), out);
  if (chunk != 0) retention_torchscale_chunkwise(ctx, version, p.input(), chunk, out);
  return o;
}

template <class S>
class TorchscaleTest : public testing::Test {
 public:
  Reference reference;
  Cpu two{2};
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(TorchscaleTest, Scalars);

TYPED_TEST(TorchscaleTest, EveryFormIsItsOwnFormula) {
  using S = TypeParam;
  for (const auto version : kVersions)
    for (const auto& shape : kShapes) {
      const auto p = problem<S>(shape);
      const auto wide = p.template cast<double>();
      for (const Index chunk : {Index{0}, Index{1}, Index{16}, shape.tokens}) {
        Buffer<double> expected(p.rows() * p.heads * p.value_dim);
        for (Index s = 0; s < p.sequences.count(); ++s)
          for (Index h = 0; h < p.heads; ++h) {
            const Segment rows = p.sequences[s];
            const auto head = naive(version, wide, rows, h, chunk);
            for (Index n = 0; n < rows.length; ++n)
              std::copy_n(head.begin() + n * p.value_dim, p.value_dim,
                          expected.data() + ((rows.first_row + n) * p.heads + h) * p.value_dim);
          }
        const auto given = run(this->two, version, p, chunk);
        EXPECT_LT(test::relative_error(given, expected), test::tolerance<S>())
            << shape << " " << chunk;
        EXPECT_TRUE(test::same_bits(given, run(this->reference, version, p, chunk)));
      }
    }
}

TEST(Torchscale, TheScoreNormTakesPartInTheTest) {
  Cpu ctx;
  const auto p = problem<double>(kShapes[1]);
  const auto q = p.input().query(p.sequences[0], 0), k = p.input().key(p.sequences[0], 0);
  std::vector<double> scores(33);
  int above = 0;
  for (Index n = 0; n < 33; ++n)
    above +=
        detail::score_norm(TorchscaleVersion::v1,
                           detail::torchscale_scores(q, k, n, p.log_gamma[0], scores.data())) > 1.0;
  EXPECT_GT(above, 3);
}

// The original holds the norm constant; below its lower limit it is constant, and only there finite
// differences agree.
TEST(Torchscale, GradientsEqualFiniteDifferencesWhereTheNormIsConstant) {
  Cpu ctx(2);
  for (const auto version : kVersions)
    for (const auto& shape : test::kGradientShapes) {
      RetentionProblem<double> p(shape, DecayCase::fixed);
      for (double& x : p.q) x *= 0.02;
      const auto loss = [&] {
        const auto o = run(ctx, version, p, 0);
        return 50.0 * simd::dot(o.data(), p.d_o.data(), o.size());
      };
      test::RetentionGradients<double> g(p, false);
      retention_torchscale_parallel_backward(ctx, version, p.input(), p.output_gradient(),
                                             g.places(p));
      for (auto* d : {&g.dq, &g.dk, &g.dv})
        for (double& x : *d) x *= 50.0;
      EXPECT_LT(test::gradient_error(p.q.span(), std::as_const(g.dq).span(), loss), 1e-6) << shape;
      EXPECT_LT(test::gradient_error(p.k.span(), std::as_const(g.dk).span(), loss), 1e-6) << shape;
      EXPECT_LT(test::gradient_error(p.v.span(), std::as_const(g.dv).span(), loss), 1e-6) << shape;
    }
}

// dL/dv is linear in the scores and knows nothing of the norm being held: it is exact everywhere.
TEST(Torchscale, TheGradientOfTheValuesIsExactEverywhere) {
  Cpu ctx(2);
  for (const auto version : kVersions) {
    auto p = problem<double>(kShapes[1]);
    const auto loss = [&] {
      const auto o = run(ctx, version, p, 0);
      return simd::dot(o.data(), p.d_o.data(), o.size());
    };
    test::RetentionGradients<double> g(p, false);
    retention_torchscale_parallel_backward(ctx, version, p.input(), p.output_gradient(),
                                           g.places(p));
    EXPECT_LT(test::gradient_error(p.v.span(), std::as_const(g.dv).span(), loss), 1e-6);
  }
}

}  // namespace
}  // namespace retnet
