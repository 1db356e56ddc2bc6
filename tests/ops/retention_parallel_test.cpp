// SPDX-License-Identifier: MIT
#include "retnet/ops/retention_parallel.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "support/compare.hpp"
#include "support/gradcheck.hpp"
#include "support/retention_problem.hpp"

namespace retnet {
namespace {

using test::DecayCase;
using test::RetentionForm;
using test::RetentionProblem;

/// Products of decays instead of sums of logarithms, token by token.
void definition(const RetentionProblem<double>& p, bool with_state, Buffer<double>& o,
                Buffer<double>& state) {
  const auto in = p.input();
  const Index dk = p.key_dim, dv = p.value_dim;
  for (Index s = 0; s < p.sequences.count(); ++s)
    for (Index h = 0; h < p.heads; ++h) {
      const Segment rows = p.sequences[s];
      const auto q = in.query(rows, h), k = in.key(rows, h), v = in.value(rows, h);
      const auto decay = [&](Index n) -> long double {
        if (p.gated()) return std::exp(static_cast<long double>(p.gate()(rows.first_row + n, h)));
        return std::exp(static_cast<long double>(p.log_gamma[static_cast<std::size_t>(h)]));
      };
      double* st = state.data() + (s * p.heads + h) * dk * dv;
      std::vector<long double> memory(static_cast<std::size_t>(dk * dv), 0.0L);
      for (std::size_t i = 0; with_state && i < memory.size(); ++i) memory[i] = st[i];
      for (Index n = 0; n < rows.length; ++n) {
        for (Index d = 0; d < dk; ++d)
          for (Index j = 0; j < dv; ++j) {
            auto& m = memory[static_cast<std::size_t>(d * dv + j)];
            m = decay(n) * m + static_cast<long double>(k(n, d)) * v(n, j);
          }
        for (Index j = 0; j < dv; ++j) {
          long double sum = 0.0L;
          for (Index d = 0; d < dk; ++d)
            sum += q(n, d) * memory[static_cast<std::size_t>(d * dv + j)];
          o[(rows.first_row + n) * p.heads * dv + h * dv + j] = static_cast<double>(sum);
        }
      }
      for (std::size_t i = 0; i < memory.size(); ++i) st[i] = static_cast<double>(memory[i]);
    }
}

constexpr test::RetentionShape kShapes[] = {
    {1, 1, 1, 1, 2, 3}, {2, 33, 4, 2, 16, 7}, {1, 200, 4, 1, 4, 5}};

TEST(RetentionParallel, OfTheReferenceIsTheDefinition) {
  Reference ctx;
  for (const auto& shape : kShapes)
    for (const auto decay : {DecayCase::fixed, DecayCase::gated, DecayCase::strongly_gated})
      for (const bool with_state : {false, true}) {
        const RetentionProblem<double> p(shape, decay);
        const auto given = test::run(ctx, RetentionForm::parallel, p, with_state);
        Buffer<double> o(given.o.size()), state = p.state;
        definition(p, with_state, o, state);
        EXPECT_LT(test::relative_error(given.o, o), 1e-12) << shape;
        if (with_state) {
          EXPECT_LT(test::relative_error(given.state, state), 1e-12) << shape;
        }
      }
}

TEST(RetentionParallel, GradientsOfTheReferenceEqualFiniteDifferences) {
  Reference ctx;
  for (const auto& shape : test::kGradientShapes)
    for (const auto decay : {DecayCase::fixed, DecayCase::gated, DecayCase::strongly_gated})
      for (const bool with_state : {false, true}) {
        RetentionProblem<double> p(shape, decay, shape.heads == 1 ? 1 : 0);
        const auto loss = [&] {
          const auto r = test::run(ctx, RetentionForm::parallel, p, with_state);
          double sum = simd::dot(r.o.data(), p.d_o.data(), r.o.size());
          if (with_state) sum += simd::dot(r.state.data(), p.dstate.data(), r.state.size());
          return sum;
        };
        const auto g = test::run_backward(ctx, p, with_state);
        const auto error = [&](Buffer<double>& x, const Buffer<double>& dx) {
          return test::gradient_error(x.span(), dx.span(), loss, 40);
        };
        EXPECT_LT(error(p.q, g.dq), 1e-6) << shape;
        EXPECT_LT(error(p.k, g.dk), 1e-6) << shape;
        EXPECT_LT(error(p.v, g.dv), 1e-6) << shape;
        if (with_state) {
          EXPECT_LT(error(p.state, g.dstate), 1e-6) << shape;
        }
        if (p.gated()) {
          EXPECT_LT(error(p.log_gate, g.dlog_decay), 1e-6) << shape;
        } else {  // d ln gamma of a head is the sum over its tokens
          auto by_head = test::filled<double>(p.heads, 0.0);
          for (Index i = 0; i < g.dlog_decay.size(); ++i) by_head[i % p.heads] += g.dlog_decay[i];
          EXPECT_LT(test::gradient_error(p.log_gamma, std::as_const(by_head).span(), loss), 1e-6)
              << shape;
        }
      }
}

TEST(RetentionParallel, TheGradientOfTheStateAloneIsExactToo) {
  Reference ctx;
  RetentionProblem<double> p({2, 6, 2, 1, 3, 4}, DecayCase::gated);
  p.d_o.fill(0.0);
  const auto loss = [&] {
    const auto r = test::run(ctx, RetentionForm::parallel, p, true);
    return simd::dot(r.state.data(), p.dstate.data(), r.state.size());
  };
  const auto g = test::run_backward(ctx, p, true);
  EXPECT_LT(test::gradient_error(p.k.span(), g.dk.span(), loss), 1e-6);
  EXPECT_LT(test::gradient_error(p.v.span(), g.dv.span(), loss), 1e-6);
  EXPECT_LT(test::gradient_error(p.log_gate.span(), g.dlog_decay.span(), loss), 1e-6);
  for (const double d : g.dq) EXPECT_EQ(d, 0.0);
}

}  // namespace
}  // namespace retnet
