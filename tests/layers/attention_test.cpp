// SPDX-License-Identifier: MIT
// The attention layer: the formula written out, one function in all forms and at every split,
// gradients, and a cache that is a value.
#include "retnet/layers/attention.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "layers/errors.hpp"
#include "layers/variants.hpp"
#include "retnet/core/tensor.hpp"
#include "support/cases.hpp"
#include "support/count_allocations.hpp"
#include "support/custom_scalar.hpp"
#include "support/gradcheck.hpp"

namespace retnet::test {
namespace {

struct AttentionVariant {
  std::string name;
  AttentionConfig config;
};

/// Every field away from its default at least once.
std::vector<AttentionVariant> attention_variants() {
  std::vector<AttentionVariant> out;
  const auto add = [&](const char* name, auto&& change) {
    AttentionVariant v{name, {.d_model = 12, .heads = 4, .head_dim = 8}};
    change(v.config);
    out.push_back(v);
  };
  add("plain", [](auto& c) { c.head_dim = 0, c.heads = 6; });
  add("grouped", [](auto& c) { c.kv_heads = 2, c.qkv_bias = c.qk_norm = true; });
  add("window", [](auto& c) { c.window = 7, c.kv_heads = 1, c.out_bias = true; });
  add("partial", [](auto& c) { c.rotary_dim = 4, c.qk_norm = true, c.scale = 0.7; });
  add("interleaved", [](auto& c) {
    c.rotation = RotationLayout::interleaved;
    c.theta = ThetaKind::inclusive;
    c.rotary_dim = 6;
  });
  add("values", [](auto& c) {
    c.theta = ThetaKind::values;
    c.theta_values = {1.3, 0.9, 0.5, 0.1};
    c.window = 1;
  });
  add("no_rotation", [](auto& c) {
    c.rotation = RotationLayout::none;
    c.head_dim = 5;
    c.window = 100;
    c.qkv_bias = c.out_bias = true;
  });
  return out;
}

template <class S>
Window<const S> rows_in(const Buffer<S>& x, Index width) {
  return {x.data(), x.size() / width, width};
}

/// y of one sequence from the definition, one token after the other; nothing shared with the
/// library but the angles.
Buffer<double> by_hand(const Attention<double>& layer, const Buffer<double>& x) {
  const auto& c = layer.config();
  const Index n_tokens = x.size() / c.d_model, dim = c.dim();
  const auto weight = [&](const char* name) {
    const auto* entry = layer.layout().find(name);
    return entry ? layer.weight_buffer()[entry->place] : Window<const double>();
  };
  const auto project = [&](const std::string& name, const std::vector<double>& in) {
    const auto w = weight((name + ".weight").c_str()), b = weight((name + ".bias").c_str());
    std::vector<double> out;
    for (Index o = 0; o < w.rows; ++o) {
      double sum = b.empty() ? 0.0 : b(0, o);
      for (Index i = 0; i < w.cols; ++i) sum += w(o, i) * in[std::size_t(i)];
      out.push_back(sum);
    }
    return out;
  };
  std::vector<double> theta = c.theta == ThetaKind::values      ? c.theta_values
                              : c.theta == ThetaKind::inclusive ? theta_inclusive(c.rotary(), 1e4)
                                                                : theta_rotary(c.rotary(), 1e4);
  if (c.rotation == RotationLayout::none) theta.clear();
  const auto turn = [&](std::vector<double>& heads, const char* norm, Index n) {
    const auto w = weight(norm);
    for (std::size_t h = 0; h < heads.size(); h += std::size_t(dim)) {
      double squares = 0.0;
      for (std::size_t d = 0; d < std::size_t(dim); ++d) squares += heads[h + d] * heads[h + d];
      const double r = 1.0 / std::sqrt(squares / static_cast<double>(dim) + c.qk_norm_eps);
      for (Index d = 0; d < dim && c.qk_norm; ++d) heads[h + std::size_t(d)] *= r * w(0, d);
      for (std::size_t i = 0; i < theta.size(); ++i) {
        const bool split = c.rotation == RotationLayout::half_split;
        double& a = heads[h + (split ? i : 2 * i)];
        double& b = heads[h + (split ? i + theta.size() : 2 * i + 1)];
        const double angle = static_cast<double>(n) * theta[i], a0 = a, b0 = b;
        a = a0 * std::cos(angle) - b0 * std::sin(angle);
        b = b0 * std::cos(angle) + a0 * std::sin(angle);
      }
    }
  };
  std::vector<std::vector<double>> keys, values;
  Buffer<double> y(x.size());
  for (Index n = 0; n < n_tokens; ++n) {
    const std::vector<double> in(x.data() + n * c.d_model, x.data() + (n + 1) * c.d_model);
    auto q = project("q_proj", in);
    keys.push_back(project("k_proj", in));
    values.push_back(project("v_proj", in));
    turn(q, "q_norm.weight", n);
    turn(keys.back(), "k_norm.weight", n);
    std::vector<double> o(q.size(), 0.0);
    for (Index h = 0; h < c.heads; ++h) {
      const auto at = std::size_t(h * dim), kv = std::size_t(h / (c.heads / c.kv()) * dim);
      double sum = 0.0;
      for (Index m = 0; m <= n; ++m) {
        if (c.window > 0 && m <= n - c.window) continue;
        double score = 0.0;
        for (std::size_t d = 0; d < std::size_t(dim); ++d)
          score += q[at + d] * keys[std::size_t(m)][kv + d];
        const double e = std::exp(score * (c.scale > 0 ? c.scale : 1 / std::sqrt(double(dim))));
        sum += e;
        for (std::size_t d = 0; d < std::size_t(dim); ++d)
          o[at + d] += e * values[std::size_t(m)][kv + d];
      }
      for (std::size_t d = 0; d < std::size_t(dim); ++d) o[at + d] /= sum;
    }
    const auto out = project("out_proj", o);
    std::copy(out.begin(), out.end(), y.data() + n * c.d_model);
  }
  return y;
}

TEST(AttentionLayer, IsTheFormula) {
  for (const auto& v : attention_variants()) {
    const auto layer = random_layer<Attention<double>>(v.config);
    const auto x = random_normal<double>(33 * 12, 1);
    const auto expected = by_hand(layer, x);
    Reference plain;
    Cpu ctx(2);
    const auto sequences = Sequences::dense(1, 33);
    EXPECT_LE(relative_error(run(plain, layer, Form::parallel(), sequences, x), expected), 1e-13)
        << v.name;
    EXPECT_LE(relative_error(run(ctx, layer, Form::parallel(), sequences, x), expected), 1e-13)
        << v.name;
  }
}

/// What two states remember, token by token; infinite where they remember another number of them.
template <class S>
double memory_error(const KeyValueState<S>& a, const KeyValueState<S>& b) {
  RelativeError error;
  for (Index i = 0; i < a.sequences(); ++i) {
    const auto p = a.past(i), q = b.past(i);
    if (p.length != q.length || !std::ranges::equal(a.positions(), b.positions()))
      return std::numeric_limits<double>::infinity();
    for (Index m = 0; m < p.length; ++m) {
      const Index r = (p.first + m) % p.keys.rows, t = (q.first + m) % q.keys.rows;
      for (Index j = 0; j < p.keys.cols; ++j) error.add(p.keys(r, j), q.keys(t, j));
      for (Index j = 0; j < p.values.cols; ++j) error.add(p.values(r, j), q.values(t, j));
    }
  }
  return error.value();
}

template <class S>
class AttentionLayerTest : public testing::Test {
 protected:
  template <class F>
  void for_layers(F&& f) {
    for (const auto& v : attention_variants()) {
      SCOPED_TRACE(v.name);
      f(random_layer<Attention<S>>(v.config));
    }
  }
  Cpu ctx{1}, two{2};
  Reference plain;
  const double limit = tolerance<S>();
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(AttentionLayerTest, Scalars);

TYPED_TEST(AttentionLayerTest, FormsAreEqual) {
  using S = TypeParam;
  this->for_layers([&](const auto& layer) {
    for (const Index tokens : kTokens)
      for (const bool carried : {false, true}) {
        const auto sequences = Sequences::dense(2, tokens);
        const auto x = random_normal<S>(2 * tokens * 12, 1);
        auto start = layer.initial_state(2);
        if (carried)
          run(this->plain, layer, Form::parallel(), Sequences::dense(2, 9),
              random_normal<S>(2 * 9 * 12, 2), &start);
        auto oracle_state = start;
        const auto oracle = run(this->plain, layer, Form::parallel(), sequences, x, &oracle_state);
        for (const Form form : forms(tokens)) {
          auto state = start;
          EXPECT_LE(relative_error(run(this->two, layer, form, sequences, x, &state), oracle),
                    this->limit)
              << form.name() << form.chunk << " T" << tokens;
          EXPECT_LE(memory_error(state, oracle_state), this->limit)
              << form.name() << " T" << tokens;
          if (carried) continue;
          EXPECT_LE(relative_error(run(this->two, layer, form, sequences, x), oracle), this->limit);
        }
      }
  });
}

// All ways to cut 20 tokens into three parts, each part in another form, the state handed over.
TYPED_TEST(AttentionLayerTest, FormsSwitchAtEverySplit) {
  using S = TypeParam;
  constexpr Index kTokensHere = 20;
  this->for_layers([&](const auto& layer) {
    const auto x = random_normal<S>(kTokensHere * 12, 1);
    const auto whole = run(this->ctx, layer, Form::parallel(), Sequences::dense(1, kTokensHere), x);
    const std::array<Form, 3> order{Form::chunkwise(3), Form::parallel(), Form::recurrent()};
    for (std::size_t turn = 0; turn < 3; ++turn)
      for (Index a = 0; a <= kTokensHere; ++a)
        for (Index b = a; b <= kTokensHere; ++b) {
          auto state = layer.initial_state();
          Buffer<S> y(x.size());
          const std::array<Index, 4> cuts{0, a, b, kTokensHere};
          for (std::size_t part = 0; part < 3; ++part) {
            const Index first = cuts[part], count = cuts[part + 1] - first;
            if (count == 0) continue;
            const auto now = run(this->ctx, layer, order[(part + turn) % 3],
                                 Sequences::dense(1, count), rows(x, 12, first, count), &state);
            std::copy_n(now.data(), now.size(), y.data() + first * 12);
          }
          EXPECT_LE(relative_error(y, whole), this->limit) << a << " " << b;
        }
  });
}

// With a window the ring forgets what no query will see.
TYPED_TEST(AttentionLayerTest, ARingEqualsAFullCache) {
  using S = TypeParam;
  for (const Index window : {1, 2, 7, 64}) {
    const auto layer = random_layer<Attention<S>>(
        AttentionConfig{.d_model = 12, .heads = 4, .kv_heads = 2, .head_dim = 8, .window = window});
    auto ring = layer.initial_state(2);
    KeyValueState<S> full(2, 16, 16);
    std::uint64_t stream = 1;
    for (const Index tokens : {1, 1, 5, 1, 70, 1, 1, 2, 90, 1}) {
      const auto x = random_normal<S>(2 * tokens * 12, ++stream);
      const auto sequences = Sequences::dense(2, tokens);
      for (const Form form : {Form::parallel(), Form::recurrent()}) {
        auto a = ring, b = full;
        EXPECT_LE(relative_error(run(this->ctx, layer, form, sequences, x, &a),
                                 run(this->ctx, layer, form, sequences, x, &b)),
                  this->limit)
            << window << " T" << tokens;
      }
      run(this->ctx, layer, Form::chunkwise(16), sequences, x, &ring);
      run(this->ctx, layer, Form::chunkwise(16), sequences, x, &full);
    }
    EXPECT_EQ(ring.tokens(0), window);
    EXPECT_EQ(full.tokens(0), 173);
  }
}

// What a sequence gives depends neither on its neighbours nor on padding nor on threads.
TYPED_TEST(AttentionLayerTest, SequencesAreAlone) {
  using S = TypeParam;
  const std::array<Index, 5> bounds{0, 1, 35, 38, 120};
  const std::array<Index, 3> padding{0, 39, 13};
  this->for_layers([&](const auto& layer) {
    for (const auto& sequences :
         {Sequences::packed<Index>(bounds), Sequences::left_padded(3, 40, padding)})
      for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
        const auto x = random_normal<S>(sequences.rows() * 12, 1);
        auto state = layer.initial_state(sequences.count());
        const auto y = run(this->ctx, layer, form, sequences, x, &state);
        auto other = layer.initial_state(sequences.count());
        EXPECT_TRUE(same_bits(run(this->two, layer, form, sequences, x, &other), y));
        EXPECT_EQ(memory_error(state, other), 0.0);
        for (Index i = 0; i < sequences.count(); ++i) {
          const auto [first, length] = sequences[i];
          const std::array<Index, 2> borders{0, length};
          const auto one = run(this->ctx, layer, form, Sequences::packed<Index>(borders),
                               rows(x, 12, first, length));
          EXPECT_TRUE(same_bits(one, rows(y, 12, first, length))) << form.name() << i;
        }
      }
  });
}

TYPED_TEST(AttentionLayerTest, TheFutureLeavesThePastAlone) {
  using S = TypeParam;
  this->for_layers([&](const auto& layer) {
    const auto x = random_normal<S>(70 * 12, 1);
    const auto sequences = Sequences::dense(1, 70);
    for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
      const auto y = run(this->ctx, layer, form, sequences, x);
      for (const Index now : {1, 16, 63, 69})
        for (const S value : {S(1e3), std::numeric_limits<S>::quiet_NaN()}) {
          auto other = x;
          std::fill(other.begin() + now * 12, other.end(), value);
          const auto z = run(this->ctx, layer, form, sequences, other);
          EXPECT_TRUE(same_bits(rows(y, 12, 0, now), rows(z, 12, 0, now))) << form.name() << now;
          EXPECT_FALSE(same_bits(rows(y, 12, now, 1), rows(z, 12, now, 1)));
        }
    }
  });
}

TYPED_TEST(AttentionLayerTest, StatesAreCopiedSelectedAndReset) {
  using S = TypeParam;
  this->for_layers([&](const auto& layer) {
    const auto next = random_normal<S>(3 * 12, 2);
    const auto step = [&](auto& state, const Buffer<S>& x) {
      return run(this->ctx, layer, Form::recurrent(), Sequences::dense(x.size() / 12, 1), x,
                 &state);
    };
    auto state = layer.initial_state(3);
    run(this->ctx, layer, Form::parallel(), Sequences::dense(3, 30), random_normal<S>(3 * 360, 1),
        &state);
    EXPECT_EQ(state.positions()[1], 30);
    auto snapshot = state;  // rollback: the copy takes the same step again
    const auto y = step(state, next);
    EXPECT_TRUE(same_bits(step(snapshot, next), y));
    EXPECT_EQ(memory_error(snapshot, state), 0.0);

    const std::array<Index, 4> order{2, 0, 0, 1};
    auto chosen = state.select(order);
    Buffer<S> four(4 * 12);
    for (std::size_t i = 0; i < 4; ++i)
      std::copy_n(next.data() + order[i] * 12, 12, four.data() + Index(i) * 12);
    auto reset = state;
    reset.reset(1);
    auto fresh = layer.initial_state(3);
    const auto stepped = step(state, next), selected = step(chosen, four);
    for (std::size_t i = 0; i < 4; ++i)
      EXPECT_TRUE(same_bits(rows(selected, 12, Index(i), 1), rows(stepped, 12, order[i], 1))) << i;
    const auto after = step(reset, next), begin = step(fresh, next);
    EXPECT_TRUE(same_bits(rows(after, 12, 1, 1), rows(begin, 12, 1, 1)));
    EXPECT_TRUE(same_bits(rows(after, 12, 2, 1), rows(stepped, 12, 2, 1)));
  });
}

// ---- gradients ----

/// <c, y> of rows x from a state, and its gradients.
template <class S>
struct LayerLoss {
  const Attention<S>& layer;
  Sequences sequences;
  Buffer<S> x, c;
  ParamBuffer<S> weights;
  KeyValueState<S> initial;

