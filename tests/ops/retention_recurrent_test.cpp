// SPDX-License-Identifier: MIT
// Equality with the other forms is tested in retention_test.cpp; here is what generation relies on.
#include "retnet/ops/retention_recurrent.hpp"

#include <gtest/gtest.h>

#include "support/compare.hpp"
#include "support/retention_problem.hpp"

namespace retnet {
namespace {

using test::DecayCase;
using test::RetentionForm;
using test::RetentionProblem;

constexpr DecayCase kDecays[] = {DecayCase::fixed, DecayCase::gated, DecayCase::strongly_gated};

template <class S>
class RecurrentTest : public testing::Test {
 public:
  Reference reference;
  Cpu one{1}, two{2};
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(RecurrentTest, Scalars);

TYPED_TEST(RecurrentTest, TokenByTokenHasTheBitsOfAllAtOnce) {
  using S = TypeParam;
  const Index tokens = 17;
  const auto step = Sequences::dense(1, 1);
  for (const auto decay : kDecays) {
    const RetentionProblem<S> p({1, tokens, 4, 2, 20, 43}, decay);
    const auto check = [&](auto& ctx) {
      const auto all = test::run(ctx, RetentionForm::recurrent, p, true);
      Buffer<S> o(all.o.size()), state = p.state;
      const Index cols = p.heads * p.value_dim;
      for (Index t = 0; t < tokens; ++t) {
        auto in = p.input();
        in.q = in.q.row_block(t, 1), in.k = in.k.row_block(t, 1), in.v = in.v.row_block(t, 1);
        if (p.gated()) in.decay.log_gate = in.decay.log_gate.row_block(t, 1);
        in.sequences = &step;
        retention_recurrent(ctx, in, state.data(), Window<S>(o.data() + t * cols, 1, cols));
      }
      EXPECT_TRUE(test::same_bits(o, all.o));
      EXPECT_TRUE(test::same_bits(state, all.state));
    };
    check(this->reference);
    check(this->two);
  }
}

TYPED_TEST(RecurrentTest, EveryTailOfTheKeyAndValueDimensions) {
  using S = TypeParam;
  for (Index key_dim = 1; key_dim <= 9; ++key_dim)
    for (Index value_dim = 1; value_dim <= 40; ++value_dim) {
      const RetentionProblem<S> p({1, 3, 2, 1, key_dim, value_dim}, DecayCase::gated);
      const auto expected = test::run(this->reference, RetentionForm::recurrent, p, true);
      const auto given = test::run(this->one, RetentionForm::recurrent, p, true);
      EXPECT_LT(test::relative_error(given.o, expected.o), test::tolerance<S>())
          << key_dim << " " << value_dim;
      EXPECT_LT(test::relative_error(given.state, expected.state), test::tolerance<S>())
          << key_dim << " " << value_dim;
    }
}

TYPED_TEST(RecurrentTest, WithoutAStateItStartsAtZero) {
  using S = TypeParam;
  RetentionProblem<S> p({3, 5, 4, 2, 6, 7}, DecayCase::fixed);
  p.state.fill(S(0));
  const auto check = [&](auto& ctx) {
    EXPECT_TRUE(test::same_bits(test::run(ctx, RetentionForm::recurrent, p, true).o,
                                test::run(ctx, RetentionForm::recurrent, p, false).o));
  };
  check(this->reference);
  check(this->one);
  check(this->two);
}

}  // namespace
}  // namespace retnet
