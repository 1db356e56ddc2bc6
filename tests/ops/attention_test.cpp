// SPDX-License-Identifier: MIT
// Softmax attention: kernels against the loops of the definition, gradients against finite
// differences, and what must not matter to the last bit: the future, the neighbours, the threads.
#include "retnet/ops/attention.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/compare.hpp"
#include "support/custom_scalar.hpp"
#include "support/framed.hpp"
#include "support/gradcheck.hpp"

namespace retnet {
namespace {

constexpr double kUnwritten = 77.0;

struct AttentionShape {
  Index heads, kv_heads, key_dim, value_dim;
  Index window = 0;
  Index past = 0;  // of the first sequence; each next one has one token more
};

/// Inputs and output gradient. The past of a sequence lies in a ring that begins in its row 2.
template <class S>
struct Problem {
  AttentionShape shape;
  Sequences sequences;
  Buffer<S> q, k, v, d_o;
  std::vector<Buffer<S>> past_k, past_v;
  mutable std::vector<AttentionPast<S>> past;  // windows are set by input(): copies have their own
  double scale;

  Problem(const AttentionShape& s, Sequences rows_of_sequences)
      : shape(s), sequences(std::move(rows_of_sequences)) {
    const Index n = sequences.rows();
    q = test::random_normal<S>(n * s.heads * s.key_dim, 1);
    k = test::random_normal<S>(n * s.kv_heads * s.key_dim, 2);
    v = test::random_normal<S>(n * s.kv_heads * s.value_dim, 3);
    d_o = test::random_normal<S>(n * s.heads * s.value_dim, 4);
    scale = 1.5 / std::sqrt(static_cast<double>(s.key_dim));
    for (Index i = 0; s.past > 0 && i < sequences.count(); ++i) {
      const Index length = s.past + i, capacity = length + i % 2 * 3;
      const auto stream = static_cast<std::uint64_t>(10 + 2 * i);
      past_k.push_back(test::random_normal<S>(capacity * s.kv_heads * s.key_dim, stream));
      past_v.push_back(test::random_normal<S>(capacity * s.kv_heads * s.value_dim, stream + 1));
      past.push_back({{}, {}, 2 % capacity, length});
    }
  }

  Index rows() const { return sequences.rows(); }
  AttentionInput<S> input() const {
    for (std::size_t i = 0; i < past.size(); ++i) {
      const Index keys = shape.kv_heads * shape.key_dim, values = shape.kv_heads * shape.value_dim;
      past[i].keys = {past_k[i].data(), past_k[i].size() / keys, keys};
      past[i].values = {past_v[i].data(), past_v[i].size() / values, values};
    }
    return {{q.data(), rows(), shape.heads * shape.key_dim},
            {k.data(), rows(), shape.kv_heads * shape.key_dim},
            {v.data(), rows(), shape.kv_heads * shape.value_dim},
            shape.heads,
            shape.kv_heads,
            &sequences,
            scale,
            shape.window,
            past.empty() ? nullptr : past.data()};
  }
  template <class U>
  Problem<U> cast() const {
    Problem<U> p(shape, sequences);
    const auto convert = [](const Buffer<S>& from, Buffer<U>& to) {
      for (Index i = 0; i < from.size(); ++i) to[i] = scalar_cast<U>(from[i]);
    };
    convert(q, p.q), convert(k, p.k), convert(v, p.v), convert(d_o, p.d_o);
    for (std::size_t i = 0; i < past.size(); ++i)
      convert(past_k[i], p.past_k[i]), convert(past_v[i], p.past_v[i]);
    return p;
  }
};

template <class S>
struct Result {
  Buffer<S> o, lse;
};

template <class Context, class S>
Result<S> run(Context& ctx, const Problem<S>& p, Index chunk = 0) {
  const Index width = p.shape.heads * p.shape.value_dim;
  Result<S> r{test::filled<S>(p.rows() * width, kUnwritten),
              test::filled<S>(p.rows() * p.shape.heads, kUnwritten)};
  attention(ctx, p.input(), chunk, Window<S>(r.o.data(), p.rows(), width),
            Window<S>(r.lse.data(), p.rows(), p.shape.heads));
  return r;
}

template <class S>
struct Gradients {
  Buffer<S> dq, dk, dv;
};

template <class Context, class S>
Gradients<S> run_backward(Context& ctx, const Problem<S>& p, const Result<S>& r,
                          bool add_keys_values = false) {
  Gradients<S> g{test::filled<S>(p.q.size(), kUnwritten), test::filled<S>(p.k.size(), kUnwritten),
                 test::filled<S>(p.v.size(), kUnwritten)};
  const auto& s = p.shape;
  const Index n = p.rows(), width = s.heads * s.value_dim;
  attention_backward(ctx, p.input(), Window<const S>(r.o.data(), n, width),
                     Window<const S>(r.lse.data(), n, s.heads),
                     Window<const S>(p.d_o.data(), n, width),
                     {{g.dq.data(), n, s.heads * s.key_dim},
                      {g.dk.data(), n, s.kv_heads * s.key_dim},
                      {g.dv.data(), n, s.kv_heads * s.value_dim},
                      add_keys_values});
  return g;
}

template <class S>
bool same_bits(const Gradients<S>& a, const Gradients<S>& b) {
  return test::same_bits(a.dq, b.dq) && test::same_bits(a.dk, b.dk) && test::same_bits(a.dv, b.dv);
}

/// Worst errors seen, for the record.
struct Worst {
  double forward = 0.0, backward = 0.0;
  void print(const char* what, const char* scalar) const {
    std::printf("worst error of %s in %s: forward %.2g, backward %.2g\n", what, scalar, forward,
                backward);
  }
};

template <class S>
class AttentionTest : public testing::Test {
 public:
  Reference reference;
  Cpu one{1}, two{2};
  Worst worst;
  static const char* scalar() { return sizeof(S) == 4 ? "float" : "double"; }

