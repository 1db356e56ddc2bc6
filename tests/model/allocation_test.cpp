// SPDX-License-Identifier: MIT
// A generation step and a training step after the first allocate nothing.

#include <gtest/gtest.h>

#include "model/models.hpp"
#include "support/count_allocations.hpp"

namespace retnet::test {
namespace {

// Which of two threads gets a task is up to chance, so each may warm up late, but only once.
template <class F>
void expect_none_when_warm(int threads, const std::string& what, F&& step) {
  step();
  int quiet = 0;
  for (int call = 0; call < (threads == 1 ? 5 : 3000) && quiet < 5; ++call)
    quiet = count_allocations(step) == 0 ? quiet + 1 : 0;
  EXPECT_EQ(quiet, 5) << what << " threads " << threads;
}

TEST(ModelAllocations, AreCounted) {
  EXPECT_GE(count_allocations([] { const RetNetModel<float> model(models().front().config); }), 1);
}

// A cache of keys and values grows with what it remembers.
TEST(ModelAllocations, NoneInAWarmGenerationStep) {
  for (const auto& m : models()) {
    if (!only_retention(m.config)) continue;
    const RetNetModel<float> model(m.config);
    for (const int threads : {1, 2}) {
      Cpu ctx(threads);
      auto state = model.initial_state(3);
      const auto tokens = random_indices(3, kVocab, 1);
      Buffer<float> out(3 * kVocab);
      expect_none_when_warm(threads, m.name, [&] {
        const auto one = Sequences::dense(3, 1);
        model.forward(ctx, model.weights(), Pass{Form::recurrent(), one},
                      TokenView(tokens.data(), {3, 1}), &state,
                      View<float, 3>(out.data(), {3, 1, kVocab}));
      });
    }
  }
}

TEST(ModelAllocations, NoneInAWarmTrainingStep) {
  const std::array<Index, 4> borders{0, 9, 10, 40};
  const auto packed = Sequences::packed(std::span<const Index>(borders));
  const DropoutKey key{Seed{1}, 1};
  for (auto m : models()) {
    m.config.dropout = 0.1;
    const RetNetModel<float> model(m.config);
    const auto tokens = random_indices(40, kVocab, 1), targets = random_indices(40, kVocab, 2);
    ParamBuffer<float> gradient(model.layout());
    for (const int threads : {1, 2})
      for (const bool recompute : {false, true})
        for (const bool with_state : {false, true}) {
          if (with_state && !only_retention(m.config)) continue;  // caches grow
          Cpu ctx(threads);
          RetNetModel<float>::Saved saved;
          saved.recompute = recompute;
          auto state = model.initial_state(3), dstate = state;
          expect_none_when_warm(threads, m.name + (recompute ? " recompute" : ""), [&] {
            model.loss_and_gradient(ctx, model.weights(), Pass{Form::chunkwise(16), packed, &key},
                                    TokenView(tokens.data(), {1, 40}),
                                    TokenView(targets.data(), {1, 40}),
                                    with_state ? &state : nullptr, saved, gradient.ref(), 0.1,
                                    with_state ? &dstate : nullptr);
          });
        }
  }
}

}  // namespace
}  // namespace retnet::test
