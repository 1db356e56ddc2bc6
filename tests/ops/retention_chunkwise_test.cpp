// SPDX-License-Identifier: MIT
// Forward is tested with the other forms in retention_test.cpp; here is the backward.
#include "retnet/ops/retention_chunkwise.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "support/compare.hpp"
#include "support/retention_problem.hpp"

namespace retnet {
namespace {

using test::DecayCase;
using test::RetentionGradients;
using test::RetentionProblem;

constexpr DecayCase kDecays[] = {DecayCase::fixed, DecayCase::gated, DecayCase::strongly_gated};

template <class S>
class ChunkwiseBackwardTest : public testing::Test {
 public:
  static constexpr double kTolerance = std::is_same_v<S, float> ? 2e-5 : 1e-12;
  Reference reference;
  Cpu one{1}, two{2};

  void expect_close(const RetentionGradients<S>& given, const RetentionGradients<double>& expected,
                    const std::string& what) {
    EXPECT_LT(test::relative_error(given.dq, expected.dq), kTolerance) << what;
    EXPECT_LT(test::relative_error(given.dk, expected.dk), kTolerance) << what;
    EXPECT_LT(test::relative_error(given.dv, expected.dv), kTolerance) << what;
    EXPECT_LT(test::relative_error(given.dstate, expected.dstate), kTolerance) << what;
    EXPECT_LT(test::relative_error(given.dlog_decay, expected.dlog_decay), 10 * kTolerance) << what;
  }

  /// The backward of every chunk size against the definition's in double. Chunk 0: parallel.
  void expect_gradients(const RetentionProblem<S>& p, bool with_state, const std::string& what) {
    const auto expected = test::run_backward(reference, p.template cast<double>(), with_state);
    expect_close(test::run_backward(two, p, with_state), expected, what + " parallel");
    for (const Index chunk : test::chunks(p.sequences.longest()))
      expect_close(test::run_backward(two, p, with_state, chunk), expected,
                   what + " chunk " + std::to_string(chunk));
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ChunkwiseBackwardTest, Scalars);

TYPED_TEST(ChunkwiseBackwardTest, EqualsTheDefinitionOverTheTable) {
  std::size_t turn = 0;
  for (const auto& shape : test::kRetentionShapes) {
    const DecayCase gate = turn % 2 == 0 ? DecayCase::gated : DecayCase::strongly_gated;
    for (const auto decay : {DecayCase::fixed, gate})
      this->expect_gradients(RetentionProblem<TypeParam>(shape, decay, turn), turn % 3 != 0,
                             testing::PrintToString(shape));
    ++turn;
  }
}

TYPED_TEST(ChunkwiseBackwardTest, EqualsTheDefinitionForEveryDecay) {
  for (const auto decay : kDecays)
    for (const Index kv_heads : {1, 2, 4})
      for (const bool with_state : {false, true})
        this->expect_gradients(RetentionProblem<TypeParam>({2, 130, 4, kv_heads, 16, 11}, decay),
                               with_state, "kv heads " + std::to_string(kv_heads));
}

TYPED_TEST(ChunkwiseBackwardTest, EqualsTheDefinitionOnPackedSequences) {
  const std::array<Index, 6> bounds{0, 1, 65, 68, 133, 198};
  for (const auto decay : kDecays)
    for (const bool with_state : {false, true})
      this->expect_gradients(
          RetentionProblem<TypeParam>({1, 1, 4, 2, 8, 9}, Sequences::packed<Index>(bounds), decay),
          with_state, "packed");
}

// With them tiles are summed one by one, without them in fused blocks.
TYPED_TEST(ChunkwiseBackwardTest, DecayGradientsAreOptional) {
  using S = TypeParam;
  for (const auto decay : kDecays)
    for (const bool with_state : {false, true}) {
      const RetentionProblem<S> p({2, 150, 4, 2, 8, 41}, decay);
      for (const Index chunk : {0, 1, 16}) {
        const auto all = test::run_backward(this->two, p, with_state, chunk);
        const auto without = test::run_backward(this->two, p, with_state, chunk, false);
        EXPECT_LE(test::relative_error(without.dq, all.dq), test::tolerance<S>());
        EXPECT_LE(test::relative_error(without.dk, all.dk), test::tolerance<S>());
        EXPECT_LE(test::relative_error(without.dv, all.dv), test::tolerance<S>());
        if (with_state) {
          EXPECT_LE(test::relative_error(without.dstate, all.dstate), test::tolerance<S>());
        }
        for (const S d : without.dlog_decay) EXPECT_EQ(d, S(test::kUnwritten));
      }
    }
}

TYPED_TEST(ChunkwiseBackwardTest, BitsDoNotDependOnThreadsOrNeighbours) {
  using S = TypeParam;
  const Index tokens = 70;
  for (const auto decay : kDecays) {
    const RetentionProblem<S> p({3, tokens, 4, 2, 20, 43}, decay);
    for (const Index chunk : {0, 3, 64}) {
      const auto a = test::run_backward(this->one, p, true, chunk);
      const auto b = test::run_backward(this->two, p, true, chunk);
      EXPECT_TRUE(test::same_bits(a.dq, b.dq) && test::same_bits(a.dk, b.dk));
      EXPECT_TRUE(test::same_bits(a.dv, b.dv) && test::same_bits(a.dstate, b.dstate));
      EXPECT_TRUE(test::same_bits(a.dlog_decay, b.dlog_decay));

      // The last sequence of the batch alone.
      RetentionProblem<S> alone({1, tokens, 4, 2, 20, 43}, decay);
      const auto tail = [](const Buffer<S>& from, Buffer<S>& to) {
        std::copy(from.end() - to.size(), from.end(), to.begin());
      };
      tail(p.q, alone.q), tail(p.k, alone.k), tail(p.v, alone.v), tail(p.state, alone.state);
      tail(p.d_o, alone.d_o), tail(p.dstate, alone.dstate);
      if (p.gated()) tail(p.log_gate, alone.log_gate);
      const auto c = test::run_backward(this->two, alone, true, chunk);
      const auto same_tail = [](const Buffer<S>& all, const Buffer<S>& last) {
        return test::same_bits(all.span().last(last.span().size()), last.span());
      };
      EXPECT_TRUE(same_tail(a.dq, c.dq) && same_tail(a.dk, c.dk) && same_tail(a.dv, c.dv));
      EXPECT_TRUE(same_tail(a.dstate, c.dstate) && same_tail(a.dlog_decay, c.dlog_decay));
    }
  }
}

}  // namespace
}  // namespace retnet
