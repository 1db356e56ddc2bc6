// SPDX-License-Identifier: MIT
// The gradient of the whole model: finite differences, one gradient in every form, recomputation,
// dropout, packed and padded sequences, state, and no allocation once warm.

#include <gtest/gtest.h>

#include "model/models.hpp"
#include "support/gradcheck.hpp"

namespace retnet::test {
namespace {

/// loss = scale * sum of cross-entropies + <d, final state>
template <class S>
struct Training {
  using Model = RetNetModel<S>;

  Model model;
  Sequences sequences;
  Buffer<Token> tokens, targets;
  ParamBuffer<S> weights;
  ModelState<S> initial;  // empty: none
  std::vector<Buffer<S>> d;
  const DropoutKey* dropout = nullptr;
  bool recompute = false;
  double scale = 0.1;

  Training(const RetNetConfig& config, Sequences s, bool with_state)
      : model(config),
        sequences(std::move(s)),
        tokens(random_indices(sequences.rows(), kVocab, 1)),
        targets(random_indices(sequences.rows(), kVocab, 2)),
        weights(random_weights<S>(model.layout())) {
    for (Index r = 0; r < targets.size(); ++r)
      if (r == 2 || !real(r)) targets[r] = kIgnore;
    if (!with_state || !only_retention(config)) return;
    initial = model.initial_state(sequences.count());
    std::uint64_t stream = 30;
    for (auto& any : initial.layers) {
      auto& layer = any.retention();
      fill_normal(layer.flat(), stream++, 0.5);
      for (auto& p : layer.positions()) p = 3;
      d.push_back(random_normal<S>(static_cast<Index>(layer.flat().size()), stream++, 0.1));
    }
  }

  bool real(Index row) const {
    for (Index i = 0; i < sequences.count(); ++i)
      if (row >= sequences[i].first_row && row < sequences[i].first_row + sequences[i].length)
        return true;
    return false;
  }
  Pass pass(Form form) const { return {form, sequences, dropout}; }
  TokenView view(const Buffer<Token>& t) const { return {t.data(), {1, t.size()}}; }

  double of_state(const ModelState<S>& state) const {
    double total = 0.0;
    for (std::size_t l = 0; l < d.size(); ++l)
      for (Index i = 0; i < d[l].size(); ++i)
        total += static_cast<double>(d[l][i]) *
                 static_cast<double>(state.layers[l].retention().flat()[static_cast<std::size_t>(i)]);
    return total;
  }

  struct Gradient {
    double loss;
    ParamBuffer<S> dw;
    ModelState<S> dstate;
  };

  template <class Context>
  double loss(Context& ctx, Form form) const {
    auto state = initial;
    const LossSum sum = model.loss(ctx, weights.ref(), pass(form), view(tokens), view(targets),
                                   state.empty() ? nullptr : &state);
    return scale * sum.sum + of_state(state);
  }

