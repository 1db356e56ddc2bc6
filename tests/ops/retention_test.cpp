// SPDX-License-Identifier: MIT
// The promise: three forms, one function. And what must not matter to the last bit: the future, the
// neighbours in the batch, the number of threads.
#include "retnet/ops/retention.hpp"

#include <gtest/gtest.h>

#include <limits>

#include <array>
#include <string>
#include <vector>

#include "support/compare.hpp"
#include "support/custom_scalar.hpp"
#include "support/retention_problem.hpp"

namespace retnet {
namespace {

using test::DecayCase;
using test::RetentionForm;
using test::RetentionProblem;

constexpr DecayCase kDecays[] = {DecayCase::fixed, DecayCase::gated, DecayCase::strongly_gated};

struct Way {
  RetentionForm form;
  Index chunk = 0;
};

/// Every form, the chunkwise one with chunks that suit T.
std::vector<Way> ways(Index tokens) {
  std::vector<Way> all{{RetentionForm::parallel}, {RetentionForm::recurrent}};
  for (const Index chunk : test::chunks(tokens)) all.push_back({RetentionForm::chunkwise, chunk});
  return all;
}

std::string text(const Way& w) {
  if (w.form == RetentionForm::chunkwise) return "chunk " + std::to_string(w.chunk);
  return w.form == RetentionForm::parallel ? "parallel" : "recurrent";
}

template <class S>
class RetentionTest : public testing::Test {
 public:
  Reference reference;
  Cpu one{1}, two{2};

