// SPDX-License-Identifier: MIT
// A whole model is one function in all three forms, whatever the preset, the batch, the cut of the
// sequence and the number of threads.

#include <gtest/gtest.h>

#include "model/models.hpp"

namespace retnet::test {
namespace {

template <class S>
class ModelForms : public testing::Test {
 protected:
  template <class F>
  void for_models(F&& f) {
    for (const auto& m : models()) {
      SCOPED_TRACE(m.name);
      f(random_model<S>(m.config));
    }
  }
  Cpu ctx;
};

using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ModelForms, Scalars);

TYPED_TEST(ModelForms, AreEqual) {
  using S = TypeParam;
  Reference plain;
  for (const auto& m : smooth_models()) {
    SCOPED_TRACE(m.name);
    const auto model = random_model<S>(m.config);
    for (const Index length : {1, 2, 64, 65}) {
      const auto sequences = Sequences::dense(2, length);
      const auto tokens = random_indices(2 * length, kVocab, 1);
      auto oracle_state = model.initial_state(2);
      const auto oracle = logits(plain, model, Form::parallel(), sequences, tokens, &oracle_state);
      const auto expect = [&](auto& context, Form form) {
        auto state = model.initial_state(2);
        EXPECT_LE(relative_error(logits(context, model, form, sequences, tokens, &state), oracle),
                  tolerance<S>())
            << form.name() << form.chunk << " T" << length;
        EXPECT_LE(model_state_error(state, oracle_state), tolerance<S>())
            << form.name() << form.chunk << " T" << length;
        EXPECT_LE(relative_error(logits(context, model, form, sequences, tokens), oracle),
                  tolerance<S>())
            << form.name() << form.chunk << " T" << length;
      };
      for (const Form form : forms(length)) {
        expect(this->ctx, form);
        expect(plain, form);
      }
    }
  }
}

// The published eps, the initialisation of a new model: where the forms of other implementations
// part.
TYPED_TEST(ModelForms, AreEqualAtInitialisation) {
  using S = TypeParam;
  for (const auto& m : models()) {
    const RetNetModel<S> model(m.config, Seed{3});
    const auto sequences = Sequences::dense(1, 130);
    const auto tokens = random_indices(130, kVocab, 1);
    const auto y = logits(this->ctx, model, Form::parallel(), sequences, tokens);
    for (const Form form : forms(130))
      EXPECT_LE(relative_error(logits(this->ctx, model, form, sequences, tokens), y),
                tolerance<S>())
          << m.name << " " << form.name() << form.chunk;
  }
}

TYPED_TEST(ModelForms, SwitchAtEverySplit) {
  using S = TypeParam;
  constexpr Index kLength = 24;
  const auto tokens = random_indices(kLength, kVocab, 1);
  for (const auto& m : smooth_models()) {
    SCOPED_TRACE(m.name);
    const auto model = random_model<S>(m.config);
    auto whole_state = model.initial_state();
    const auto whole = logits(this->ctx, model, Form::parallel(), Sequences::dense(1, kLength),
                              tokens, &whole_state);
    const std::array<Form, 3> order{Form::parallel(), Form::recurrent(), Form::chunkwise(4)};
    for (Index a = 0; a <= kLength; ++a)
      for (Index b = a; b <= kLength; ++b) {
        auto state = model.initial_state();
        Buffer<S> y(kLength * kVocab);
        Index first = 0;
        for (std::size_t part = 0; part < 3; ++part) {
          const Index last = part == 0 ? a : part == 1 ? b : kLength;
          if (first == last) continue;
          const auto now = logits(this->ctx, model, order[(part + static_cast<std::size_t>(a)) % 3],
                                  Sequences::dense(1, last - first),
                                  rows(tokens, 1, first, last - first), &state);
          std::copy_n(now.data(), now.size(), y.data() + first * kVocab);
          first = last;
        }
        EXPECT_EQ(state.position(), kLength);
        EXPECT_LE(relative_error(y, whole), tolerance<S>()) << a << " " << b;
        EXPECT_LE(model_state_error(state, whole_state), tolerance<S>()) << a << " " << b;
      }
  }
}

// Packed and padded sequences against each one alone.
template <class S, class Model>
void expect_alone(Cpu& ctx, const Model& model, const Sequences& together) {
  const auto tokens = random_indices(together.rows(), kVocab, 1);
  for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
    auto state = model.initial_state(together.count());
    const auto y = logits(ctx, model, form, together, tokens, &state);
    for (Index i = 0; i < together.count(); ++i) {
      const Segment segment = together[i];
      auto alone_state = model.initial_state();
      const auto alone = logits(ctx, model, form, Sequences::dense(1, segment.length),
                                rows(tokens, 1, segment.first_row, segment.length), &alone_state);
      EXPECT_LE(relative_error(rows(y, kVocab, segment.first_row, segment.length), alone),
                tolerance<S>())
          << form.name() << " " << i;
      const std::array<Index, 1> order{i};
      EXPECT_LE(model_state_error(state.select(order), alone_state), tolerance<S>())
          << form.name() << " " << i;
      EXPECT_EQ(state.position(i), segment.length);
    }
  }
}