  LayerLoss(const Attention<S>& l, Sequences s, Index past)
      : layer(l),
        sequences(std::move(s)),
        x(random_normal<S>(sequences.rows() * 12, 11)),
        c(random_normal<S>(x.size(), 12)),
        weights(random_weights<S>(l.layout())),
        initial(layer.initial_state(sequences.count())) {
    Buffer<S> real(sequences.rows());
    real.fill(S(0));
    for (Index i = 0; i < sequences.count(); ++i)
      std::fill_n(real.data() + sequences[i].first_row, sequences[i].length, S(1));
    for (Index i = 0; i < c.size(); ++i) c[i] *= real[i / 12];
    if (past == 0) return;
    Cpu ctx;
    run(ctx, layer, Form::parallel(), Sequences::dense(sequences.count(), past),
        random_normal<S>(sequences.count() * past * 12, 13), &initial);
  }

  template <class Context>
  Buffer<S> forward(Context& ctx, Form form, typename Attention<S>::Saved* saved = nullptr) const {
    auto state = initial;
    Buffer<S> y(x.size());
    const std::array<Index, 3> dims{1, sequences.rows(), 12};
    layer.forward(ctx, weights.ref(), Pass{form, sequences}, ConstView<S, 3>(x.data(), dims),
                  &state, View<S, 3>(y.data(), dims), saved);
    return y;
  }
  template <class Context>
  std::pair<Buffer<S>, ParamBuffer<S>> gradient(Context& ctx, Form form) const {
    typename Attention<S>::Saved saved;
    forward(ctx, form, &saved);
    std::pair<Buffer<S>, ParamBuffer<S>> g{Buffer<S>(x.size()), ParamBuffer<S>(layer.layout())};
    const std::array<Index, 3> dims{1, sequences.rows(), 12};
    layer.backward(ctx, weights.ref(), Pass{form, sequences}, ConstView<S, 3>(x.data(), dims),
                   saved, ConstView<S, 3>(c.data(), dims), g.second.ref(),
                   View<S, 3>(g.first.data(), dims));
    return g;
  }
};

TEST(AttentionLayerGradients, MatchFiniteDifferences) {
  const std::array<Index, 4> bounds{0, 4, 5, 16};
  const std::array<Index, 3> padding{2, 0, 3};
  Cpu ctx;
  for (const auto& v : attention_variants()) {
    const auto layer = random_layer<Attention<double>>(v.config);
    for (const auto& sequences :
         {Sequences::packed<Index>(bounds), Sequences::left_padded(3, 5, padding)})
      for (const Index past : {0, 6}) {
        LayerLoss<double> f(layer, sequences, past);
        const auto g = f.gradient(ctx, Form::parallel());
        const auto loss = [&] {
          const auto y = f.forward(ctx, Form::parallel());
          double sum = 0.0;
          for (Index i = 0; i < y.size(); ++i) sum += f.c[i] == 0.0 ? 0.0 : f.c[i] * y[i];
          return sum;
        };
        EXPECT_LE(gradient_error(f.x.span(), g.first.span(), loss, 16), 1e-6) << v.name;
        for (const auto& entry : layer.layout().entries()) {
          const auto n = static_cast<std::size_t>(entry.place.size());
          EXPECT_LE(
              gradient_error({f.weights[entry.place].data, n},
                             std::span<const double>(g.second[entry.place].data, n), loss, 10),
              1e-6)
              << v.name << " " << entry.name << " past " << past;
        }
      }
  }
}

TEST(AttentionLayerGradients, AreTheSameInEveryFormContextAndThread) {
  Cpu one(1), two(2);
  Reference plain;
  const auto check = [&]<class S>(S, double limit) {
    for (const auto& v : attention_variants()) {
      const auto layer = random_layer<Attention<S>>(v.config);
      const LayerLoss<S> f(layer, Sequences::dense(2, 130), 9);
      const auto oracle = f.gradient(plain, Form::parallel());
      for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)}) {
        const auto g = f.gradient(two, form);
        EXPECT_LE(relative_error(g.first, oracle.first), limit) << v.name << form.name();
        for (const auto& entry : layer.layout().entries())
          EXPECT_LE(relative_error(g.second[entry.place], oracle.second[entry.place]), limit)
              << v.name << form.name() << entry.name;
      }
      const auto a = f.gradient(one, Form::parallel()), b = f.gradient(two, Form::parallel());
      EXPECT_TRUE(same_bits(a.first, b.first)) << v.name;
      EXPECT_TRUE(same_bits(a.second.flat(), b.second.flat())) << v.name;
    }
  };
  check(double{}, 1e-12);
  check(float{}, 1e-5);
}

