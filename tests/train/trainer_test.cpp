// SPDX-License-Identifier: MIT
#include "retnet/train/trainer.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/train/schedule.hpp"
#include "support/compare.hpp"
#include "support/count_allocations.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"

namespace retnet {
namespace {

constexpr Index kVocab = 40;

RetNetConfig small_config(double dropout = 0.0) {
  RetNetConfig c{.vocab = kVocab, .d_model = 24, .layers = 3, .retention = {.heads = 3}};
  c.dropout = c.feed_forward.activation_dropout = dropout;
  return c;
}

Batch random_batch(Index batch, Index tokens, std::uint64_t stream) {
  const auto text = test::random_indices(batch * (tokens + 1), kVocab, stream);
  Batch out{.batch = batch, .tokens = tokens};
  for (Index b = 0; b < batch; ++b)
    for (Index t = 0; t < tokens; ++t) {
      out.inputs.push_back(text[b * (tokens + 1) + t]);
      out.targets.push_back(text[b * (tokens + 1) + t + 1]);
    }
  return out;
}

/// Rows [first, first + count) of a batch.
Batch rows_of_batch(const Batch& whole, Index first, Index count) {
  const auto cut = [&](const std::vector<std::int32_t>& x) {
    const auto begin = x.begin() + first * whole.tokens;
    return std::vector<std::int32_t>(begin, begin + count * whole.tokens);
  };
  return {count, whole.tokens, cut(whole.inputs), cut(whole.targets)};
}

template <class S>
std::span<const S> flat(const ParamBuffer<S>& buffer) {
  return buffer.flat();
}
template <class S>
void expect_same_weights(const Trainer<S>& a, const Trainer<S>& b) {
  EXPECT_TRUE(test::same_bits(flat(a.weights()), flat(b.weights())));
  EXPECT_TRUE(
      test::same_bits(flat(a.optimizer().first_moment()), flat(b.optimizer().first_moment())));
  EXPECT_TRUE(
      test::same_bits(flat(a.optimizer().second_moment()), flat(b.optimizer().second_moment())));
}

/// A few steps from one seed; what differs is in the config and the context.
template <class S>
Trainer<S> trained(const RetNetConfig& model, TrainerConfig config, int threads = 1,
                   int steps = 3) {
  Trainer<S> trainer(RetNetModel<S>(model, Seed{1}), config);
  Cpu ctx(threads);
  for (int n = 0; n < steps; ++n) {
    const auto report = trainer.step(ctx, random_batch(3, 70, static_cast<std::uint64_t>(n)), 0.01);
    EXPECT_FALSE(report.skipped);
  }
  return trainer;
}

template <class S>
class TrainerOf : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(TrainerOf, Scalars);

TEST(Trainer, LearnsAShortTextByHeart) {
  constexpr std::string_view kText =
      "It is a truth universally acknowledged, that a single man in pos";
  static_assert(kText.size() == 64);
  const RetNetModel<float> model(
      {.vocab = 256, .d_model = 32, .layers = 1, .retention = {.heads = 2}}, Seed{3});
  Trainer<float> trainer(model, {});
  const RandomCrops<char> crops(kText, 1, 63, Seed{});
  const CosineSchedule schedule{.peak = 0.01, .warmup = 0.1};
  Cpu ctx;
  Batch batch;
  constexpr int kSteps = 150;
  for (int n = 0; n < kSteps; ++n) {
    crops.fill(n, batch);
    trainer.step(ctx, batch, schedule.at(n / double{kSteps}));
  }
  const auto learnt = trainer.snapshot();
  const Sequences rows = Sequences::dense(1, 63);
  const LossSum loss = learnt.loss(ctx, learnt.weights(), {Form::recurrent(), rows},
                                   batch.input_view(), batch.target_view());
  EXPECT_EQ(loss.rows, 63);
  EXPECT_LT(loss.mean() / std::numbers::ln2, 0.05) << "bits per byte";
}

TEST(Trainer, AReportSaysWhatHappened) {
  const RetNetModel<double> model(small_config(), Seed{1});
  Trainer<double> trainer(model, {.clip_norm = 1e-3});
  Cpu ctx;
  Batch batch = random_batch(2, 9, 1);
  for (const std::size_t i : {0U, 5U, 17U}) batch.targets[i] = kIgnore;
  const auto report = trainer.step(ctx, batch, 0.01);
  const Sequences rows = Sequences::dense(2, 9);
  const LossSum loss = model.loss(ctx, model.weights(), {Form::parallel(), rows},
                                  batch.input_view(), batch.target_view());
  EXPECT_EQ(report.tokens, 15);
  EXPECT_NEAR(report.loss, loss.mean(), 1e-12 * report.loss);
  EXPECT_FALSE(report.skipped);
  EXPECT_GT(report.grad_norm, 1e-2) << "before clipping";
  EXPECT_NEAR(global_norm(ctx, flat(trainer.gradient())), 1e-3, 1e-12) << "after clipping";
  EXPECT_EQ(trainer.step(), 1);
  EXPECT_EQ(trainer.optimizer().steps(), 1);
}

TYPED_TEST(TrainerOf, ALearningRateOf0ChangesNoBit) {
  const RetNetModel<TypeParam> model(small_config(), Seed{1});
  Trainer<TypeParam> trainer(model, {});
  Cpu ctx;
  for (std::uint64_t n = 0; n < 3; ++n) trainer.step(ctx, random_batch(2, 30, n), 0.0);
  EXPECT_TRUE(test::same_bits(flat(trainer.weights()), flat(model.weight_buffer())));
  EXPECT_TRUE(
      test::same_bits(flat(trainer.snapshot().weight_buffer()), flat(model.weight_buffer())));
  trainer.step(ctx, random_batch(2, 30, 0), 1e-4);
  EXPECT_FALSE(test::same_bits(flat(trainer.weights()), flat(model.weight_buffer())));
}

TYPED_TEST(TrainerOf, PartsOfABatchAccumulateToTheWholeBatch) {
  Batch whole = random_batch(4, 33, 1);
  for (std::size_t i = 40; i < 60; ++i) whole.targets[i] = kIgnore;  // parts of unequal weight
  const RetNetModel<TypeParam> model(small_config(), Seed{1});
  const double bound = std::is_same_v<TypeParam, float> ? 1e-6 : 1e-12;
  Cpu ctx;
  Trainer<TypeParam> once(model, {});
  const auto expected = once.step(ctx, whole, 0.01);
  for (const Index first : {2, 1, 3}) {
    Trainer<TypeParam> parts(model, {});
    parts.accumulate(ctx, rows_of_batch(whole, 0, first));
    parts.accumulate(ctx, rows_of_batch(whole, first, 4 - first));
    const auto given = parts.update(ctx, 0.01);
    EXPECT_EQ(given.tokens, expected.tokens);
    EXPECT_NEAR(given.loss, expected.loss, bound * expected.loss);
    EXPECT_NEAR(given.grad_norm, expected.grad_norm, bound * expected.grad_norm);
    EXPECT_LT(test::relative_error(flat(parts.gradient()), flat(once.gradient())), bound);
    EXPECT_EQ(parts.step(), 1);
  }
}

TEST(Trainer, AnUpdateForgetsTheGradientOfTheLastOne) {
  const RetNetModel<double> model(small_config(), Seed{1});
  Trainer<double> one(model, {}), two(model, {});
  Cpu ctx;
  one.step(ctx, random_batch(2, 20, 1), 0.0);
  const auto second = one.step(ctx, random_batch(2, 20, 2), 0.0);
  const auto first = two.step(ctx, random_batch(2, 20, 2), 0.0);
  EXPECT_EQ(second.grad_norm, first.grad_norm);
  EXPECT_TRUE(test::same_bits(flat(one.gradient()), flat(two.gradient())));
}

TYPED_TEST(TrainerOf, RecomputingActivationsChangesNoBit) {
  for (const bool carry : {false, true}) {
    const TrainerConfig keep{.carry_state = carry};
    const TrainerConfig recompute{.recompute = true, .carry_state = carry};
    const auto config = small_config(0.1);  // the masks are drawn twice
    expect_same_weights(trained<TypeParam>(config, recompute), trained<TypeParam>(config, keep));
  }
}

TYPED_TEST(TrainerOf, ThreadsChangeNoBit) {
  const auto config = small_config(0.1);
  const auto one = trained<TypeParam>(config, {}, 1);
  expect_same_weights(trained<TypeParam>(config, {}, 2), one);
  expect_same_weights(trained<TypeParam>(config, {}, 3), one);
}

TYPED_TEST(TrainerOf, TheFormChangesTheCostOnly) {
  const double bound = test::tolerance<TypeParam>();
  const RetNetModel<TypeParam> model(small_config(), Seed{1});
  const Batch batch = random_batch(2, 150, 1);
  Cpu ctx;
  Trainer<TypeParam> parallel(model, {.form = Form::parallel()});
  const auto expected = parallel.step(ctx, batch, 0.0);
  for (const Form form : {Form::chunkwise(64), Form::chunkwise(1), Form::chunkwise(37),
                          Form::chunkwise(500), Form::recurrent()}) {
    Trainer<TypeParam> other(model, {.form = form});
    const auto given = other.step(ctx, batch, 0.0);
    EXPECT_NEAR(given.loss, expected.loss, bound * expected.loss) << form.name() << form.chunk;
    EXPECT_NEAR(given.grad_norm, expected.grad_norm, bound * expected.grad_norm);
    EXPECT_LT(test::relative_error(flat(other.gradient()), flat(parallel.gradient())), bound)
        << form.name() << " " << form.chunk;
  }
}

TYPED_TEST(TrainerOf, ACarriedStateMakesSegmentsOneText) {
  constexpr Index kSegment = 25, kSegments = 6;
  const auto tokens = test::random_indices(2 * kSegment * kSegments + 1, kVocab, 9);
  const TextStreams<std::int32_t> streams(tokens.span(), 2, kSegment);
  ASSERT_EQ(streams.steps_per_pass(), kSegments);
  const RetNetModel<TypeParam> model(small_config(), Seed{1});
  Trainer<TypeParam> carrying(model, {.carry_state = true}), forgetting(model, {});
  Cpu ctx;
  double with = 0.0, without = 0.0;
  Batch batch;
  for (Index n = 0; n < kSegments; ++n) {
    streams.fill(n, batch);
    with += carrying.step(ctx, batch, 0.0).loss / double{kSegments};
    without += forgetting.step(ctx, batch, 0.0).loss / double{kSegments};
  }
  const TextStreams<std::int32_t> whole(tokens.span(), 2, kSegment * kSegments);
  whole.fill(0, batch);
  const Sequences rows = Sequences::dense(2, kSegment * kSegments);
  const double expected = model
                              .loss(ctx, model.weights(), {Form::parallel(), rows},
                                    batch.input_view(), batch.target_view())
                              .mean();
  EXPECT_NEAR(with, expected, test::tolerance<TypeParam>() * expected);
  EXPECT_GT(std::abs(without - expected), 1e-4 * expected) << "the test must see a lost state";
  EXPECT_EQ(carrying.carried_state().position(1), kSegment * kSegments);

  carrying.carried_state().reset();  // a new pass
  streams.fill(0, batch);
  Trainer<TypeParam> fresh(model, {});
  EXPECT_EQ(carrying.step(ctx, batch, 0.0).loss, fresh.step(ctx, batch, 0.0).loss);
}

TYPED_TEST(TrainerOf, AGradientThatIsNotFiniteIsSkippedAndReported) {
  const RetNetModel<TypeParam> model(small_config(), Seed{1});
  Trainer<TypeParam> trainer(model, {.carry_state = true});
  Cpu ctx;
  EXPECT_FALSE(trainer.step(ctx, random_batch(2, 20, 1), 0.01).skipped);
  const auto good = trainer.weights();
  const auto first = trainer.optimizer().first_moment(),
             second = trainer.optimizer().second_moment();
  trainer.weights().flat()[5] = std::numeric_limits<TypeParam>::quiet_NaN();  // a row of token 0
  const auto poisoned = trainer.weights();
  Batch batch = random_batch(2, 20, 2);
  batch.inputs[3] = 0;
  const auto report = trainer.step(ctx, batch, 0.01);
  EXPECT_TRUE(report.skipped);
  EXPECT_FALSE(std::isfinite(report.loss) && std::isfinite(report.grad_norm));
  EXPECT_TRUE(test::same_bits(flat(trainer.weights()), flat(poisoned)));
  EXPECT_TRUE(test::same_bits(flat(trainer.optimizer().first_moment()), flat(first)));
  EXPECT_TRUE(test::same_bits(flat(trainer.optimizer().second_moment()), flat(second)));
  EXPECT_EQ(trainer.optimizer().steps(), 1);
  EXPECT_EQ(trainer.step(), 2) << "the next batch is the next one";
  EXPECT_EQ(trainer.carried_state().position(), 0) << "a poisoned state is not carried on";

  trainer.weights() = good;  // mended, it goes on
  const auto after = trainer.step(ctx, batch, 0.01);
  EXPECT_FALSE(after.skipped);
  EXPECT_TRUE(std::isfinite(after.loss));
}

TEST(Trainer, AnInfiniteLearningRateStopsAtTheNextStep) {
  Trainer<float> trainer(RetNetModel<float>(small_config(), Seed{1}), {});
  Cpu ctx;
  trainer.step(ctx, random_batch(2, 20, 1), std::numeric_limits<double>::infinity());
  const auto ruined = trainer.weights();
  for (std::uint64_t n = 2; n < 5; ++n)
    EXPECT_TRUE(trainer.step(ctx, random_batch(2, 20, n), 0.01).skipped);
  EXPECT_TRUE(test::same_bits(flat(trainer.weights()), flat(ruined)));
}

TEST(Trainer, ARunResumesFromThreeBuffersAndTwoNumbers) {
  const auto config = small_config(0.2);
  const TrainerConfig options{.dropout_seed = Seed{8}};
  const auto expected = trained<float>(config, options, 1, 6);
  const auto first_half = trained<float>(config, options, 1, 3);

  Trainer<float> resumed(first_half.snapshot(), options);
  resumed.optimizer().first_moment() = first_half.optimizer().first_moment();
  resumed.optimizer().second_moment() = first_half.optimizer().second_moment();
  resumed.optimizer().set_steps(first_half.optimizer().steps());
  resumed.set_step(first_half.step());
  Cpu ctx;
  for (std::uint64_t n = 3; n < 6; ++n) resumed.step(ctx, random_batch(3, 70, n), 0.01);
  expect_same_weights(resumed, expected);
}

TEST(Trainer, DropoutFollowsItsSeedAndTheStep) {
  const RetNetModel<float> model(small_config(0.3), Seed{1});
  const Batch batch = random_batch(2, 20, 1);
  Cpu ctx;
  const auto losses = [&](std::uint64_t seed) {
    Trainer<float> trainer(model, {.dropout_seed = Seed{seed}});
    return std::vector<double>{trainer.step(ctx, batch, 0.0).loss,
                               trainer.step(ctx, batch, 0.0).loss};
  };
  const auto given = losses(1);
  EXPECT_EQ(given, losses(1));
  EXPECT_NE(given, losses(2));
  EXPECT_NE(given[0], given[1]) << "each step has its own masks";
}

TEST(Trainer, PackedRowsAreTheirSequences) {
  const RetNetModel<double> model(small_config(), Seed{1});
  Batch batch = random_batch(1, 30, 1);
  const std::vector<Index> bounds{0, 11, 12, 30};
  Cpu ctx;
  Trainer<double> packed(model, {}), apart(model, {});
  packed.accumulate(ctx, Sequences::packed<Index>(bounds), batch.input_view(), batch.target_view());
  const auto given = packed.update(ctx, 0.0);
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
    const auto cut = [&](const std::vector<std::int32_t>& x) {
      return std::vector<std::int32_t>(x.begin() + bounds[i], x.begin() + bounds[i + 1]);
    };
    apart.accumulate(ctx, {1, bounds[i + 1] - bounds[i], cut(batch.inputs), cut(batch.targets)});
  }
  const auto expected = apart.update(ctx, 0.0);
  EXPECT_NEAR(given.loss, expected.loss, 1e-12 * expected.loss);
  EXPECT_LT(test::relative_error(flat(packed.gradient()), flat(apart.gradient())), 1e-12);
}

long allocations_of_warm_steps(int threads, bool recompute, int steps) {
  Trainer<float> trainer(RetNetModel<float>(small_config(0.1), Seed{1}),
                         {.recompute = recompute, .carry_state = true});
  Cpu ctx(threads);
  const Batch batch = random_batch(2, 40, 1);
  for (int n = 0; n < 3; ++n) trainer.step(ctx, batch, 0.001);
  return test::count_allocations([&] {
    for (int n = 0; n < steps; ++n) trainer.step(ctx, batch, 0.001);
  });
}

TEST(Trainer, AWarmStepAllocatesNothing) {
  EXPECT_EQ(allocations_of_warm_steps(1, false, 3), 0);
  EXPECT_EQ(allocations_of_warm_steps(1, true, 3), 0);
}

// Which thread meets the largest task first is chance: until then its scratch may grow.
TEST(Trainer, OnSeveralThreadsOnlyScratchMayGrow) {
  EXPECT_LT(allocations_of_warm_steps(2, false, 20), 20) << "less than one a step";
}

TEST(Trainer, ErrorsSayWhatWasGivenAndWhatWasExpected) {
  const RetNetModel<float> model(small_config(), Seed{1});
  using test::message_of;
  EXPECT_EQ(message_of([&] { Trainer<float>(model, {.clip_norm = 0.0}); }),
            "[Trainer::Trainer] clip_norm = 0, expected > 0");
  EXPECT_EQ(message_of([&] { Trainer<float>(model, {.adamw = {.beta1 = 2.0}}); }),
            "[AdamWConfig] beta1 = 2, expected in [0, 1)");
  Trainer<float> trainer(model, {});
  Cpu ctx;
  EXPECT_EQ(message_of([&] { trainer.update(ctx, 0.1); }),
            "[Trainer::update] no target was accumulated, expected at least one");
  Batch batch = random_batch(1, 4, 1);
  batch.targets[2] = kVocab;
  EXPECT_NE(message_of([&] { trainer.step(ctx, batch, 0.1); }).find("target 40 at row 2"),
            std::string::npos);
  batch.targets[2] = 1;
  batch.inputs[1] = -7;
  EXPECT_NE(message_of([&] { trainer.step(ctx, batch, 0.1); }).find("token -7 at row 1"),
            std::string::npos);
}

}  // namespace
}  // namespace retnet
