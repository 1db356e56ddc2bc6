// SPDX-License-Identifier: MIT
#include "retnet/ops/embedding.hpp"

#include <gtest/gtest.h>

#include "retnet/simd/vector.hpp"
#include "support/cases.hpp"
#include "support/compare.hpp"
#include "support/framed.hpp"
#include "support/gradcheck.hpp"

namespace retnet {
namespace {

using test::Framed;

constexpr Index kVocabulary = 11;

template <class S>
class EmbeddingTest : public testing::Test {
 public:
  Reference reference;
  Cpu two{2};

  template <class W>
  void expect_definition() {
    for (const auto& [rows, cols] : test::kRowShapes) {
      const auto table = Framed<W>::random(kVocabulary, cols, 1);
      const auto tokens = test::random_indices(rows, kVocabulary, 2);
      Framed<S> y(rows, cols, 4.0), cpu_y = y;
      embedding(reference, 2.5, tokens.data(), table.window(), y.window());
      embedding(two, 2.5, tokens.data(), table.window(), cpu_y.window());
      EXPECT_TRUE(y.frame_is(4.0));
      EXPECT_TRUE(test::same_bits(y.memory, cpu_y.memory));
      for (Index r = 0; r < rows; ++r)
        for (Index c = 0; c < cols; ++c)
          EXPECT_EQ(y.window()(r, c), S(2.5) * scalar_cast<S>(table.window()(tokens[r], c)));
    }
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(EmbeddingTest, Scalars);

TYPED_TEST(EmbeddingTest, CopiesScaledRows) { this->template expect_definition<TypeParam>(); }
TYPED_TEST(EmbeddingTest, TakesBfloat16Tables) { this->template expect_definition<bfloat16>(); }

TYPED_TEST(EmbeddingTest, BackwardAddsUpRepeatedTokens) {
  using S = TypeParam;
  for (const auto& [rows, cols] : test::kRowShapes) {
    const auto dy = Framed<S>::random(rows, cols, 1);
    const auto tokens = test::random_indices(rows, kVocabulary, 2);
    const auto start = Framed<S>::random(kVocabulary, cols, 3);
    auto table = start, cpu_table = start, expected = start;
    embedding_backward(this->reference, 0.5, tokens.data(), dy.window(), table.window());
    embedding_backward(this->two, 0.5, tokens.data(), dy.window(), cpu_table.window());
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c)
        expected.window()(tokens[r], c) += S(0.5) * dy.window()(r, c);
    EXPECT_LT(test::relative_error(table.window(), expected.window()), test::tolerance<S>());
    EXPECT_TRUE(test::same_bits(cpu_table.memory, table.memory));
    EXPECT_TRUE(table.frame_is(test::kNaN));
  }
}

TEST(Embedding, GradientEqualsFiniteDifferences) {
  const Index rows = 20, cols = 5;
  auto table = test::random_uniform<double>(kVocabulary * cols, 1);
  const auto dy = test::random_uniform<double>(rows * cols, 2);
  const auto tokens = test::random_indices(rows, kVocabulary - 1, 3);  // the last one never occurs
  Cpu ctx;
  const auto loss = [&] {
    Buffer<double> y(rows * cols);
    embedding(ctx, 3.0, tokens.data(), Window<const double>(table.data(), kVocabulary, cols),
              Window<double>(y.data(), rows, cols));
    return simd::dot(y.data(), dy.data(), y.size());
  };
  auto dtable = test::filled<double>(table.size(), 0.0);
  embedding_backward(ctx, 3.0, tokens.data(), Window<const double>(dy.data(), rows, cols),
                     Window<double>(dtable.data(), kVocabulary, cols));
  EXPECT_LT(test::gradient_error(table.span(), dtable.span(), loss, 100), 1e-6);
}

}  // namespace
}  // namespace retnet