TEST(AttentionLayerGradients, Accumulate) {
  const auto layer = random_layer<Attention<double>>(attention_variants()[1].config);
  const LayerLoss<double> f(layer, Sequences::dense(1, 9), 0);
  Cpu ctx;
  const auto once = f.gradient(ctx, Form::parallel());
  typename Attention<double>::Saved saved;
  f.forward(ctx, Form::parallel(), &saved);
  ParamBuffer<double> dw(layer.layout());
  auto dx = filled<double>(f.x.size(), 1.0);
  for (int i = 0; i < 2; ++i)  // dx = gradient + beta dx
    layer.backward_rows(ctx, f.weights.ref(), Pass{Form::parallel(), f.sequences}, rows_in(f.x, 12),
                        saved, rows_in(f.c, 12), dw.ref(), Window<double>(dx.data(), 9, 12), 0.5);
  for (Index i = 0; i < dx.size(); ++i) EXPECT_NEAR(dx[i], 0.25 + 1.5 * once.first[i], 1e-12);
  for (std::size_t i = 0; i < dw.flat().size(); ++i)
    EXPECT_NEAR(dw.flat()[i], 2.0 * once.second.flat()[i], 1e-12);
}

// ---- the rest ----

TEST(AttentionLayer, OtherScalarsAndStoredWeights) {
  const auto config = attention_variants()[1].config;
  const auto weights = random_weights<float>(Attention<float>(config).layout());
  const Attention<float> layer(config, weights.cast<bfloat16>().cast<float>());
  const Attention<float, bfloat16> stored(config, weights.cast<bfloat16>());
  const Attention<Custom> custom(config, layer.weight_buffer().cast<Custom>());
  const auto x = random_normal<float>(20 * 12, 1);
  Buffer<Custom> z(x.size());
  for (Index i = 0; i < x.size(); ++i) z[i] = Custom(static_cast<double>(x[i]));
  Cpu ctx;
  const auto sequences = Sequences::dense(2, 10);
  for (const Form form : {Form::parallel(), Form::recurrent()}) {
    const auto y = run(ctx, layer, form, sequences, x);
    EXPECT_TRUE(same_bits(run(ctx, stored, form, sequences, x), y));
    auto state = custom.initial_state(2);
    EXPECT_LE(relative_error(run(ctx, custom, form, sequences, z, &state), y), 1e-5);
  }
}