TYPED_TEST(ModelForms, PackedSequencesDoNotSeeEachOther) {
  const std::array<Index, 5> borders{0, 7, 8, 40, 107};
  for (const auto& m : smooth_models()) {
    SCOPED_TRACE(m.name);
    expect_alone<TypeParam>(this->ctx, random_model<TypeParam>(m.config),
                            Sequences::packed(std::span<const Index>(borders)));
  }
}

TYPED_TEST(ModelForms, PaddingIsNotSeen) {
  const std::array<Index, 4> padding{0, 3, 20, 11};
  for (const auto& m : smooth_models()) {
    SCOPED_TRACE(m.name);
    expect_alone<TypeParam>(this->ctx, random_model<TypeParam>(m.config),
                            Sequences::left_padded(4, 21, std::span<const Index>(padding)));
  }
}

TYPED_TEST(ModelForms, BatchNeighboursAndThreadsLeaveTheBitsAlone) {
  using S = TypeParam;
  Cpu two(2);
  this->for_models([&](const auto& model) {
    for (const Index length : {1, 70})
      for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
        const auto tokens = random_indices(4 * length, kVocab, 1);
        auto state = model.initial_state(4);
        const auto y = logits(this->ctx, model, form, Sequences::dense(4, length), tokens, &state);
        auto state_of_two = model.initial_state(4);
        const auto z = logits(two, model, form, Sequences::dense(4, length), tokens, &state_of_two);
        EXPECT_TRUE(same_bits(y, z)) << form.name() << " T" << length;
        EXPECT_TRUE(same_model_state(state, state_of_two)) << form.name() << " T" << length;
        for (Index b = 0; b < 4; ++b) {
          const auto alone = logits<S>(this->ctx, model, form, Sequences::dense(1, length),
                                       rows(tokens, 1, b * length, length));
          EXPECT_TRUE(same_bits(rows(y, kVocab, b * length, length), alone))
              << form.name() << " T" << length << " " << b;
        }
      }
  });
}

TYPED_TEST(ModelForms, TheFutureDoesNotReachThePast) {
  this->for_models([&](const auto& model) {
    const auto tokens = random_indices(70, kVocab, 1);
    const auto sequences = Sequences::dense(1, 70);
    for (const Index split : {1, 16, 63, 64, 69})
      for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
        auto other = tokens;
        for (Index i = split; i < 70; ++i) other[i] = static_cast<Token>((other[i] + 5) % kVocab);
        const auto y = logits(this->ctx, model, form, sequences, tokens);
        const auto z = logits(this->ctx, model, form, sequences, other);
        EXPECT_TRUE(same_bits(rows(y, kVocab, 0, split), rows(z, kVocab, 0, split)))
            << form.name() << " " << split;
        EXPECT_FALSE(same_bits(rows(y, kVocab, split, 1), rows(z, kVocab, split, 1)));
      }
  });
}

