// SPDX-License-Identifier: MIT
// Sequences in every arrangement: split anywhere with a change of form, packed, padded, batched. A
// sequence's numbers depend on its own past alone.

#include <gtest/gtest.h>

#include <tuple>

#include "layers/variants.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet::test {
namespace {

constexpr Index kTokensHere = 24;

template <class S>
class RetentionSequences : public testing::Test {
 protected:
  using Layer = MultiScaleRetention<S>;

  // f(variant, layer) for a layer of each kind.
  template <class F>
  void for_layers(F&& f) {
    for (const auto& v : some_variants()) {
      SCOPED_TRACE(v.name);
      f(v, random_layer<Layer>(v.config));
    }
  }
  Cpu ctx;
};

using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(RetentionSequences, Scalars);

// All ways to cut 24 tokens into three parts, each part in another form, the state handed over.
TYPED_TEST(RetentionSequences, FormsSwitchAtEverySplit) {
  using S = TypeParam;
  this->for_layers([&](const Variant& v, const auto& layer) {
    const Index width = v.config.d_model;
    const auto x = random_normal<S>(kTokensHere * width, 1);
    auto whole_state = layer.initial_state();
    const auto whole =
        run(this->ctx, layer, Form::parallel(), Sequences::dense(1, kTokensHere), x, &whole_state);
    const std::array<std::array<Form, 3>, 3> orders{
        {{Form::parallel(), Form::recurrent(), Form::chunkwise(4)},
         {Form::chunkwise(5), Form::parallel(), Form::recurrent()},
         {Form::recurrent(), Form::chunkwise(3), Form::parallel()}}};
    for (const auto& order : orders)
      for (Index a = 0; a <= kTokensHere; ++a)
        for (Index b = a; b <= kTokensHere; ++b) {
          auto state = layer.initial_state();
          Buffer<S> y(x.size());
          Index first = 0;
          for (std::size_t part = 0; part < 3; ++part) {
            const Index last = part == 0 ? a : part == 1 ? b : kTokensHere;
            if (first == last) continue;
            const auto now = run(this->ctx, layer, order[part], Sequences::dense(1, last - first),
                                 rows(x, width, first, last - first), &state);
            std::copy_n(now.data(), now.size(), y.data() + first * width);
            first = last;
          }
          EXPECT_LE(relative_error(y, whole), tolerance<S>()) << a << " " << b;
          EXPECT_LE(state_error(state, whole_state), tolerance<S>()) << a << " " << b;
        }
  });
}

// The oracle path hands states over as well.
TYPED_TEST(RetentionSequences, StatesPassBetweenContexts) {
  using S = TypeParam;
  Reference plain;
  this->for_layers([&](const Variant& v, const auto& layer) {
    const Index width = v.config.d_model;
    const auto x = random_normal<S>(kTokensHere * width, 1);
    const auto whole = run(this->ctx, layer, Form::parallel(), Sequences::dense(1, kTokensHere), x);
    auto state = layer.initial_state();
    Buffer<S> y(x.size());
    for (Index t = 0; t < kTokensHere; t += 6) {
      const Form form = t % 12 == 0 ? Form::chunkwise(4) : Form::recurrent();
      const auto part = rows(x, width, t, 6);
      const auto now = t % 12 == 0
                           ? run(plain, layer, form, Sequences::dense(1, 6), part, &state)
                           : run(this->ctx, layer, form, Sequences::dense(1, 6), part, &state);
      std::copy_n(now.data(), now.size(), y.data() + t * width);
    }
    EXPECT_LE(relative_error(y, whole), tolerance<S>());
  });
}

TYPED_TEST(RetentionSequences, TokenByToken) {
  using S = TypeParam;
  this->for_layers([&](const Variant& v, const auto& layer) {
    const Index width = v.config.d_model, batch = 3;
    const auto x = random_normal<S>(batch * kTokensHere * width, 1);
    const auto whole =
        run(this->ctx, layer, Form::parallel(), Sequences::dense(batch, kTokensHere), x);
    auto state = layer.initial_state(batch);
    Buffer<S> y(x.size()), now(batch * width);
    for (Index t = 0; t < kTokensHere; ++t) {
      for (Index b = 0; b < batch; ++b)
        std::copy_n(x.data() + (b * kTokensHere + t) * width, width, now.data() + b * width);
      const auto out =
          run(this->ctx, layer, Form::recurrent(), Sequences::dense(batch, 1), now, &state);
      for (Index b = 0; b < batch; ++b)
        std::copy_n(out.data() + b * width, width, y.data() + (b * kTokensHere + t) * width);
    }
    EXPECT_LE(relative_error(y, whole), tolerance<S>());
  });
}

// Five sequences in a row give the bits that each gives alone, states included.
TYPED_TEST(RetentionSequences, PackedSequencesDoNotSeeEachOther) {
  using S = TypeParam;
  const std::array<Index, 6> borders{0, 1, 20, 85, 87, 150};
  const auto packed = Sequences::packed(std::span<const Index>(borders));
  this->for_layers([&](const Variant& v, const auto& layer) {
    const Index width = v.config.d_model;
    const auto x = random_normal<S>(150 * width, 1);
    for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
      auto state = layer.initial_state(5);
      const auto y = run(this->ctx, layer, form, packed, x, &state);
      const auto stateless = run(this->ctx, layer, form, packed, x);
      EXPECT_LE(relative_error(stateless, y), tolerance<S>()) << form.name();
      for (Index i = 0; i < 5; ++i) {
        const Index first = borders[static_cast<std::size_t>(i)];
        const Index length = borders[static_cast<std::size_t>(i) + 1] - first;
        auto alone_state = layer.initial_state();
        const auto alone = run(this->ctx, layer, form, Sequences::dense(1, length),
                               rows(x, width, first, length), &alone_state);
        EXPECT_LE(relative_error(rows(y, width, first, length), alone), tolerance<S>())
            << form.name() << " " << i;
        const std::array<Index, 1> order{i};
        EXPECT_LE(state_error(state.select(order), alone_state), tolerance<S>())
            << form.name() << " " << i;
      }
    }
  });
}