TEST(AttentionLayer, EigenComesInAndGoesOut) {
  const Attention<float> layer({.d_model = 32, .heads = 4, .kv_heads = 2, .window = 9}, Seed{3});
  Tensor3<float> x(2, 20, 32);
  x.setRandom();
  const Tensor3<float> y = layer.forward_parallel(x);
  auto state = layer.initial_state(2);
  const Tensor3<float> z = layer.forward_chunkwise(x, state, 6);
  EXPECT_LE(relative_error(std::span<const float>(z.data(), 1280),
                           std::span<const float>(y.data(), 1280)),
            1e-5);
  EXPECT_EQ(state.positions()[1], 20);
  EXPECT_EQ(state.tokens(1), 9);
}

TEST(AttentionLayer, AllocatesNothingWhenWarm) {
  for (const auto& v : attention_variants()) {
    const auto layer = random_layer<Attention<float>>(v.config);
    Cpu ctx;
    for (const Index tokens : {1, 5, 40}) {
      const std::array<Index, 3> dims{2, tokens, 12};
      const auto x = random_normal<float>(2 * tokens * 12, 1);
      Buffer<float> y(x.size());
      for (const Form form : {Form::recurrent(), Form::chunkwise(16), Form::parallel()}) {
        auto state = layer.initial_state(2);
        state.reserve(1000);
        const auto step = [&] {
          layer.forward(ctx, form, ConstView<float, 3>(x.data(), dims), &state,
                        View<float, 3>(y.data(), dims));
        };
        step();  // scratch for scores grows with the cache: warm is as long as it gets
        for (int i = 0; i < 9; ++i) step();
        state.reset();
        EXPECT_EQ(count_allocations([&] {
                    for (int i = 0; i < 10; ++i) step();
                  }),
                  0)
            << v.name << " " << form.name() << " T" << tokens;
      }
    }
  }
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(AttentionLayerErrors, Configs) {
  const auto expect = [](const std::function<void(AttentionConfig&)>& change,
                         std::vector<std::string> parts) {
    AttentionConfig config{.d_model = 12, .heads = 4, .head_dim = 8};
    change(config);
    parts.insert(parts.end(), {"mend: ", "see: AttentionConfig"});
    expect_error([&] { config.validate(); }, parts);
    parts.emplace_back("[Attention]");
    expect_error([&] { Attention<float> layer(config); }, parts);
  };
  expect([](auto& c) { c.d_model = 0; }, {"d_model = 0"});
  expect([](auto& c) { c.heads = -1; }, {"heads = -1"});
  expect([](auto& c) { c.kv_heads = 3; }, {"heads = 4", "kv_heads = 3"});
  expect([](auto& c) { c.kv_heads = -2; }, {"kv_heads = -2"});
  expect([](auto& c) { c.head_dim = -8; }, {"head_dim = -8"});
  expect([](auto& c) { c.head_dim = 0, c.heads = 5; }, {"d_model = 12", "heads = 5", "head_dim"});
  expect([](auto& c) { c.head_dim = 7; }, {"head_dim = 7", "pairs"});
  expect([](auto& c) { c.window = -1; }, {"window = -1"});
  expect([](auto& c) { c.rotary_dim = 3; }, {"rotary_dim = 3"});
  expect([](auto& c) { c.rotary_dim = 10; }, {"rotary_dim = 10", "head_dim = 8"});
  expect([](auto& c) { c.rotation = RotationLayout::none, c.rotary_dim = 4; },
         {"rotary_dim = 4", "without a rotation"});
  expect([](auto& c) { c.theta = ThetaKind::values, c.theta_values = {1.0}; },
         {"theta_values has 1", "rotary_dim = 8"});
  expect(
      [](auto& c) {
        c.theta = ThetaKind::values, c.theta_values = {1, 2, kNan, 1};
      },
      {"theta_values holds nan"});
  expect([](auto& c) { c.theta_values = {1.0}; }, {"theta_values is given"});
  expect([](auto& c) { c.theta_base = 0.0; }, {"theta_base = 0"});
  expect([](auto& c) { c.qk_norm_eps = kNan; }, {"qk_norm_eps = nan"});
  expect([](auto& c) { c.scale = -0.5; }, {"scale = -0.5"});
}

TEST(AttentionLayerErrors, ShapesAndStates) {
  const AttentionConfig config{.d_model = 12, .heads = 4, .head_dim = 8, .window = 5};
  const Attention<float> layer(config);
  Tensor3<float> x(2, 5, 12), wide(2, 5, 13), none(2, 0, 12);
  x.setZero(), wide.setZero();
  auto state = layer.initial_state(2);
  expect_error([&] { (void)layer.forward_parallel(wide); },
               {"Attention", "forward_parallel", "[2,5,13]", "d_model = 12"});
  expect_error([&] { (void)layer.forward_recurrent(none, state); },
               {"forward_recurrent", "[2,0,12]", "positive"});
  expect_error([&] { (void)layer.forward_chunkwise(x, state, 0); }, {"chunk = 0", "at least 1"});
  auto three = layer.initial_state(3);
  expect_error([&] { (void)layer.forward_parallel(x, three); }, {"3 sequences", "x holds 2"});
  KeyValueState<float> narrow(2, 16, 32), forgets(2, 32, 32, 4), all(2, 32, 32);
  expect_error([&] { (void)layer.forward_parallel(x, narrow); }, {"another layer", "16", "32"});
  expect_error([&] { (void)layer.forward_parallel(x, forgets); },
               {"remembers 4 tokens", "window = 5"});
  EXPECT_NO_THROW((void)layer.forward_parallel(x, all));
  EXPECT_EQ(state.positions()[0], 0);

  const ParamBuffer<float> weights = layer.weight_buffer();
  expect_error([&] { Attention<float> other({.d_model = 24, .heads = 4}, weights); },
               {"Attention", "weights hold", "needs"});
  ParamLayout layout;
  const Attention<float> part(config, layout, "attn.");
  EXPECT_NE(layout.find("attn.q_proj.weight"), nullptr);
  expect_error([&] { (void)part.forward_parallel(x); }, {"Attention", "part of a model"});
  Cpu ctx;
  Attention<float>::Saved saved;
  ParamBuffer<float> dw(layer.layout());
  Tensor3<float> dx(2, 5, 12);
  expect_error(
      [&] {
        layer.backward(ctx, layer.weights(), Pass{Form::parallel(), Sequences::dense(2, 5)}, x,
                       saved, x, dw.ref(), dx);
      },
      {"Attention", "backward", "saved holds 0 rows"});
}

}  // namespace
}  // namespace retnet::test
