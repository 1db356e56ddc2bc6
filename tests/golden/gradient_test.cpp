// SPDX-License-Identifier: MIT
// Gradients of the mean next-token loss against those of the reference implementations, every
// trainable tensor of every case that holds them.

#include <gtest/gtest.h>

#include "golden/generation.hpp"

namespace retnet::golden {
namespace {

std::vector<std::string> cases_with_gradients() {
  std::vector<std::string> out;
  for (const auto& name : model_names())
    if (Case(name).info().contains("grad")) out.push_back(name);
  return out;
}

class Gradient : public testing::TestWithParam<std::string> {
 protected:
  const Case c{GetParam()};

  template <class S>
  void expect_golden(Form form, bool recompute) {
    Cpu ctx;
    const auto model = load<S>(c, Compat::reference);
    const Array& ids = c.io().at("input_ids");
    const auto tokens = tokens_of(ids), targets = next_tokens(ids);
    const Sequences sequences = sequences_of(ids, nullptr);
    ParamBuffer<S> gradient(model.layout());
    typename RetNetModel<S>::Saved saved;
    saved.recompute = recompute;
    const double scale = 1.0 / static_cast<double>(ids.shape[0] * (ids.shape[1] - 1));
    const LossSum loss = model.loss_and_gradient(
        ctx, model.weights(), Pass{form, sequences}, TokenView(tokens.data(), {1, tokens.size()}),
        TokenView(targets.data(), {1, targets.size()}), nullptr, saved, gradient.ref(), scale);
    EXPECT_LE(std::abs(loss.mean() / c.io().at("loss").values.at(0) - 1.0), kLossTolerance);

    const double tolerance = c.info().at("grad").at("tolerance_rel").get<double>();
    std::size_t compared = 0, given = 0;
    for (const auto& tensor : keyed_tensors(inspect_pretrained(c.folder()).keys, model.layout())) {
      const Array& golden = c.io().at("grad." + tensor.key);
      EXPECT_EQ(tensor.shape, golden.shape);
      const auto ours = gather<S>(tensor, gradient);
      EXPECT_LE(
          test::relative_error(std::span<const S>(ours), std::span<const double>(golden.values)),
          tolerance)
          << tensor.key << " " << form.name();
      ++compared;
    }
    for (const auto& [key, array] : c.io().arrays()) given += key.starts_with("grad.");
    EXPECT_EQ(compared, given);
  }
};

TEST_P(Gradient, Parallel) {
  ASSERT_EQ(c.info().at("grad").at("mode"), "parallel");
  expect_golden<double>(Form::parallel(), false);
  expect_golden<float>(Form::parallel(), false);
}

TEST_P(Gradient, ParallelWithRecomputation) { expect_golden<float>(Form::parallel(), true); }

// Where all modes are one maths the chunkwise gradient is the parallel one.
TEST_P(Gradient, Chunkwise) {
  if (!c.fla()) {
    EXPECT_THROW(expect_golden<double>(Form::chunkwise(16), false), std::invalid_argument);
    return;
  }
  for (const Index chunk : {1, 16, 64}) {
    expect_golden<double>(Form::chunkwise(chunk), false);
    expect_golden<float>(Form::chunkwise(chunk), chunk == 16);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Gradient, testing::ValuesIn(cases_with_gradients()),
                         test_name<testing::TestParamInfo<std::string>>);

}  // namespace
}  // namespace retnet::golden