TYPED_TEST(RetentionSequences, PaddingIsNotSeen) {
  using S = TypeParam;
  const Index batch = 3, length = 30;
  const std::array<Index, 3> padding{0, 7, 29};
  const auto padded = Sequences::left_padded(batch, length, std::span<const Index>(padding));
  this->for_layers([&](const Variant& v, const auto& layer) {
    const Index width = v.config.d_model;
    const auto x = random_normal<S>(batch * length * width, 1);
    for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
      auto state = layer.initial_state(batch);
      const auto y = run(this->ctx, layer, form, padded, x, &state);
      EXPECT_TRUE(std::ranges::all_of(y, [](S s) { return std::isfinite(s); })) << form.name();
      for (Index b = 0; b < batch; ++b) {
        const Index pad = padding[static_cast<std::size_t>(b)], real = length - pad;
        auto alone_state = layer.initial_state();
        const auto alone = run(this->ctx, layer, form, Sequences::dense(1, real),
                               rows(x, width, b * length + pad, real), &alone_state);
        EXPECT_LE(relative_error(rows(y, width, b * length + pad, real), alone), tolerance<S>())
            << form.name() << " " << b;
        const std::array<Index, 1> order{b};
        EXPECT_LE(state_error(state.select(order), alone_state), tolerance<S>())
            << form.name() << " " << b;
      }
    }
  });
}

// Bits, not tolerances: neighbours in the batch and the number of threads change nothing.
TYPED_TEST(RetentionSequences, BatchNeighboursLeaveTheBitsAlone) {
  using S = TypeParam;
  const Index batch = 5;
  this->for_layers([&](const Variant& v, const auto& layer) {
    const Index width = v.config.d_model;
    for (const Index length : {1, 2, 70})
      for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
        const auto x = random_normal<S>(batch * length * width, 1);
        auto state = layer.initial_state(batch);
        const auto y = run(this->ctx, layer, form, Sequences::dense(batch, length), x, &state);
        for (Index b = 0; b < batch; ++b) {
          auto alone_state = layer.initial_state();
          const auto alone = run(this->ctx, layer, form, Sequences::dense(1, length),
                                 rows(x, width, b * length, length), &alone_state);
          EXPECT_TRUE(same_bits(rows(y, width, b * length, length), alone))
              << form.name() << " T" << length << " " << b;
          const std::array<Index, 1> order{b};
          EXPECT_TRUE(same_state(state.select(order), alone_state))
              << form.name() << " T" << length << " " << b;
        }
      }
  });
}

