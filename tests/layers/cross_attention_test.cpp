// SPDX-License-Identifier: MIT
// One cache for all layers: the parts against ops put together by hand, a small decoder token by
// token, and its gradients through the shared keys.
#include "retnet/layers/cross_attention.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "layers/errors.hpp"
#include "layers/variants.hpp"
#include "support/cases.hpp"
#include "support/custom_scalar.hpp"
#include "support/gradcheck.hpp"

namespace retnet::test {
namespace {

constexpr Index kWidth = 12;

std::vector<CrossAttentionConfig> cross_configs() {
  std::vector<CrossAttentionConfig> out(3, {.d_model = kWidth, .heads = 4, .head_dim = 8});
  out[1].kv_heads = 2, out[1].scale = 0.3, out[1].norm_eps = 1e-3;
  out[2].heads = 2, out[2].kv_heads = 1, out[2].head_dim = 0;
  out[2].rotation = RotationLayout::half_split, out[2].theta = ThetaKind::rotary;
  return out;
}

/// y = x + sum of two layers, one after the other, over keys and values made from `memory`.
template <class S>
struct Decoder {
  ParamLayout layout;
  SharedKeyValue<S> shared;
  CrossAttention<S> first, second;
  ParamBuffer<S> weights;

  explicit Decoder(const CrossAttentionConfig& c)
      : shared(c, layout, "shared."),
        first(c, layout, "0."),
        second(c, layout, "1."),
        weights(random_weights<S>(layout)) {}

  struct Saved {
    SharedRows<S> rows;
    typename CrossAttention<S>::Saved first, second;
    Buffer<S> middle;
  };

  template <class Context>
  Buffer<S> forward(Context& ctx, Form form, const Sequences& sequences, const Buffer<S>& memory,
                    const Buffer<S>& x, KeyValueState<S>* state, Saved* saved = nullptr) const {
    const Pass pass{form, sequences};
    const Index n = sequences.rows();
    const ParamRef<const S> w = weights.ref();
    Saved local;
    Saved& s = saved ? *saved : local;
    s.middle.resize(x.size());
    Buffer<S> y(x.size());
    const Window<S> mid(s.middle.data(), n, kWidth), out(y.data(), n, kWidth);
    shared.forward_rows(ctx, w, pass, Window<const S>(memory.data(), n, kWidth), state, s.rows,
                        saved != nullptr);
    first.forward_rows(ctx, w, pass, Window<const S>(x.data(), n, kWidth), s.rows, mid,
                       saved ? &s.first : nullptr);
    second.forward_rows(ctx, w, pass, Window<const S>(mid), s.rows, out,
                        saved ? &s.second : nullptr);
    if (state) state->append(sequences, s.rows.k, s.rows.v);
    return y;
  }

  struct Gradient {
    Buffer<S> dmemory, dx;
    ParamBuffer<S> dw;
  };