  /// Kernels, for several chunks, against the oracle in double.
  void expect_oracle(const Problem<S>& p, const std::string& what) {
    const auto wide = p.template cast<double>();
    const auto expected = run(reference, wide);
    for (const Index chunk : {0, 1, 3, 64}) {
      const auto given = run(two, p, chunk);
      const double error = std::fmax(test::relative_error(given.o, expected.o),
                                     test::relative_error(given.lse, expected.lse));
      EXPECT_LT(error, test::tolerance<S>()) << what << " chunk " << chunk;
      worst.forward = std::fmax(worst.forward, error);
    }
    const auto gradients = run_backward(reference, wide, expected);
    const auto given = run_backward(two, p, run(two, p));
    // One token alone has no gradient to its scores: then rounding is measured against those of v.
    const double size = test::relative_error(gradients.dv, test::filled<double>(p.v.size(), 0.0));
    const double error = std::fmax(test::relative_error(given.dv, gradients.dv),
                                   std::fmax(test::relative_error(given.dq, gradients.dq, size),
                                             test::relative_error(given.dk, gradients.dk, size)));
    EXPECT_LT(error, test::tolerance<S>()) << what << " backward";
    worst.backward = std::fmax(worst.backward, error);
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(AttentionTest, Scalars);

TYPED_TEST(AttentionTest, KernelsEqualTheOracleOverTheTable) {
  constexpr std::array<Index, 5> value_dims{3, 43, 64, 20, 2};
  constexpr std::array<Index, 3> pasts{0, 5, 300};
  std::size_t turn = 0;
  for (const Index tokens : test::kTokens)
    for (const Index key_dim : test::kKeyDims)
      for (const Index group : {1, 2, 4})
        for (const Index window : {0, 1, 16, 1000}) {
          const Index kv_heads = turn % 2 == 0 ? 1 : 2;
          const AttentionShape shape{group * kv_heads,     kv_heads, key_dim,
                                     value_dims[turn % 5], window,   pasts[turn % 3]};
          const auto sequences = Sequences::dense(tokens < 64 ? 2 : 1, tokens);
          this->expect_oracle(Problem<TypeParam>(shape, sequences),
                              "T" + std::to_string(tokens) + "_Dk" + std::to_string(key_dim) +
                                  "_G" + std::to_string(group) + "_W" + std::to_string(window) +
                                  "_P" + std::to_string(shape.past));
          ++turn;
        }
  this->worst.print("the table", this->scalar());
}

TYPED_TEST(AttentionTest, KernelsEqualTheOracleOnPackedAndPaddedSequences) {
  const std::array<Index, 6> bounds{0, 1, 65, 68, 133, 263};
  const std::array<Index, 3> padding{0, 69, 13};
  for (const Index window : {0, 16})
    for (const Index past : {0, 7}) {
      const AttentionShape shape{4, 2, 20, 9, window, past};
      this->expect_oracle(Problem<TypeParam>(shape, Sequences::packed<Index>(bounds)), "packed");
      Problem<TypeParam> padded(shape, Sequences::left_padded(3, 70, padding));
      const auto given = run(this->two, padded);
      const auto expected = run(this->reference, padded);
      EXPECT_LT(test::relative_error(given.o, expected.o), test::tolerance<TypeParam>());
      EXPECT_EQ(given.o[70 * 4 * 9], TypeParam(kUnwritten));  // the first row of padding
      const auto gradients = run_backward(this->two, padded, given);
      EXPECT_LT(
          test::relative_error(gradients.dk, run_backward(this->reference, padded, expected).dk),
          test::tolerance<TypeParam>());
      EXPECT_EQ(gradients.dq[70 * 4 * 20], TypeParam(kUnwritten));
    }
}

// softmax of three scores, written out.
TEST(Attention, IsTheFormula) {
  Reference ctx;
  Problem<double> p({1, 1, 2, 1}, Sequences::dense(1, 3));
  const auto r = run(ctx, p);
  double weights = 0.0, sum = 0.0;
  for (Index m = 0; m < 3; ++m) {
    const double e = std::exp(p.scale * (p.q[4] * p.k[2 * m] + p.q[5] * p.k[2 * m + 1]));
    weights += e;
    sum += e * p.v[m];
  }
  EXPECT_NEAR(r.o[2], sum / weights, 1e-15);
  EXPECT_NEAR(r.lse[2], std::log(weights), 1e-15);
  EXPECT_EQ(r.o[0], p.v[0]);  // the first token sees itself alone
  p.shape.window = 1;
  EXPECT_TRUE(test::same_bits(run(ctx, p).o, p.v));
}

TYPED_TEST(AttentionTest, ScoresOfAnySizeAreSafe) {
  using S = TypeParam;
  Problem<S> p({2, 1, 16, 8}, Sequences::dense(1, 300));
  for (S& x : p.q) x *= S(1e4);
  const auto expected = run(this->reference, p.template cast<double>());
  for (const Index chunk : {0, 1}) {
    const auto given = run(this->one, p, chunk);
    EXPECT_LT(test::relative_error(given.lse, expected.lse), test::tolerance<S>());
    for (const S x : given.o) EXPECT_TRUE(std::isfinite(x));
  }
}

// The tokens of a past are tokens: any of them may be given as rows instead.
TYPED_TEST(AttentionTest, APastEqualsRows) {
  using S = TypeParam;
  const Index tokens = 70, heads = 4, width = heads * 9;
  for (const Index window : {0, 1, 16})
    for (const Index split : {1, 2, 17, 64, 69}) {
      const Problem<S> whole({heads, 2, 8, 9, window}, Sequences::dense(1, tokens));
      const auto expected = run(this->two, whole);
      Problem<S> part({heads, 2, 8, 9, window, split}, Sequences::dense(1, tokens - split));
      const auto tail = [&](const Buffer<S>& from, Buffer<S>& to) {
        std::copy(from.end() - to.size(), from.end(), to.begin());
      };
      tail(whole.q, part.q), tail(whole.k, part.k), tail(whole.v, part.v);
      for (Index m = 0; m < split; ++m) {
        const Index row = (part.past[0].first + m) % (part.past_k[0].size() / (2 * 8));
        std::copy_n(whole.k.data() + m * 2 * 8, 2 * 8, part.past_k[0].data() + row * 2 * 8);
        std::copy_n(whole.v.data() + m * 2 * 9, 2 * 9, part.past_v[0].data() + row * 2 * 9);
      }
      Buffer<S> after((tokens - split) * width);
      tail(expected.o, after);
      for (const Index chunk : {0, 1, 5}) {
        EXPECT_LT(test::relative_error(run(this->two, part, chunk).o, after), test::tolerance<S>());
        EXPECT_LT(test::relative_error(run(this->reference, part, chunk).o, after),
                  test::tolerance<S>());
      }
    }
}

TYPED_TEST(AttentionTest, SharedKeyHeadsEqualRepeatedOnes) {
  using S = TypeParam;
  const Problem<S> shared({4, 2, 8, 9}, Sequences::dense(1, 70));
  Problem<S> repeated({4, 4, 8, 9}, Sequences::dense(1, 70));
  const auto repeat = [](const Buffer<S>& from, Buffer<S>& to, Index width) {
    for (Index r = 0; r < 70; ++r)
      for (Index h = 0; h < 4; ++h)
        std::copy_n(from.data() + (r * 2 + h / 2) * width, width, to.data() + (r * 4 + h) * width);
  };
  repeat(shared.k, repeated.k, 8), repeat(shared.v, repeated.v, 9);
  const auto a = run(this->two, shared), b = run(this->two, repeated);
  EXPECT_LT(test::relative_error(a.o, b.o), test::tolerance<S>());
  EXPECT_LT(test::relative_error(run_backward(this->two, shared, a).dq,
                                 run_backward(this->two, repeated, b).dq),
            test::tolerance<S>());
}

// q, k and v against finite differences of <d_o, o>; what is remembered is a constant.
TEST(Attention, GradientsMatchFiniteDifferences) {
  Reference reference;
  Cpu cpu(2);
  const std::array<Index, 4> bounds{0, 1, 5, 12};
  const auto check = [&](auto& ctx, Problem<double> p, const char* what) {
    const auto g = run_backward(ctx, p, run(ctx, p));
    const auto loss = [&] {
      const auto o = run(ctx, p).o;
      double sum = 0.0;
      for (Index i = 0; i < o.size(); ++i) sum += p.d_o[i] * o[i];
      return sum;
    };
    EXPECT_LT(test::gradient_error(p.q.span(), g.dq.span(), loss), 1e-8) << what;
    EXPECT_LT(test::gradient_error(p.k.span(), g.dk.span(), loss), 1e-8) << what;
    EXPECT_LT(test::gradient_error(p.v.span(), g.dv.span(), loss), 1e-8) << what;
  };
  for (const Index kv_heads : {1, 2, 4})
    for (const Index window : {0, 1, 3})
      for (const Index past : {0, 4}) {
        const Problem<double> p({4, kv_heads, 6, 5, window, past},
                                Sequences::packed<Index>(bounds));
        check(reference, p, "reference");
        check(cpu, p, "cpu");
      }
  check(cpu, Problem<double>({2, 1, 4, 3, 140, 300}, Sequences::dense(1, 130)), "several tiles");
}

TYPED_TEST(AttentionTest, KeyGradientsAreAssignedOrAdded) {
  using S = TypeParam;
  const Problem<S> p({4, 2, 8, 9}, Sequences::dense(2, 40));
  const auto check = [&](auto& ctx) {
    const auto r = run(ctx, p);
    const auto once = run_backward(ctx, p, r), added = run_backward(ctx, p, r, true);
    EXPECT_TRUE(test::same_bits(once.dq, added.dq));
    auto more = added;
    for (auto* x : {&more.dk, &more.dv})
      for (S& d : *x) d -= S(kUnwritten);
    EXPECT_LT(test::relative_error(more.dk, once.dk), 100 * test::tolerance<S>());
    EXPECT_LT(test::relative_error(more.dv, once.dv), 100 * test::tolerance<S>());
  };
  check(this->reference);
  check(this->two);
}

TYPED_TEST(AttentionTest, ReadsAndWritesItsWindowsAlone) {
  using S = TypeParam;
  const Problem<S> p({4, 2, 20, 9}, Sequences::dense(2, 67));
  const auto framed = [&](const Buffer<S>& x) {
    const Index cols = x.size() / p.rows();
    return test::Framed<S>(p.rows(), cols).assign(Window<const S>(x.data(), p.rows(), cols));
  };
  auto q = framed(p.q), k = framed(p.k), v = framed(p.v), d = framed(p.d_o);
  const auto check = [&](auto& ctx) {
    auto in = p.input();
    in.q = q.window(), in.k = k.window(), in.v = v.window();
    test::Framed<S> o(p.rows(), 4 * 9, kUnwritten), lse(p.rows(), 4, kUnwritten);
    test::Framed<S> dq(p.rows(), 4 * 20, kUnwritten), dk(p.rows(), 2 * 20, kUnwritten),
        dv(p.rows(), 2 * 9, kUnwritten);
    const auto plain = run(ctx, p);
    attention(ctx, in, 0, o.window(), lse.window());
    attention_backward(ctx, in, Window<const S>(o.window()), Window<const S>(lse.window()),
                       Window<const S>(d.window()), {dq.window(), dk.window(), dv.window()});
    for (const auto* f : {&o, &lse, &dq, &dk, &dv}) EXPECT_TRUE(f->frame_is(kUnwritten));
    EXPECT_TRUE(
        test::same_bits(o.window(), Window<S>(const_cast<S*>(plain.o.data()), p.rows(), 36)));
    const auto g = run_backward(ctx, p, plain);
    EXPECT_TRUE(
        test::same_bits(std::as_const(dk).window(), Window<const S>(g.dk.data(), p.rows(), 40)));
  };
  check(this->reference);
  check(this->two);
}

TYPED_TEST(AttentionTest, TheFutureLeavesThePastAlone) {
  using S = TypeParam;
  const Index tokens = 130;
  constexpr S kBroken[] = {S(1e3), std::numeric_limits<S>::quiet_NaN(),
                           std::numeric_limits<S>::infinity()};
  const auto check = [&](auto& ctx, const Problem<S>& p, Index chunk, Index now, S value) {
    const auto past_of = [&](const Buffer<S>& x) {
      const Index cols = x.size() / tokens;
      return Window<const S>(x.data(), now, cols);
    };
    auto changed = p;
    for (auto* x : {&changed.q, &changed.k, &changed.v})
      for (Index i = x->size() / tokens * now; i < x->size(); ++i) (*x)[i] = value;
    const auto before = run(ctx, p, chunk), after = run(ctx, changed, chunk);
    EXPECT_TRUE(test::same_bits(past_of(before.o), past_of(after.o))) << chunk << " " << now;
    EXPECT_TRUE(test::same_bits(past_of(before.lse), past_of(after.lse))) << chunk << " " << now;
    EXPECT_FALSE(test::same_bits(before.o, after.o));
    EXPECT_EQ(std::isfinite(after.o[after.o.size() - 1]), std::isfinite(value));
    if (chunk != 0) return;
    const auto g = run_backward(ctx, p, before), h = run_backward(ctx, changed, after);
    EXPECT_TRUE(test::same_bits(past_of(g.dq), past_of(h.dq))) << now;
  };
  for (const Index window : {0, 16})
    for (const Index past : {0, 3}) {
      const Problem<S> p({4, 2, 6, 5, window, past}, Sequences::dense(1, tokens));
      for (const S value : kBroken)
        for (const Index now : {1, 37, 64, 129}) {
          check(this->reference, p, 0, now, value);
          for (const Index chunk : {0, 1, 3}) check(this->two, p, chunk, now, value);
        }
    }
}

// What lies before the window is not seen either.
TYPED_TEST(AttentionTest, WhatLeftTheWindowIsForgotten) {
  using S = TypeParam;
  const Problem<S> p({2, 1, 6, 5, 16, 20}, Sequences::dense(1, 130));
  auto changed = p;
  const Index row = 50;
  for (auto* x : {&changed.k, &changed.v})
    for (Index i = 0; i < x->size() / 130 * row; ++i) (*x)[i] = std::numeric_limits<S>::quiet_NaN();
  for (const Index chunk : {0, 1, 3}) {
    const auto a = run(this->two, p, chunk), b = run(this->two, changed, chunk);
    const Index first = (row + 15) * 2 * 5;
    EXPECT_TRUE(test::same_bits(std::span<const S>(a.o.begin() + first, a.o.end()),
                                std::span<const S>(b.o.begin() + first, b.o.end())));
    EXPECT_FALSE(std::isfinite(b.o[first - 1]));
  }
}

TYPED_TEST(AttentionTest, BitsDoNotDependOnTheThreads) {
  for (const Index window : {0, 16}) {
    const Problem<TypeParam> p({4, 2, 64, 43, window, 9}, Sequences::dense(3, 150));
    for (const Index chunk : {0, 1, 16}) {
      const auto a = run(this->one, p, chunk), b = run(this->two, p, chunk);
      EXPECT_TRUE(test::same_bits(a.o, b.o)) << chunk;
      EXPECT_TRUE(test::same_bits(a.lse, b.lse)) << chunk;
      EXPECT_TRUE(same_bits(run_backward(this->one, p, a), run_backward(this->two, p, b)));
    }
  }
}

TYPED_TEST(AttentionTest, BitsDoNotDependOnTheNeighboursInTheBatch) {
  using S = TypeParam;
  const std::array<Index, 6> bounds{0, 1, 65, 68, 133, 263};
  const Problem<S> p({4, 2, 8, 9, 0, 3}, Sequences::packed<Index>(bounds));
  for (const Index chunk : {0, 1, 16}) {
    const auto all = run(this->two, p, chunk);
    for (Index s = 0; s < p.sequences.count(); ++s) {
      const auto [first, length] = p.sequences[s];
      auto in = p.input();
      const auto alone = Sequences::dense(1, length);
      in.q = in.q.row_block(first, length), in.k = in.k.row_block(first, length);
      in.v = in.v.row_block(first, length);
      in.sequences = &alone;
      in.past = &p.past[static_cast<std::size_t>(s)];
      Buffer<S> o(length * 36);
      attention(this->one, in, chunk, Window<S>(o.data(), length, 36));
      EXPECT_TRUE(test::same_bits(Window<const S>(o.data(), length, 36),
                                  Window<const S>(all.o.data() + first * 36, length, 36)))
          << s << " chunk " << chunk;
    }
  }
}

TEST(Attention, OtherScalarsRunTheLoops) {
  const Problem<double> wide({4, 2, 6, 5, 9, 4}, Sequences::dense(2, 21));
  const auto p = wide.cast<test::Custom>();
  Reference reference;
  Cpu cpu(2);
  const auto expected = run(reference, wide);
  const auto given = run(cpu, p);
  EXPECT_LT(test::relative_error(given.o, expected.o), 1e-14);
  const auto gradients = run_backward(reference, wide, expected);
  EXPECT_LT(test::relative_error(run_backward(cpu, p, given).dk, gradients.dk), 1e-14);
}

template <class S, class Context>
std::vector<std::string> paths(Context& ctx, Index tokens, Index chunk) {
  const Problem<S> p({2, 1, 4, 3}, Sequences::dense(1, tokens));
  std::vector<const char*> trace;
  ctx.trace = &trace;
  run_backward(ctx, p, run(ctx, p, chunk));
  ctx.trace = nullptr;
  return {trace.begin(), trace.end()};
}

TEST(Attention, KernelsRunWhereTheyExist) {
  Reference reference;
  struct Mine : Cpu {};
  Mine cpu;
  using Names = std::vector<std::string>;
  const std::string back = "attention_backward: packed tiles";
  const Names tiles{"attention: packed tiles", back}, rows{"attention: token by token", back};
  const Names loops{"attention: reference", "attention_backward: reference"};
  EXPECT_EQ(paths<float>(cpu, 5, 0), tiles);
  EXPECT_EQ(paths<double>(cpu, 5, 3), tiles);
  EXPECT_EQ(paths<float>(cpu, 5, 1), rows);
  EXPECT_EQ(paths<double>(cpu, 1, 0), rows);
  EXPECT_EQ(paths<test::Custom>(cpu, 5, 0), loops);
  EXPECT_EQ(paths<float>(reference, 5, 0), loops);
}

}  // namespace
}  // namespace retnet