TYPED_TEST(ModelForms, StatesAreCopiedSelectedAndReset) {
  using S = TypeParam;
  this->for_models([&](const auto& model) {
    const auto past = random_indices(3 * 9, kVocab, 1), next = random_indices(3, kVocab, 2);
    const auto one = Sequences::dense(3, 1);
    const auto step = [&](ModelState<S>& s) {
      return logits(this->ctx, model, Form::recurrent(), one, next, &s);
    };
    auto state = model.initial_state(3);
    EXPECT_EQ(state.sequences(), 3);
    logits(this->ctx, model, Form::parallel(), Sequences::dense(3, 9), past, &state);
    auto snapshot = state;
    const auto y = step(state);
    EXPECT_TRUE(same_bits(step(snapshot), y));

    const std::array<Index, 3> order{2, 2, 0};
    const auto chosen = state.select(order);
    const std::array<Index, 1> first{0}, third{2};
    EXPECT_TRUE(same_model_state(chosen.select(first), state.select(third)));
    EXPECT_TRUE(same_model_state(chosen.select(third), state.select(first)));

    auto fresh = model.initial_state(3);
    auto mixed = state;
    mixed.reset(1);
    EXPECT_EQ(mixed.position(0), 10);
    EXPECT_EQ(mixed.position(1), 0);
    const auto begin = step(fresh), go_on = step(state), both = step(mixed);
    EXPECT_TRUE(same_bits(rows(both, kVocab, 1, 1), rows(begin, kVocab, 1, 1)));
    EXPECT_TRUE(same_bits(rows(both, kVocab, 0, 1), rows(go_on, kVocab, 0, 1)));
    mixed.reset();
    EXPECT_TRUE(same_model_state(mixed, model.initial_state(3)));
    EXPECT_GT(mixed.bytes(), 3 * 2 * 4 * sizeof(S));
    EXPECT_TRUE(ModelState<S>().empty());
    EXPECT_EQ(ModelState<S>().sequences(), 0);
  });
}

double rms_error(const Buffer<float>& given, const Buffer<float>& expected) {
  double difference = 0.0, size = 0.0;
  for (Index i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(given[i]) - static_cast<double>(expected[i]), 2);
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(difference / size);
}

// bfloat16 weights stand for floats: the same bits as the widened weights. Near the float model:
// each weight is off by 2^-9 at most, and 5 % is what two blocks make of that.
TEST(Bfloat16Model, IsTheWidenedModel) {
  for (const auto& m : smooth_models()) {
    const auto model = random_model<float>(m.config);
    const auto narrow = model.with_weights(model.weight_buffer().cast<bfloat16>());
    const auto widened = model.with_weights(narrow.weight_buffer().cast<float>());
    static_assert(std::is_same_v<decltype(narrow), const RetNetModel<float, bfloat16>>);
    const auto tokens = random_indices(2 * 40, kVocab, 1);
    const auto sequences = Sequences::dense(2, 40);
    Cpu ctx;
    const auto y = logits(ctx, narrow, Form::parallel(), sequences, tokens);
    EXPECT_LE(rms_error(y, logits(ctx, model, Form::parallel(), sequences, tokens)), 5e-2)
        << m.name;
    for (const Form form : forms(40)) {
      EXPECT_LE(relative_error(logits(ctx, narrow, form, sequences, tokens), y), 1e-5) << m.name;
      EXPECT_TRUE(same_bits(logits(ctx, narrow, form, sequences, tokens),
                            logits(ctx, widened, form, sequences, tokens)))
          << m.name << " " << form.name();
    }
  }
}

}  // namespace
}  // namespace retnet::test