  /// All forms in both contexts against the oracle in double.
  void expect_equal_forms(const RetentionProblem<S>& p, bool with_state, const std::string& what) {
    const auto expected =
        test::run(reference, RetentionForm::parallel, p.template cast<double>(), with_state);
    const auto check = [&](auto& ctx, const Way& way, const char* context) {
      const auto given = test::run(ctx, way.form, p, with_state, way.chunk);
      EXPECT_LT(test::relative_error(given.o, expected.o), test::tolerance<S>())
          << what << " " << context << " " << text(way);
      if (!with_state) return;
      EXPECT_LT(test::relative_error(given.state, expected.state), test::tolerance<S>())
          << what << " " << context << " " << text(way) << " state";
    };
    for (const Way& way : ways(p.sequences.longest())) {
      check(reference, way, "reference");
      check(two, way, "cpu");
    }
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(RetentionTest, Scalars);

TYPED_TEST(RetentionTest, FormsAreEqualOverTheTable) {
  std::size_t turn = 0;
  for (const auto& shape : test::kRetentionShapes) {
    const DecayCase gate = turn % 2 == 0 ? DecayCase::gated : DecayCase::strongly_gated;
    for (const auto decay : {DecayCase::fixed, gate})
      for (const bool with_state : {false, true})
        this->expect_equal_forms(RetentionProblem<TypeParam>(shape, decay, turn), with_state,
                                 testing::PrintToString(shape));
    ++turn;
  }
}

TYPED_TEST(RetentionTest, FormsAreEqualForEveryDecay) {
  for (const auto decay : kDecays)
    for (const Index kv_heads : {1, 2, 4})
      this->expect_equal_forms(RetentionProblem<TypeParam>({2, 130, 4, kv_heads, 16, 11}, decay),
                               true, "kv heads " + std::to_string(kv_heads));
}

TYPED_TEST(RetentionTest, FormsAreEqualOnPackedAndPaddedSequences) {
  const std::array<Index, 6> bounds{0, 1, 65, 68, 133, 198};
  const std::array<Index, 3> padding{0, 64, 13};
  for (const auto decay : kDecays)
    for (const bool with_state : {false, true}) {
      const auto packed = Sequences::packed<Index>(bounds);
      const auto padded = Sequences::left_padded(3, 70, padding);
      const test::RetentionShape shape{1, 1, 3, 1, 8, 9};
      this->expect_equal_forms(RetentionProblem<TypeParam>(shape, packed, decay), with_state,
                               "packed");
      this->expect_equal_forms(RetentionProblem<TypeParam>(shape, padded, decay), with_state,
                               "padded");
    }
}

/// Rows [first, first + n) of the problem as one sequence.
template <class S>
RetentionInput<S> slice(const RetentionProblem<S>& p, const Sequences& one, Index first) {
  RetentionInput<S> in = p.input();
  const Index n = one.rows();
  in.q = in.q.row_block(first, n), in.k = in.k.row_block(first, n), in.v = in.v.row_block(first, n);
  if (p.gated()) in.decay.log_gate = in.decay.log_gate.row_block(first, n);
  in.sequences = &one;
  return in;
}

template <class Context, class S>
void run_slice(Context& ctx, const Way& way, const RetentionProblem<S>& p, Index first, Index n,
               S* state, Buffer<S>& o) {
  const auto one = Sequences::dense(1, n);
  const auto in = slice(p, one, first);
  const Index cols = p.heads * p.value_dim;
  const Window<S> out(o.data() + first * cols, n, cols);
  if (way.form == RetentionForm::parallel) retention_parallel(ctx, in, state, out);
  if (way.form == RetentionForm::recurrent) retention_recurrent(ctx, in, state, out);
  if (way.form == RetentionForm::chunkwise) retention_chunkwise(ctx, in, way.chunk, state, out);
}

TYPED_TEST(RetentionTest, TheFormMayChangeAtEveryToken) {
  using S = TypeParam;
  const Index tokens = 20;
  const Way all[] = {
      {RetentionForm::parallel}, {RetentionForm::recurrent}, {RetentionForm::chunkwise, 3}};
  for (const auto decay : kDecays) {
    const RetentionProblem<S> p({1, tokens, 4, 2, 6, 5}, decay);
    const auto expected = test::run(this->reference, RetentionForm::parallel, p, true);
    for (Index split = 1; split < tokens; ++split)
      for (const Way& before : all)
        for (const Way& after : all) {
          Buffer<S> o(expected.o.size()), state = p.state;
          run_slice(this->one, before, p, 0, split, state.data(), o);
          run_slice(this->one, after, p, split, tokens - split, state.data(), o);
          EXPECT_LT(test::relative_error(o, expected.o), test::tolerance<S>())
              << text(before) << " then " << text(after) << " at " << split;
          EXPECT_LT(test::relative_error(state, expected.state), test::tolerance<S>());
        }
  }
}

TYPED_TEST(RetentionTest, TheFutureLeavesThePastAlone) {
  using S = TypeParam;
  const Index tokens = 130;
  for (const auto decay : kDecays) {
    const RetentionProblem<S> p({1, tokens, 4, 2, 6, 5}, decay);
    for (const Way& way : ways(tokens)) {
      const auto oracle = test::run(this->reference, way.form, p, true, way.chunk);
      const auto cpu = test::run(this->two, way.form, p, true, way.chunk);
      for (const Index now : {1, 63, 64, 65, 129}) {
        auto changed = p;
        const auto change = [&](Buffer<S>& x, std::uint64_t stream) {
          const Index past = x.size() / tokens * now;
          const auto other = test::random_normal<S>(x.size() - past, stream, 100.0);
          std::copy(other.begin(), other.end(), x.begin() + past);
        };
        change(changed.q, 11), change(changed.k, 12), change(changed.v, 13);
        if (p.gated()) {
          change(changed.log_gate, 14);
          for (S& g : changed.log_gate) g = g < S(0) ? g : -g;
        }
        const Index cols = p.heads * p.value_dim;
        const auto past_of = [&](const Buffer<S>& o) {
          return Window<const S>(o.data(), now, cols);
        };
        const auto r = test::run(this->reference, way.form, changed, true, way.chunk);
        const auto c = test::run(this->two, way.form, changed, true, way.chunk);
        EXPECT_TRUE(test::same_bits(past_of(r.o), past_of(oracle.o))) << text(way) << " " << now;
        EXPECT_TRUE(test::same_bits(past_of(c.o), past_of(cpu.o))) << text(way) << " " << now;
        EXPECT_FALSE(test::same_bits(c.o, cpu.o));
      }
    }
  }
}

// 0 * NaN is NaN: a masked score must not be multiplied with a broken value of the future.
TYPED_TEST(RetentionTest, ABrokenFutureLeavesThePastWhole) {
  using S = TypeParam;
  const Index tokens = 70;
  for (const auto decay : kDecays) {
    const RetentionProblem<S> p({1, tokens, 2, 1, 6, 5}, decay);
    for (const Way& way : ways(tokens)) {
      const auto expected = test::run(this->two, way.form, p, true, way.chunk);
      for (const S broken : {std::numeric_limits<S>::quiet_NaN(), std::numeric_limits<S>::infinity()})
        for (const Index now : {1, 37, 69}) {
          auto changed = p;
          for (auto* x : {&changed.q, &changed.k, &changed.v})
            std::fill(x->begin() + x->size() / tokens * now, x->end(), broken);
          const auto o = test::run(this->two, way.form, changed, true, way.chunk).o;
          const Index past = now * p.heads * p.value_dim;
          Buffer<S> before(past), after(past);
          std::copy_n(expected.o.begin(), past, before.begin());
          std::copy_n(o.begin(), past, after.begin());
          EXPECT_LT(test::relative_error(after, before), test::tolerance<S>()) << text(way) << " " << now;
        }
    }
  }
}

TYPED_TEST(RetentionTest, BitsDoNotDependOnTheThreads) {
  for (const auto decay : kDecays) {
    const RetentionProblem<TypeParam> p({3, 65, 4, 2, 64, 43}, decay);
    for (const Way& way : ways(65)) {
      const auto a = test::run(this->one, way.form, p, true, way.chunk);
      const auto b = test::run(this->two, way.form, p, true, way.chunk);
      EXPECT_TRUE(test::same_bits(a.o, b.o)) << text(way);
      EXPECT_TRUE(test::same_bits(a.state, b.state)) << text(way);
    }
  }
}

TYPED_TEST(RetentionTest, BitsDoNotDependOnTheNeighboursInTheBatch) {
  using S = TypeParam;
  const std::array<Index, 6> bounds{0, 1, 65, 68, 133, 263};
  const std::array<Index, 3> padding{0, 64, 13};
  for (const auto decay : kDecays)
    for (const auto& sequences :
         {Sequences::packed<Index>(bounds), Sequences::left_padded(3, 70, padding),
          Sequences::dense(3, 65)}) {
      const RetentionProblem<S> p({1, 1, 3, 1, 8, 9}, sequences, decay);
      for (const Way& way : ways(65)) {
        const auto all = test::run(this->two, way.form, p, true, way.chunk);
        auto o = test::filled<S>(all.o.size(), test::kUnwritten);
        auto state = p.state;
        for (Index s = 0; s < sequences.count(); ++s)
          run_slice(this->one, way, p, sequences[s].first_row, sequences[s].length,
                    state.data() + s * p.heads * p.key_dim * p.value_dim, o);
        EXPECT_TRUE(test::same_bits(all.o, o))
            << text(way);  // rows of padding are unwritten in both
        EXPECT_TRUE(test::same_bits(all.state, state)) << text(way);
      }
    }
}

TYPED_TEST(RetentionTest, PaddingIsNeitherReadNorWritten) {
  using S = TypeParam;
  const std::array<Index, 3> padding{0, 64, 13};
  const auto sequences = Sequences::left_padded(3, 70, padding);
  for (const auto decay : kDecays) {
    const RetentionProblem<S> p({1, 1, 3, 1, 8, 9}, sequences, decay);
    auto poisoned = p;
    const auto pad_rows = [&](Buffer<S>& x, auto&& f) {
      const Index cols = x.size() / p.rows();
      for (Index b = 0; b < 3; ++b)
        for (Index i = 0; i < padding[static_cast<std::size_t>(b)] * cols; ++i)
          f(x[b * 70 * cols + i]);
    };
    const auto poison = [](S& x) { x = std::numeric_limits<S>::quiet_NaN(); };
    for (auto* x : {&poisoned.q, &poisoned.k, &poisoned.v, &poisoned.d_o}) pad_rows(*x, poison);
    if (p.gated()) pad_rows(poisoned.log_gate, poison);
    const auto expect_unwritten = [](S& x) { EXPECT_EQ(x, S(test::kUnwritten)); };
    const auto check = [&](auto& ctx) {
      for (const Way& way : ways(70)) {
        auto given = test::run(ctx, way.form, poisoned, true, way.chunk);
        EXPECT_TRUE(test::same_bits(given.o, test::run(ctx, way.form, p, true, way.chunk).o));
        pad_rows(given.o, expect_unwritten);
      }
      for (const Index chunk : {0, 16}) {
        auto given = test::run_backward(ctx, poisoned, true, chunk);
        const auto clean = test::run_backward(ctx, p, true, chunk);
        EXPECT_TRUE(test::same_bits(given.dq, clean.dq) && test::same_bits(given.dk, clean.dk));
        EXPECT_TRUE(test::same_bits(given.dv, clean.dv));
        EXPECT_TRUE(test::same_bits(given.dlog_decay, clean.dlog_decay));
        for (auto* x : {&given.dq, &given.dk, &given.dv, &given.dlog_decay})
          pad_rows(*x, expect_unwritten);
      }
    };
    check(this->reference);
    check(this->two);
  }
}

TYPED_TEST(RetentionTest, SharedKeyHeadsEqualRepeatedOnes) {
  using S = TypeParam;
  for (const Index kv_heads : {1, 2}) {
    const RetentionProblem<S> shared({1, 70, 4, kv_heads, 8, 9}, DecayCase::gated);
    RetentionProblem<S> repeated({1, 70, 4, 4, 8, 9}, DecayCase::gated);
    const auto repeat = [&](const Buffer<S>& from, Buffer<S>& to, Index width) {
      for (Index r = 0; r < 70; ++r)
        for (Index h = 0; h < 4; ++h)
          std::copy_n(from.data() + (r * kv_heads + h / (4 / kv_heads)) * width, width,
                      to.data() + (r * 4 + h) * width);
    };
    repeat(shared.k, repeated.k, 8);
    repeat(shared.v, repeated.v, 9);
    for (const Way& way : ways(70))
      EXPECT_TRUE(test::same_bits(test::run(this->two, way.form, shared, true, way.chunk).o,
                                  test::run(this->two, way.form, repeated, true, way.chunk).o));
  }
}

// An exponent that is infinite, or a gamma that is rounded, would show here.
TYPED_TEST(RetentionTest, WithoutDecayNothingIsForgotten) {
  using S = TypeParam;
  RetentionProblem<S> p({1, 257, 1, 1, 2, 3}, DecayCase::fixed);
  ASSERT_EQ(p.log_gamma[0], 0.0);
  p.q.fill(S(1)), p.k.fill(S(0.5)), p.v.fill(S(0.25)), p.state.fill(S(0));
  for (const Way& way : ways(257)) {
    const auto r = test::run(this->two, way.form, p, true, way.chunk);
    for (Index n = 0; n < 257; ++n) EXPECT_EQ(r.o[3 * n], S(0.25) * S(n + 1)) << text(way);
    for (const S s : r.state) EXPECT_EQ(s, S(0.125) * S(257));
  }
}

TEST(Retention, OtherScalarsAgreeInEveryFormAndContext) {
  const RetentionProblem<double> wide({2, 21, 2, 1, 4, 5}, DecayCase::gated);
  const auto p = wide.cast<test::Custom>();
  Reference reference;
  Cpu cpu(2);
  const auto expected = test::run(reference, RetentionForm::parallel, wide, true);
  for (const Way& way : ways(21)) {
    const auto given = test::run(cpu, way.form, p, true, way.chunk);
    EXPECT_LT(test::relative_error(given.o, expected.o), 1e-12) << text(way);
    EXPECT_LT(test::relative_error(given.state, expected.state), 1e-12) << text(way);
  }
  const auto gradients = test::run_backward(reference, wide, true);
  const auto given = test::run_backward(cpu, p, true, 4);
  EXPECT_LT(test::relative_error(given.dq, gradients.dq), 1e-12);
  EXPECT_LT(test::relative_error(given.dk, gradients.dk), 1e-12);
  EXPECT_LT(test::relative_error(given.dlog_decay, gradients.dlog_decay), 1e-12);
}

}  // namespace
}  // namespace retnet