  template <class Context>
  Gradient backward(Context& ctx, Form form, const Sequences& sequences, const Buffer<S>& memory,
                    const Buffer<S>& x, Saved& s, const Buffer<S>& dy) const {
    const Pass pass{form, sequences};
    const Index n = sequences.rows(), keys = s.rows.k.cols;
    const ParamRef<const S> w = weights.ref();
    Gradient g{Buffer<S>(x.size()), Buffer<S>(x.size()), ParamBuffer<S>(layout)};
    auto dk = filled<S>(n * keys, 0.0), dv = filled<S>(n * keys, 0.0);
    Buffer<S> dmiddle(x.size());
    const Window<S> dkw(dk.data(), n, keys), dvw(dv.data(), n, keys);
    const auto in = [&](const Buffer<S>& b) { return Window<const S>(b.data(), n, kWidth); };
    const auto out = [&](Buffer<S>& b) { return Window<S>(b.data(), n, kWidth); };
    second.backward_rows(ctx, w, pass, in(s.middle), s.rows, s.second, in(dy), g.dw.ref(),
                         out(dmiddle), S(0), dkw, dvw);
    first.backward_rows(ctx, w, pass, in(x), s.rows, s.first, in(dmiddle), g.dw.ref(), out(g.dx),
                        S(0), dkw, dvw);
    shared.backward_rows(ctx, w, pass, in(memory), s.rows, dkw, Window<const S>(dvw), g.dw.ref(),
                         out(g.dmemory), S(0));
    return g;
  }
};

// The parts are these ops in this order.
TEST(CrossAttention, IsTheFormula) {
  for (const auto& config : cross_configs()) {
    const Decoder<double> decoder(config);
    const Index n = 21, dim = config.dim(), width = config.heads * dim, keys = config.kv() * dim;
    const auto sequences = Sequences::dense(1, n);
    const auto memory = random_normal<double>(n * kWidth, 1),
               x = random_normal<double>(n * kWidth, 2);
    Reference ctx;
    const auto weight = [&](const char* name) {
      return decoder.weights[decoder.layout.find(name)->place];
    };
    const Window<const double> none;
    Buffer<double> normed(n * kWidth), k(n * keys), v(n * keys), q(n * width), o(n * width),
        y(n * kWidth);
    for (Index r = 0; r < n; ++r) {
      double squares = 0.0;
      for (Index j = 0; j < kWidth; ++j) squares += memory[r * kWidth + j] * memory[r * kWidth + j];
      for (Index j = 0; j < kWidth; ++j)
        normed[r * kWidth + j] = memory[r * kWidth + j] * weight("shared.norm.weight")(0, j) /
                                 std::sqrt(squares / kWidth + config.norm_eps);
    }
    const auto in = [&](const Buffer<double>& b) {
      return Window<const double>(b.data(), n, b.size() / n);
    };
    const auto out = [&](Buffer<double>& b) { return Window<double>(b.data(), n, b.size() / n); };
    linear(ctx, weight("shared.k_proj.weight"), none, in(normed), out(k));
    linear(ctx, weight("shared.v_proj.weight"), none, in(normed), out(v));
    linear(ctx, weight("0.q_proj.weight"), none, in(x), out(q));
    const RotationTable table(config.rotation, config.theta == ThetaKind::rotary
                                                   ? theta_rotary(dim, 1e4)
                                                   : theta_inclusive(dim, 1e4));
    const std::int64_t zero = 0;
    rotate(ctx, table, {}, config.heads, sequences, &zero, in(q), out(q));
    rotate(ctx, table, {}, config.kv(), sequences, &zero, in(k), out(k));
    const double scale = config.scale > 0 ? config.scale : 1 / std::sqrt(double(dim));
    const AttentionInput<double> input{in(q),       in(k),      in(v), config.heads,
                                       config.kv(), &sequences, scale};
    attention(ctx, input, 0, out(o));
    linear(ctx, weight("0.out_proj.weight"), none, in(o), out(y));
    Cpu cpu;
    typename Decoder<double>::Saved saved;
    decoder.forward(cpu, Form::parallel(), sequences, memory, x, nullptr, &saved);
    EXPECT_LE(relative_error(saved.middle, y), 1e-13);
    EXPECT_LE(relative_error(saved.rows.k, out(k)), 1e-13);
  }
}

template <class S>
class CrossAttentionTest : public testing::Test {
 protected:
  Cpu one{1}, two{2};
  Reference plain;
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(CrossAttentionTest, Scalars);

// Any form, any split: the shared cache carries on.
TYPED_TEST(CrossAttentionTest, FormsAreEqualAtEverySplit) {
  using S = TypeParam;
  for (const auto& config : cross_configs()) {
    const Decoder<S> decoder(config);
    for (const Index tokens : {5, 24, 130}) {
      const auto memory = random_normal<S>(tokens * kWidth, 1),
                 x = random_normal<S>(tokens * kWidth, 2);
      const auto whole = decoder.forward(this->plain, Form::parallel(), Sequences::dense(1, tokens),
                                         memory, x, nullptr);
      for (const Form form : forms(tokens))
        for (Index split = 0; split < tokens; split += tokens < 100 ? 1 : 43) {
          auto state = decoder.shared.initial_state();
          Buffer<S> y(x.size());
          Index first = 0;
          for (const Index last : {split, tokens}) {
            if (last == first) continue;
            const auto part = decoder.forward(this->one, form, Sequences::dense(1, last - first),
                                              rows(memory, kWidth, first, last - first),
                                              rows(x, kWidth, first, last - first), &state);
            std::copy_n(part.data(), part.size(), y.data() + first * kWidth);
            first = last;
          }
          EXPECT_LE(relative_error(y, whole), tolerance<S>()) << form.name() << " at " << split;
          EXPECT_EQ(state.positions()[0], tokens);
        }
    }
  }
}

TYPED_TEST(CrossAttentionTest, SequencesAreAloneWhateverTheThreads) {
  using S = TypeParam;
  const std::array<Index, 5> bounds{0, 1, 35, 38, 120};
  const std::array<Index, 3> padding{0, 39, 13};
  for (const auto& config : cross_configs()) {
    const Decoder<S> decoder(config);
    for (const auto& sequences :
         {Sequences::packed<Index>(bounds), Sequences::left_padded(3, 40, padding)}) {
      const auto memory = random_normal<S>(sequences.rows() * kWidth, 1);
      const auto x = random_normal<S>(sequences.rows() * kWidth, 2), dy = x;
      const Form form = Form::chunkwise(16);
      typename Decoder<S>::Saved saved, same;
      const auto y = decoder.forward(this->one, form, sequences, memory, x, nullptr, &saved);
      EXPECT_TRUE(
          same_bits(decoder.forward(this->two, form, sequences, memory, x, nullptr, &same), y));
      const auto a = decoder.backward(this->one, form, sequences, memory, x, saved, dy);
      const auto b = decoder.backward(this->two, form, sequences, memory, x, same, dy);
      EXPECT_TRUE(same_bits(a.dx, b.dx) && same_bits(a.dmemory, b.dmemory));
      EXPECT_TRUE(same_bits(a.dw.flat(), b.dw.flat()));
      for (Index i = 0; i < sequences.count(); ++i) {
        const auto [first, length] = sequences[i];
        const std::array<Index, 2> borders{0, length};
        const auto alone = decoder.forward(this->one, form, Sequences::packed<Index>(borders),
                                           rows(memory, kWidth, first, length),
                                           rows(x, kWidth, first, length), nullptr);
        EXPECT_TRUE(same_bits(alone, rows(y, kWidth, first, length))) << i;
      }
    }
  }
}

TYPED_TEST(CrossAttentionTest, TheFutureLeavesThePastAlone) {
  using S = TypeParam;
  const Decoder<S> decoder(cross_configs()[1]);
  const auto memory = random_normal<S>(70 * kWidth, 1), x = random_normal<S>(70 * kWidth, 2);
  const auto sequences = Sequences::dense(1, 70);
  for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(16)})
    for (const Index now : {1, 16, 69}) {
      auto other = memory;
      std::fill(other.begin() + now * kWidth, other.end(), std::numeric_limits<S>::quiet_NaN());
      const auto y = decoder.forward(this->one, form, sequences, memory, x, nullptr);
      const auto z = decoder.forward(this->one, form, sequences, other, x, nullptr);
      EXPECT_TRUE(same_bits(rows(y, kWidth, 0, now), rows(z, kWidth, 0, now))) << form.name();
      EXPECT_FALSE(same_bits(rows(y, kWidth, now, 1), rows(z, kWidth, now, 1)));
    }
}

// Queries of both layers, the keys and values that they share, and what these are made from.
TEST(CrossAttentionGradients, MatchFiniteDifferences) {
  const std::array<Index, 4> bounds{0, 4, 5, 13};
  const std::array<Index, 3> padding{2, 0, 3};
  Cpu ctx;
  for (const auto& config : cross_configs())
    for (const auto& sequences :
         {Sequences::packed<Index>(bounds), Sequences::left_padded(3, 5, padding)})
      for (const Index past : {0, 6}) {
        Decoder<double> decoder(config);
        const Index size = sequences.rows() * kWidth;
        auto memory = random_normal<double>(size, 1), x = random_normal<double>(size, 2);
        Buffer<double> c = filled<double>(size, 0.0);
        for (Index i = 0; i < sequences.count(); ++i)
          fill_normal(c.span().subspan(static_cast<std::size_t>(sequences[i].first_row * kWidth),
                                       static_cast<std::size_t>(sequences[i].length * kWidth)),
                      static_cast<std::uint64_t>(3 + i));
        auto start = decoder.shared.initial_state(sequences.count());
        if (past > 0) {
          const auto before = random_normal<double>(sequences.count() * past * kWidth, 9);
          decoder.forward(ctx, Form::parallel(), Sequences::dense(sequences.count(), past), before,
                          before, &start);
        }
        const auto loss = [&] {
          auto state = start;
          const auto y = decoder.forward(ctx, Form::parallel(), sequences, memory, x, &state);
          double sum = 0.0;
          for (Index i = 0; i < y.size(); ++i) sum += c[i] == 0.0 ? 0.0 : c[i] * y[i];
          return sum;
        };
        typename Decoder<double>::Saved saved;
        auto state = start;
        decoder.forward(ctx, Form::parallel(), sequences, memory, x, &state, &saved);
        const auto g = decoder.backward(ctx, Form::parallel(), sequences, memory, x, saved, c);
        EXPECT_LE(gradient_error(x.span(), g.dx.span(), loss, 16), 1e-6);
        EXPECT_LE(gradient_error(memory.span(), g.dmemory.span(), loss, 16), 1e-6);
        for (const auto& entry : decoder.layout.entries()) {
          const auto n = static_cast<std::size_t>(entry.place.size());
          EXPECT_LE(gradient_error({decoder.weights[entry.place].data, n},
                                   std::span<const double>(g.dw[entry.place].data, n), loss, 10),
                    1e-6)
              << entry.name << " past " << past;
        }
      }
}

TEST(CrossAttention, OtherScalarsRunTheLoops) {
  const auto config = cross_configs()[1];
  const Decoder<double> decoder(config);
  Decoder<Custom> custom(config);
  custom.weights = decoder.weights.cast<Custom>();
  const auto memory = random_normal<double>(10 * kWidth, 1),
             x = random_normal<double>(10 * kWidth, 2);
  Buffer<Custom> m(memory.size()), z(x.size());
  for (Index i = 0; i < x.size(); ++i) m[i] = Custom(memory[i]), z[i] = Custom(x[i]);
  Cpu ctx;
  const auto sequences = Sequences::dense(2, 5);
  EXPECT_LE(relative_error(custom.forward(ctx, Form::parallel(), sequences, m, z, nullptr),
                           decoder.forward(ctx, Form::parallel(), sequences, memory, x, nullptr)),
            1e-13);
}

TEST(CrossAttentionErrors, ConfigsShapesAndStates) {
  const CrossAttentionConfig config{.d_model = kWidth, .heads = 4, .kv_heads = 2, .head_dim = 8};
  const auto expect = [&](const std::function<void(CrossAttentionConfig&)>& change,
                          std::vector<std::string> parts) {
    CrossAttentionConfig bad = config;
    change(bad);
    parts.insert(parts.end(), {"mend: ", "see: "});
    ParamLayout layout;
    expect_error([&] { bad.validate(); }, parts);
    expect_error([&] { SharedKeyValue<float>(bad, layout, ""); }, parts);
    expect_error([&] { CrossAttention<float>(bad, layout, ""); }, parts);
  };
  expect([](auto& c) { c.kv_heads = 3; }, {"heads = 4", "kv_heads = 3"});
  expect([](auto& c) { c.head_dim = 7; }, {"head_dim = 7"});
  expect([](auto& c) { c.norm_eps = -1.0; }, {"norm_eps = -1"});
  expect([](auto& c) { c.theta_base = -1.0; }, {"theta_base = -1"});

  const Decoder<float> decoder(config);
  const Buffer<float> data(10 * kWidth);
  const ConstView<float, 3> x(data.data(), {2, 5, kWidth}), flat(data.data(), {2, kWidth, 5});
  const Pass pass{Form::parallel(), Sequences::dense(2, 5)};
  const auto state = decoder.shared.initial_state(2), three = decoder.shared.initial_state(3);
  const KeyValueState<float> narrow(2, 16, 8), ring(2, 16, 16, 4);
  EXPECT_NO_THROW(decoder.shared.check(pass, x, &state));
  expect_error([&] { decoder.shared.check(pass, flat, &state); },
               {"SharedKeyValue", "[2,12,5]", "d_model = 12"});
  expect_error(
      [&] {
        decoder.shared.check({Form::parallel(), Sequences::dense(2, 4)}, x, &state);
      },
      {"SharedKeyValue", "8 rows"});
  expect_error([&] { decoder.shared.check(pass, x, &three); }, {"3 sequences", "x holds 2"});
  expect_error([&] { decoder.shared.check(pass, x, &narrow); }, {"another layer", "16 and 8"});
  expect_error([&] { decoder.shared.check(pass, x, &ring); }, {"window = 4"});
  SharedRows<float> rows;
  expect_error([&] { decoder.first.check(pass, x, rows); },
               {"CrossAttention", "shared keys are [0,0]", "[10,16]"});
  expect_error([&] { decoder.first.check(pass, flat, rows); }, {"CrossAttention", "d_model = 12"});
}

}  // namespace
}  // namespace retnet::test
