// SPDX-License-Identifier: MIT
// The promise of the library: the three forms of retention are one function. Every pair of config
// values, sequence lengths around the block sizes, every kind of chunk, vector kernels and loops.

#include <gtest/gtest.h>

#include "layers/variants.hpp"
#include "retnet/layers/multi_scale_retention.hpp"
#include "support/cases.hpp"
#include "support/compare.hpp"

namespace retnet::test {
namespace {

TEST(Variants, EveryPairOfFieldValuesOccurs) {
  const auto fields = detail::variant_fields();
  const auto choices = detail::all_pairs(fields);
  EXPECT_LE(choices.size(), 110U);
  for (std::size_t f = 0; f < fields.size(); ++f)
    for (std::size_t g = f + 1; g < fields.size(); ++g) {
      std::set<std::pair<std::size_t, std::size_t>> pairs;
      for (const auto& choice : choices) pairs.insert({choice[f], choice[g]});
      EXPECT_EQ(pairs.size(), fields[f] * fields[g]) << f << " " << g;
    }
  for (const auto& v : variants()) EXPECT_NO_THROW(v.config.validate()) << v.name;
}

// Every form, from the same state, against the loops of the definition.
template <class S>
void expect_equal_forms(const Variant& v, Index batch, Index tokens, bool carried) {
  const auto layer = random_layer<MultiScaleRetention<S>>(v.config);
  const Index width = v.config.d_model;
  const auto sequences = Sequences::dense(batch, tokens);
  const auto x = random_normal<S>(batch * tokens * width, 1);
  Reference plain;
  Cpu ctx;
  auto start = layer.initial_state(batch);
  if (carried) {
    const auto past = random_normal<S>(batch * 5 * width, 2);
    run(plain, layer, Form::parallel(), Sequences::dense(batch, 5), past, &start);
  }
  auto oracle_state = start;
  const auto oracle = run(plain, layer, Form::parallel(), sequences, x, &oracle_state);

  const auto expect = [&](auto& context, Form form, const char* path) {
    auto state = start;
    const auto y = run(context, layer, form, sequences, x, &state);
    EXPECT_LE(relative_error(y, oracle), tolerance<S>())
        << v.name << " T" << tokens << " " << form.name() << form.chunk << path;
    EXPECT_LE(state_error(state, oracle_state), tolerance<S>())
        << v.name << " T" << tokens << " " << form.name() << form.chunk << path << " state";
    if (carried) return;
    const auto alone = run(context, layer, form, sequences, x);
    EXPECT_LE(relative_error(alone, oracle), tolerance<S>())
        << v.name << " T" << tokens << " " << form.name() << form.chunk << path << " no state";
  };
  for (const Form form : forms(tokens)) {
    expect(ctx, form, " kernels");
    if (form.chunk == 0 || form.chunk == 16) expect(plain, form, " loops");
  }
}

class Forms : public testing::TestWithParam<Index> {};

TEST_P(Forms, AreEqualInDouble) {
  for (const auto& v : variants()) expect_equal_forms<double>(v, 1, GetParam(), false);
}

TEST_P(Forms, AreEqualInFloat) {
  for (const auto& v : variants()) expect_equal_forms<float>(v, 1, GetParam(), false);
}

class FormsFromAState : public testing::TestWithParam<Index> {};

TEST_P(FormsFromAState, AreEqual) {
  for (const auto& v : variants()) {
    expect_equal_forms<double>(v, 2, GetParam(), true);
    expect_equal_forms<float>(v, 2, GetParam(), true);
  }
}

INSTANTIATE_TEST_SUITE_P(T, Forms, testing::ValuesIn(kTokens), testing::PrintToStringParamName());
INSTANTIATE_TEST_SUITE_P(T, FormsFromAState, testing::Values(1, 2, 63, 64, 65),
                         testing::PrintToStringParamName());

// Head norms divide by sqrt(square + eps): with activations as small as at initialisation eps
// decides the size of the output, and forms that scale differently fall apart.
TEST(Epsilon, FormsAreEqualAtEveryEpsilon) {
  for (const NormKind kind : {NormKind::rms, NormKind::layer})
    for (const Normalization normalization :
         {Normalization::none, Normalization::row_sum, Normalization::paper_score})
      for (double eps = 1e-12; eps < 2e-3; eps *= 10.0) {
        RetentionConfig config{.d_model = 32, .heads = 2, .d_key = 32, .d_value = 52};
        config.normalization = normalization;
        config.head_norm = kind;
        config.head_norm_eps = eps;
        const auto check = [&]<class S>(S) {
          const MultiScaleRetention<S> layer(config, Seed{5});  // the weights of a new model
          const auto x = random_normal<S>(130 * 32, 3, 0.02);
          const auto sequences = Sequences::dense(1, 130);
          Cpu ctx;
          const auto y = run(ctx, layer, Form::parallel(), sequences, x);
          for (const Form form : forms(130))
            EXPECT_LE(relative_error(run(ctx, layer, form, sequences, x), y), tolerance<S>())
                << eps << " " << form.name() << form.chunk;
        };
        check(double{});
        check(float{});
      }
}

// The default: kernels for float and double under Cpu, loops under Reference.
TEST(Paths, KernelsRunWhereTheyExist) {
  const auto layer = random_layer<MultiScaleRetention<float>>(variants().front().config);
  const auto x = random_normal<float>(6 * 12, 1);
  const auto traced = [&](auto& ctx, Form form) {
    std::vector<const char*> trace;
    ctx.trace = &trace;
    run(ctx, layer, form, Sequences::dense(1, 6), x);
    ctx.trace = nullptr;
    return std::set<std::string>(trace.begin(), trace.end());
  };
  Cpu ctx;
  Reference plain;
  EXPECT_TRUE(traced(ctx, Form::parallel()).contains("retention_chunkwise: fused blocks"));
  EXPECT_TRUE(traced(ctx, Form::chunkwise(4)).contains("retention_chunkwise: fused blocks"));
  EXPECT_TRUE(traced(ctx, Form::recurrent()).contains("retention_recurrent: fused"));
  EXPECT_TRUE(traced(plain, Form::parallel()).contains("retention_parallel: reference"));
  EXPECT_TRUE(traced(plain, Form::chunkwise(4)).contains("retention_chunkwise: reference"));
  EXPECT_TRUE(traced(plain, Form::recurrent()).contains("retention_recurrent: reference"));
}

}  // namespace
}  // namespace retnet::test
