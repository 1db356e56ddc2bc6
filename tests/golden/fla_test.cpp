// SPDX-License-Identifier: MIT
// Checkpoints of fla-org/flash-linear-attention. One maths for all modes: every form must give
// every mode of the reference.

#include <gtest/gtest.h>

#include "golden/generation.hpp"

namespace retnet::golden {
namespace {

constexpr double kDouble = 1e-9;  // data/README.md

class Fla : public testing::TestWithParam<std::string> {
 protected:
  const Case c{GetParam()};
  const Array& ids = c.io().at("input_ids");
  const Array& oracle = c.io().at("logits.float64_oracle");
  const Buffer<Token> tokens = tokens_of(ids);
  const Sequences sequences = sequences_of(ids, nullptr);
};

const std::array<Form, 6> kForms{Form::parallel(),   Form::recurrent(),   Form::chunkwise(64),
                                 Form::chunkwise(1), Form::chunkwise(16), Form::chunkwise(1000)};

template <class Context>
void expect_every_form(Context& ctx, const Case& c, const Sequences& sequences,
                       const Buffer<Token>& tokens, const Array& oracle) {
  const auto wide = load<double>(c);
  const auto narrow = load<float>(c);
  for (const Form form : kForms) {
    const auto y = logits_of(ctx, wide, form, sequences, tokens);
    const auto z = logits_of(ctx, narrow, form, sequences, tokens);
    EXPECT_LE(error(y, oracle), kDouble) << form.name() << " " << form.chunk;
    EXPECT_LE(error(z, oracle), c.tolerance("parallel")) << form.name() << " " << form.chunk;
    for (const char* mode : {"parallel", "recurrent", "chunkwise"}) {
      const Array& golden = c.io().at(std::string("logits.") + mode);
      EXPECT_LE(error(y, golden), c.tolerance(mode)) << form.name() << " " << form.chunk;
      EXPECT_LE(error(z, golden), c.tolerance(mode)) << form.name() << " " << form.chunk;
    }
  }
}

TEST_P(Fla, EveryFormIsEveryMode) {
  Cpu ctx;
  expect_every_form(ctx, c, sequences, tokens, oracle);
}

TEST_P(Fla, EveryFormIsEveryModeInPlainLoops) {
  Reference ctx;
  expect_every_form(ctx, c, sequences, tokens, oracle);
}

TEST_P(Fla, TokenByToken) {
  Cpu ctx;
  const Array& golden = c.io().at("logits.recurrent");
  EXPECT_LE(error(stepwise_logits(ctx, load<double>(c), ids), oracle), kDouble);
  EXPECT_LE(error(stepwise_logits(ctx, load<float>(c), ids), golden), c.tolerance("recurrent"));
}

TEST_P(Fla, Loss) {
  Cpu ctx;
  const double golden = c.io().at("loss").values.at(0);
  const auto wide = load<double>(c);
  const auto narrow = load<float>(c);
  for (const Form form : kForms) {
    EXPECT_LE(std::abs(loss_of(ctx, wide, form, ids) / golden - 1.0), kDouble);
    EXPECT_LE(std::abs(loss_of(ctx, narrow, form, ids) / golden - 1.0), kLossTolerance);
  }
}

TEST_P(Fla, Generation) {
  if (!c.info().contains("generation")) {
    EXPECT_FALSE(c.io().has("generated_ids"));
    return;
  }
  for (const Form prefill : kForms) {
    EXPECT_EQ(generate(load<double>(c), c, prefill), generated(c));
    EXPECT_EQ(generate(load<float>(c), c, prefill), generated(c));
  }
}

// Every tensor of logits is used by a test of this folder.
TEST_P(Fla, NoTensorIsMissed) {
  const std::set<std::string> known{"logits.parallel",       "logits.recurrent", "logits.chunkwise",
                                    "logits.float64_oracle", "logits.masked",    "logits.packed",
                                    "logits.bf16_run"};
  for (const auto& [key, array] : c.io().arrays())
    EXPECT_TRUE(!key.starts_with("logits.") || known.contains(key)) << key;
  for (const auto& [mode, tolerance] : c.info().at("tolerance_rel").items())
    EXPECT_TRUE(c.io().has("logits." + mode)) << mode;
  EXPECT_EQ(c.io().has("logits.masked"), c.info().contains("mask_note"));
  EXPECT_EQ(c.io().has("logits.packed"), c.info().contains("packed_note"));
  EXPECT_EQ(c.io().has("logits.bf16_run"), c.info().contains("bf16_run"));
}

INSTANTIATE_TEST_SUITE_P(Golden, Fla, testing::ValuesIn(names_of("fla_")),
                         test_name<testing::TestParamInfo<std::string>>);

TEST(FlaPadding, MaskedLogitsWhereTheMaskIsOne) {
  const Case c("fla_left_padded");
  const Array& ids = c.io().at("input_ids");
  const Array& mask = c.io().at("attention_mask");
  const Array& golden = c.io().at("logits.masked");
  const auto tokens = tokens_of(ids);
  const Sequences sequences = sequences_of(ids, &mask);
  ASSERT_TRUE(sequences.padded());
  Cpu ctx;
  const auto expect = [&]<class S>(S) {
    const auto model = load<S>(c);
    for (const Form form : kForms)
      EXPECT_LE(masked_error(logits_of(ctx, model, form, sequences, tokens), golden, mask),
                c.tolerance("masked"))
          << form.name() << " " << form.chunk;
  };
  expect(double{});
  expect(float{});
}

TEST(FlaPacking, EachSequenceStartsAnew) {
  const Case c("fla_packed");
  const Array& golden = c.io().at("logits.packed");
  const auto tokens = tokens_of(c.io().at("packed_ids"));
  std::vector<Index> borders;
  for (const double b : c.io().at("cu_seqlens").values) borders.push_back(static_cast<Index>(b));
  const auto sequences = Sequences::packed(std::span<const Index>(borders));
  ASSERT_GE(sequences.count(), 2);
  Cpu ctx;
  const auto expect = [&]<class S>(S) {
    const auto model = load<S>(c);
    for (const Form form : kForms)
      EXPECT_LE(error(logits_of(ctx, model, form, sequences, tokens), golden),
                c.tolerance("packed"))
          << form.name() << " " << form.chunk;
  };
  expect(double{});
  expect(float{});
}

}  // namespace
}  // namespace retnet::golden
