// SPDX-License-Identifier: MIT
// Checkpoints in bfloat16: widened to float, and kept in bfloat16 under a float model. Both are the
// same numbers, so both must reproduce what the reference computes in float32 on them.

#include <gtest/gtest.h>

#include "golden/generation.hpp"

namespace retnet::golden {
namespace {

class Bfloat16 : public testing::TestWithParam<std::string> {
 protected:
  const Case c{GetParam()};
  const Array& ids = c.io().at("input_ids");
  const Buffer<Token> tokens = tokens_of(ids);
  const Sequences sequences = sequences_of(ids, nullptr);
  const RetNetModel<float, bfloat16> model = load<float, bfloat16>(c, Compat::reference);
};

std::vector<std::string> cases_in_bfloat16() {
  std::vector<std::string> out;
  for (const auto& name : model_names())
    if (Case(name).info().at("weights_dtype") == "BF16") out.push_back(name);
  return out;
}

TEST_P(Bfloat16, EveryMode) {
  Cpu ctx;
  Reference plain;
  for (const auto& [mode, tolerance] : c.info().at("tolerance_rel").items()) {
    const Form form = form_of(c, mode);
    const Array& golden = c.io().at("logits." + mode);
    EXPECT_LE(error(logits_of(ctx, model, form, sequences, tokens), golden), c.tolerance(mode))
        << mode;
    EXPECT_LE(error(logits_of(plain, model, form, sequences, tokens), golden), c.tolerance(mode))
        << mode;
  }
  EXPECT_LE(error(stepwise_logits(ctx, model, ids), c.io().at("logits.recurrent")),
            c.tolerance("recurrent"));
}

TEST_P(Bfloat16, WideningTheWeightsIsExact) {
  Cpu ctx;
  const auto wide = load<float>(c, Compat::reference);
  for (const auto& entry : wide.layout().entries()) {
    const auto narrow = model.weight_buffer()[model.layout().find(entry.name)->place];
    const auto given = wide.weight_buffer()[entry.place];
    for (Index i = 0; i < entry.place.size(); ++i)
      ASSERT_EQ(given.data[i], static_cast<float>(narrow.data[i])) << entry.name;
  }
  for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)})
    EXPECT_TRUE(test::same_bits(logits_of(ctx, model, form, sequences, tokens),
                                logits_of(ctx, wide, form, sequences, tokens)))
        << form.name();
}

TEST_P(Bfloat16, Loss) {
  Cpu ctx;
  const double golden = c.io().at("loss").values.at(0);
  EXPECT_LE(std::abs(loss_of(ctx, model, Form::parallel(), ids) / golden - 1.0), kLossTolerance);
}

TEST_P(Bfloat16, Generation) {
  if (!c.info().contains("generation")) {
    EXPECT_FALSE(c.io().has("generated_ids"));
    return;
  }
  EXPECT_EQ(generate(model, c, Form::recurrent()), generated(c));
}

INSTANTIATE_TEST_SUITE_P(Golden, Bfloat16, testing::ValuesIn(cases_in_bfloat16()),
                         test_name<testing::TestParamInfo<std::string>>);

// The whole model in bfloat16 is another computation: near, and no more.
TEST(Bfloat16Run, IsNear) {
  const Case c("fla_bf16");
  const Array& golden = c.io().at("logits.bf16_run");
  const auto model = load<float, bfloat16>(c);
  const Array& ids = c.io().at("input_ids");
  Cpu ctx;
  const auto y =
      logits_of(ctx, model, Form::parallel(), sequences_of(ids, nullptr), tokens_of(ids));
  EXPECT_LE(error(y, golden), 3e-2);
  double difference = 0.0, size = 0.0;
  for (Index i = 0; i < y.size(); ++i) {
    const double expected = golden.values[static_cast<std::size_t>(i)];
    difference += std::pow(static_cast<double>(y[i]) - expected, 2);
    size += expected * expected;
  }
  EXPECT_LE(std::sqrt(difference / size), 2e-2);
}

}  // namespace
}  // namespace retnet::golden