TYPED_TEST(RetentionSequences, ThreadsLeaveTheBitsAlone) {
  using S = TypeParam;
  Cpu two(2), three(3);
  for (auto v : some_variants()) {
    v.config.d_model = 96;  // large enough that work is shared out
    v.config.d_key = 128;
    v.config.d_value = 192;
    const auto layer = random_layer<MultiScaleRetention<S>>(v.config);
    for (const Index length : {1, 150})
      for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(64)}) {
        const auto x = random_normal<S>(4 * length * 96, 1);
        const auto sequences = Sequences::dense(4, length);
        auto s1 = layer.initial_state(4), s2 = s1, s3 = s1;
        const auto y = run(this->ctx, layer, form, sequences, x, &s1);
        EXPECT_TRUE(same_bits(run(two, layer, form, sequences, x, &s2), y))
            << v.name << form.name();
        EXPECT_TRUE(same_bits(run(three, layer, form, sequences, x, &s3), y))
            << v.name << form.name();
        EXPECT_TRUE(same_state(s2, s1)) << v.name << form.name();
        EXPECT_TRUE(same_state(s3, s1)) << v.name << form.name();
      }
  }
}

// Another future, however large, leaves the past to the last bit.
TYPED_TEST(RetentionSequences, TheFutureDoesNotReachThePast) {
  using S = TypeParam;
  const Index length = 70;
  this->for_layers([&](const Variant& v, const auto& layer) {
    const Index width = v.config.d_model;
    const auto x = random_normal<S>(length * width, 1);
    for (const Index split : {1, 3, 16, 63, 64, 69})
      for (const Form form :
           {Form::parallel(), Form::recurrent(), Form::chunkwise(16), Form::chunkwise(64)}) {
        const auto sequences = Sequences::dense(1, length);
        const auto y = run(this->ctx, layer, form, sequences, x);
        auto other = x;
        for (Index i = split * width; i < other.size(); ++i) other[i] = S(1e6) - S(2e6) * other[i];
        const auto z = run(this->ctx, layer, form, sequences, other);
        EXPECT_TRUE(same_bits(rows(y, width, 0, split), rows(z, width, 0, split)))
            << form.name() << form.chunk << " " << split;
        EXPECT_FALSE(same_bits(rows(y, width, split, 1), rows(z, width, split, 1)));
      }
  });
}

// A state is a value.
TYPED_TEST(RetentionSequences, StatesAreCopiedSelectedAndReset) {
  using S = TypeParam;
  this->for_layers([&](const Variant& v, const auto& layer) {
    const Index width = v.config.d_model, batch = 3;
    const auto past = random_normal<S>(batch * 9 * width, 1);
    const auto next = random_normal<S>(batch * width, 2);
    const auto nine = Sequences::dense(batch, 9), one = Sequences::dense(batch, 1);
    const auto step = [&](auto& state, const Sequences& sequences, const Buffer<S>& x) {
      return run(this->ctx, layer, Form::recurrent(), sequences, x, &state);
    };
    auto state = layer.initial_state(batch);
    step(state, nine, past);
    EXPECT_EQ(state.positions()[1], 9);

    auto snapshot = state;  // rollback: the copy takes the same step again
    const auto y = step(state, one, next);
    EXPECT_EQ(snapshot.positions()[1], 9);
    EXPECT_TRUE(same_bits(step(snapshot, one, next), y));
    EXPECT_TRUE(same_state(snapshot, state));

    const std::array<Index, 4> order{2, 0, 0,
                                     1};  // beam search: one goes on twice, all change place
    auto chosen = state.select(order);
    Buffer<S> four(4 * width);
    for (Index i = 0; i < 4; ++i)
      std::copy_n(next.data() + order[static_cast<std::size_t>(i)] * width, width,
                  four.data() + i * width);
    const auto plain = step(state, one, next);
    const auto selected = step(chosen, Sequences::dense(4, 1), four);
    for (Index i = 0; i < 4; ++i) {
      const Index from = order[static_cast<std::size_t>(i)];
      EXPECT_TRUE(same_bits(rows(selected, width, i, 1), rows(plain, width, from, 1))) << i;
    }

    auto fresh = layer.initial_state(batch);
    auto mixed = state;
    mixed.reset(1);
    EXPECT_EQ(mixed.positions()[0], 11);
    EXPECT_EQ(mixed.positions()[1], 0);
    const auto after = step(mixed, one, next), begin = step(fresh, one, next);
    const auto goes_on = step(state, one, next);
    EXPECT_TRUE(same_bits(rows(after, width, 1, 1), rows(begin, width, 1, 1)));
    EXPECT_TRUE(same_bits(rows(after, width, 0, 1), rows(goes_on, width, 0, 1)));
    EXPECT_TRUE(same_bits(rows(after, width, 2, 1), rows(goes_on, width, 2, 1)));

    mixed.reset();
    auto zero = layer.initial_state(batch);
    EXPECT_TRUE(same_state(mixed, zero));
    EXPECT_EQ(mixed.bytes(), zero.bytes());
  });
}

}  // namespace
}  // namespace retnet::test