  template <class Context>
  Gradient gradient(Context& ctx, Form form) const {
    auto state = initial;
    Gradient g{0.0, ParamBuffer<S>(model.layout()), initial};
    for (std::size_t l = 0; l < d.size(); ++l)
      std::copy(d[l].begin(), d[l].end(), g.dstate.layers[l].retention().flat().begin());
    typename Model::Saved saved;
    saved.recompute = recompute;
    const LossSum sum =
        model.loss_and_gradient(ctx, weights.ref(), pass(form), view(tokens), view(targets),
                                state.empty() ? nullptr : &state, saved, g.dw.ref(), scale,
                                state.empty() ? nullptr : &g.dstate);
    g.loss = scale * sum.sum + of_state(state);
    return g;
  }
};

void expect_finite_differences(const NamedModel& m, const Sequences& sequences, Form form,
                               bool with_state, const DropoutKey* dropout, int samples) {
  Training<double> t(m.config, sequences, with_state);
  t.dropout = dropout;
  Cpu ctx;
  const auto g = t.gradient(ctx, form);
  EXPECT_NEAR(g.loss, t.loss(ctx, form), 1e-12 * std::abs(g.loss)) << m.name;
  const auto loss = [&] { return t.loss(ctx, form); };
  for (const auto& entry : t.model.layout().entries()) {
    const auto n = static_cast<std::size_t>(entry.place.size());
    EXPECT_LE(gradient_error({t.weights[entry.place].data, n},
                             std::span<const double>(g.dw[entry.place].data, n), loss, samples),
              1e-6)
        << m.name << " " << entry.name << " " << form.name();
  }
  for (std::size_t l = 0; l < t.d.size(); ++l)
    EXPECT_LE(
        gradient_error(t.initial.layers[l].retention().flat(), g.dstate.layers[l].retention().flat(), loss, 2 * samples),
        1e-6)
        << m.name << " state of layer " << l << " " << form.name();
}

TEST(ModelGradient, MatchesFiniteDifferences) {
  for (const auto& m : smooth_models()) {
    expect_finite_differences(m, Sequences::dense(2, 4), Form::parallel(), false, nullptr, 8);
    expect_finite_differences(m, Sequences::dense(2, 5), Form::chunkwise(2), true, nullptr, 8);
  }
}

TEST(ModelGradient, MatchesFiniteDifferencesPackedAndPadded) {
  const std::array<Index, 4> borders{0, 3, 4, 9};
  const std::array<Index, 3> padding{1, 0, 2};
  for (const auto& m : smooth_models())
    for (const Form form : {Form::parallel(), Form::chunkwise(2)}) {
      expect_finite_differences(m, Sequences::packed(std::span<const Index>(borders)), form, true,
                                nullptr, 4);
      expect_finite_differences(m, Sequences::left_padded(3, 4, std::span<const Index>(padding)),
                                form, false, nullptr, 4);
    }
}

TEST(ModelGradient, MatchesFiniteDifferencesUnderDropout) {
  const DropoutKey key{Seed{4}, 9};
  for (auto m : smooth_models()) {
    m.config.dropout = 0.2;
    m.config.feed_forward.activation_dropout = 0.25;
    expect_finite_differences(m, Sequences::dense(2, 4), Form::parallel(), true, &key, 4);
  }
}

TEST(ModelGradient, DropoutDependsOnItsKeyAlone) {
  auto m = models().front();
  m.config.dropout = 0.3;
  Training<double> t(m.config, Sequences::dense(2, 6), false);
  Cpu one(1), two(2);
  const double without = t.loss(one, Form::parallel());
  const DropoutKey a{Seed{1}, 1}, b{Seed{1}, 2};
  t.dropout = &a;
  const auto first = t.gradient(one, Form::parallel()), again = t.gradient(two, Form::parallel());
  EXPECT_NE(first.loss, without);
  EXPECT_EQ(first.loss, again.loss);
  EXPECT_TRUE(same_bits<double>(first.dw.flat(), again.dw.flat()));
  EXPECT_NEAR(t.gradient(one, Form::chunkwise(2)).loss, first.loss, 1e-12);
  t.dropout = &b;
  EXPECT_NE(t.gradient(one, Form::parallel()).loss, first.loss);
}

template <class Given, class Expected>
double weight_error(const ParamLayout& layout, const ParamBuffer<Given>& given,
                    const ParamBuffer<Expected>& expected) {
  double worst = 0.0;
  for (const auto& entry : layout.entries())
    worst = std::fmax(worst, relative_error(given[entry.place], expected[entry.place]));
  return worst;
}

template <class S>
double worst_error(const Training<S>& t, const typename Training<S>::Gradient& given,
                   const typename Training<S>::Gradient& expected) {
  return std::fmax(weight_error(t.model.layout(), given.dw, expected.dw),
                   model_state_error(given.dstate, expected.dstate));
}

// Against the plain loops in double: in float these loops are themselves 1.1e-5 from it (yoco).
template <class S>
void expect_one_gradient(double limit) {
  for (const auto& m : smooth_models())
    for (const bool with_state : {false, true}) {
      const Training<S> t(m.config, Sequences::dense(2, 40), with_state);
      const Training<double> wide(m.config, Sequences::dense(2, 40), with_state);
      Cpu ctx;
      Reference plain;
      const auto oracle = t.gradient(plain, Form::parallel());
      const auto exact = wide.gradient(plain, Form::parallel());
      for (const Form form : forms(40)) {
        const auto g = t.gradient(ctx, form);
        EXPECT_LE(weight_error(t.model.layout(), g.dw, exact.dw), limit)
            << m.name << " " << form.name() << form.chunk;
        EXPECT_LE(model_state_error(g.dstate, oracle.dstate), limit)
            << m.name << " " << form.name() << form.chunk;
        EXPECT_NEAR(g.loss / exact.loss, 1.0, limit) << m.name << " " << form.name();
      }
    }
}

TEST(ModelGradient, IsTheSameInEveryFormInDouble) { expect_one_gradient<double>(1e-11); }
TEST(ModelGradient, IsTheSameInEveryFormInFloat) { expect_one_gradient<float>(1e-5); }

// One forward more, the same numbers to the last bit.
TEST(ModelGradient, RecomputationLeavesTheBitsAlone) {
  const DropoutKey key{Seed{4}, 9};
  for (auto m : models()) {
    m.config.dropout = 0.2;
    m.config.feed_forward.activation_dropout = 0.1;
    for (const bool with_state : {false, true})
      for (const Form form : {Form::parallel(), Form::chunkwise(8)}) {
        Training<float> t(m.config, Sequences::dense(2, 20), with_state);
        t.dropout = &key;
        Cpu ctx;
        const auto kept = t.gradient(ctx, form);
        t.recompute = true;
        const auto again = t.gradient(ctx, form);
        EXPECT_EQ(kept.loss, again.loss) << m.name;
        EXPECT_TRUE(same_bits<float>(kept.dw.flat(), again.dw.flat()))
            << m.name << " " << form.name();
        EXPECT_TRUE(same_model_state(kept.dstate, again.dstate)) << m.name << " " << form.name();
      }
  }
}

TEST(ModelGradient, ThreadsLeaveTheBitsAlone) {
  Cpu one(1), two(2);
  for (auto m : models()) {
    m.config.d_model = m.config.retention.d_model = m.config.feed_forward.d_model = 48;
    m.config.retention.d_value = 96;
    const Training<float> t(m.config, Sequences::dense(3, 70), true);
    for (const Form form : {Form::parallel(), Form::chunkwise(32)}) {
      const auto a = t.gradient(one, form), b = t.gradient(two, form);
      EXPECT_EQ(a.loss, b.loss) << m.name;
      EXPECT_TRUE(same_bits<float>(a.dw.flat(), b.dw.flat())) << m.name << " " << form.name();
      EXPECT_TRUE(same_model_state(a.dstate, b.dstate)) << m.name << " " << form.name();
    }
  }
}

// The gradient of packed and of padded sequences is the sum of the gradients of each alone.
TEST(ModelGradient, OfSequencesTogetherIsTheSum) {
  const std::array<Index, 4> borders{0, 9, 10, 30};
  const std::array<Index, 3> padding{4, 0, 9};
  Cpu ctx;
  for (const auto& m : smooth_models())
    for (const auto& sequences : {Sequences::packed(std::span<const Index>(borders)),
                                  Sequences::left_padded(3, 10, std::span<const Index>(padding))}) {
      const Training<double> t(m.config, sequences, false);
      const auto together = t.gradient(ctx, Form::chunkwise(4));
      auto sum = together;
      sum.dw.zero();
      double loss = 0.0;
      for (Index i = 0; i < sequences.count(); ++i) {
        const Segment s = sequences[i];
        Training<double> alone(m.config, Sequences::dense(1, s.length), false);
        alone.tokens = rows(t.tokens, 1, s.first_row, s.length);
        alone.targets = rows(t.targets, 1, s.first_row, s.length);
        const auto g = alone.gradient(ctx, Form::chunkwise(4));
        loss += g.loss;
        for (std::size_t k = 0; k < sum.dw.flat().size(); ++k) sum.dw.flat()[k] += g.dw.flat()[k];
      }
      EXPECT_NEAR(together.loss / loss, 1.0, 1e-12) << m.name;
      EXPECT_LE(worst_error(t, together, sum), 1e-11) << m.name;
    }
}

// A sequence cut in two with the state and its gradient handed over is the whole sequence.
TEST(ModelGradient, PassesThroughTheState) {
  constexpr Index kFirst = 7, kLength = 20;
  Cpu ctx;
  for (const auto& m : smooth_models()) {
    if (!only_retention(m.config)) continue;
    Training<double> t(m.config, Sequences::dense(1, kLength), false);
    const auto whole = t.gradient(ctx, Form::chunkwise(8));
    const auto& model = t.model;
    const auto first = Sequences::dense(1, kFirst), second = Sequences::dense(1, kLength - kFirst);
    const auto part = [&](const Buffer<Token>& x, Index from) {
      return TokenView(x.data() + from, {1, from > 0 ? kLength - kFirst : kFirst});
    };
    auto state = model.initial_state();
    model.loss(ctx, t.weights.ref(), Pass{Form::recurrent(), first}, part(t.tokens, 0),
               part(t.targets, 0), &state);
    auto dw = whole.dw;
    dw.zero();
    auto dstate = model.initial_state();  // of the end: zero
    RetNetModel<double>::Saved saved;
    auto end = state;
    const auto b = model.loss_and_gradient(ctx, t.weights.ref(), Pass{Form::parallel(), second},
                                           part(t.tokens, kFirst), part(t.targets, kFirst), &end,
                                           saved, dw.ref(), t.scale, &dstate);
    auto start = model.initial_state();
    const auto a = model.loss_and_gradient(ctx, t.weights.ref(), Pass{Form::chunkwise(3), first},
                                           part(t.tokens, 0), part(t.targets, 0), &start, saved,
                                           dw.ref(), t.scale, &dstate);
    EXPECT_NEAR(t.scale * (a.sum + b.sum) / whole.loss, 1.0, 1e-12) << m.name;
    for (const auto& entry : model.layout().entries())
      EXPECT_LE(relative_error(std::as_const(dw)[entry.place], whole.dw[entry.place]), 1e-11)
          << m.name << " " << entry.name;
  }
}

// More rows than logits exist at one time.
TEST(ModelGradient, OfMoreRowsThanOneBlockOfLogits) {
  const auto m = smooth_models()[1];
  const Training<double> t(m.config, Sequences::dense(25, 45), false);
  Cpu ctx;
  Reference plain;
  const auto g = t.gradient(ctx, Form::chunkwise(16));
  EXPECT_NEAR(t.loss(ctx, Form::recurrent()) / g.loss, 1.0, 1e-12);
  EXPECT_LE(worst_error(t, g, t.gradient(plain, Form::parallel())), 1e-11);
}

TEST(ModelGradient, Accumulates) {
  const auto m = models().front();
  const Training<double> t(m.config, Sequences::dense(2, 6), false);
  Cpu ctx;
  const auto once = t.gradient(ctx, Form::parallel());
  auto twice = once.dw;
  RetNetModel<double>::Saved saved;
  t.model.loss_and_gradient(ctx, t.weights.ref(), t.pass(Form::parallel()), t.view(t.tokens),
                            t.view(t.targets), nullptr, saved, twice.ref(), t.scale);
  for (const auto& entry : t.model.layout().entries())
    for (Index i = 0; i < entry.place.size(); ++i)
      EXPECT_NEAR(twice[entry.place].data[i], 2.0 * once.dw[entry.place].data[i], 1e-12);
}

}  // namespace
}  // namespace retnet::test
