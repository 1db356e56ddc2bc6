// SPDX-License-Identifier: MIT
// Checkpoints of the torchscale family: each mode of the original under Compat::reference, and its
// exact mode, the recurrent one, in all three forms under Compat::exact.

#include <gtest/gtest.h>

#include "golden/generation.hpp"
#include "golden/golden.hpp"

namespace retnet::golden {
namespace {

constexpr double kDouble = 1e-9;  // data/README.md

class Torchscale : public testing::TestWithParam<std::string> {
 protected:
  const Case c{GetParam()};
  const Array& ids = c.io().at("input_ids");
  const Buffer<Token> tokens = tokens_of(ids);
  const Sequences sequences = sequences_of(ids, nullptr);
};

// The modes of the case, after a check that the file holds them and nothing that we would miss.
std::vector<std::string> modes(const Case& c) {
  std::set<std::string> unread;
  for (const auto& [key, array] : c.io().arrays())
    if (key.starts_with("logits.")) unread.insert(key);
  std::vector<std::string> out;
  for (const auto& [mode, tolerance] : c.info().at("tolerance_rel").items()) {
    if (!mode.starts_with("masked.")) out.push_back(mode);
    EXPECT_EQ(unread.erase("logits." + mode), 1U) << mode;
  }
  for (const char* mode : {"parallel", "recurrent", "chunkwise"}) {
    EXPECT_EQ(unread.erase(std::string("logits.float64_reference.") + mode), 1U) << mode;
    EXPECT_EQ(std::count(out.begin(), out.end(), mode), 1) << mode;
  }
  EXPECT_TRUE(unread.empty()) << *unread.begin();
  return out;
}

template <class Context>
void expect_same_mode(Context& ctx, const Case& c, const Sequences& sequences,
                      const Buffer<Token>& tokens) {
  const auto wide = load<double>(c, Compat::reference);
  const auto narrow = load<float>(c, Compat::reference);
  for (const auto& mode : modes(c)) {
    const Form form = form_of(c, mode);
    const Array& golden = c.io().at("logits." + mode);
    const auto y = logits_of(ctx, wide, form, sequences, tokens);
    EXPECT_LE(error(y, golden), c.tolerance(mode)) << mode;
    EXPECT_LE(error(logits_of(ctx, narrow, form, sequences, tokens), golden), c.tolerance(mode))
        << mode;
    if (mode.starts_with("chunkwise.c")) continue;  // given in float32 only
    EXPECT_LE(error(y, c.io().at("logits.float64_reference." + mode)), kDouble) << mode;
  }
}

TEST_P(Torchscale, EachModeIsTheSameMode) {
  Cpu ctx;
  expect_same_mode(ctx, c, sequences, tokens);
}

TEST_P(Torchscale, EachModeIsTheSameModeInPlainLoops) {
  Reference ctx;
  expect_same_mode(ctx, c, sequences, tokens);
}

TEST_P(Torchscale, OurExactModeIsItsRecurrentOneInEveryForm) {
  Cpu ctx;
  const auto wide = load<double>(c);
  const auto narrow = load<float>(c);
  const Array& golden = c.io().at("logits.float64_reference.recurrent");
  const double tolerance = c.tolerance("recurrent");
  for (const auto& mode : modes(c)) {
    const Form form = form_of(c, mode);
    EXPECT_LE(error(logits_of(ctx, wide, form, sequences, tokens), golden), kDouble) << mode;
    EXPECT_LE(error(logits_of(ctx, narrow, form, sequences, tokens), golden), tolerance) << mode;
  }
  EXPECT_LE(error(stepwise_logits(ctx, wide, ids), golden), kDouble);
  EXPECT_LE(error(stepwise_logits(ctx, narrow, ids), golden), tolerance);
  EXPECT_LE(error(stepwise_logits(ctx, narrow, ids), c.io().at("logits.recurrent")), tolerance);
}

// Left padding. The chunkwise mode of the original has no masks.
TEST_P(Torchscale, MaskedLogitsWhereTheMaskIsOne) {
  if (!c.io().has("attention_mask")) return;
  const Array& mask = c.io().at("attention_mask");
  const Sequences padded = sequences_of(ids, &mask);
  ASSERT_TRUE(padded.padded());
  Cpu ctx;
  const auto expect = [&]<class S>(S) {
    const auto same = load<S>(c, Compat::reference);
    for (const std::string mode : {"parallel", "recurrent"})
      EXPECT_LE(masked_error(logits_of(ctx, same, form_of(c, mode), padded, tokens),
                             c.io().at("logits.masked." + mode), mask),
                c.tolerance("masked." + mode))
          << mode;
    const auto exact = load<S>(c);
    for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(7)})
      EXPECT_LE(masked_error(logits_of(ctx, exact, form, padded, tokens),
                             c.io().at("logits.masked.recurrent"), mask),
                c.tolerance("masked.recurrent"))
          << form.name();
  };
  expect(double{});
  expect(float{});
}

TEST_P(Torchscale, Loss) {
  Cpu ctx;
  const double golden = c.io().at("loss").values.at(0);
  const auto wide = load<double>(c, Compat::reference);
  const auto narrow = load<float>(c, Compat::reference);
  EXPECT_LE(std::abs(loss_of(ctx, wide, Form::parallel(), ids) / golden - 1.0), kDouble);
  EXPECT_LE(std::abs(loss_of(ctx, narrow, Form::parallel(), ids) / golden - 1.0), kLossTolerance);
}

TEST_P(Torchscale, Generation) {
  if (!c.info().contains("generation")) {
    EXPECT_FALSE(c.io().has("generated_ids"));
    return;
  }
  for (const Form prefill : {Form::parallel(), Form::chunkwise(3), Form::recurrent()}) {
    EXPECT_EQ(generate(load<double>(c), c, prefill), generated(c));
    EXPECT_EQ(generate(load<float>(c), c, prefill), generated(c));
  }
  EXPECT_EQ(generate(load<float>(c, Compat::reference), c, Form::recurrent()), generated(c));
}

INSTANTIATE_TEST_SUITE_P(Golden, Torchscale,
                         testing::ValuesIn(names_of("torchscale_", "syncdoth_")),
                         test_name<testing::TestParamInfo<std::string>>);

}  // namespace
}  // namespace retnet::golden
