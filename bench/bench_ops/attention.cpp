// SPDX-License-Identifier: MIT
// Softmax attention, H = 8 heads of Dk = Dv = 64: a text from the start, its backward, and a
// generation step against a cache. It is the rival of retention, so it is the library's own,
// written with the same care; the oracle stands beside it.
#include <cmath>

#include "bench_ops/ops.hpp"

namespace bench {
namespace {

constexpr Index kHeads = 8, kDim = 64;

AttentionInput<float> scaled(AttentionInput<float> in) {
  in.scale = 1.0 / std::sqrt(static_cast<double>(kDim));
  return in;
}

template <class Context>
void add_forward(const std::string& name, const Shape& shape, Context& (*make)(int)) {
  add("attention/" + name + shape.text(), [=](benchmark::State& state) {
    Problem<> p(shape);
    auto& ctx = make(shape.threads);
    measure(state,
            {.tokens = static_cast<double>(shape.tokens),
             .flops = attention_flops(shape),
             .threads = shape.threads},
            [&] {
              attention(ctx, scaled(p.attention()), Index{0}, p.output());
              benchmark::DoNotOptimize(p.o.data());
            });
  });
}

void add_backward(const Shape& shape) {
  add("attention/backward" + shape.text(), [=](benchmark::State& state) {
    Problem<> p(shape);
    Gradients<> g(shape);
    Buffer<float> lse(shape.rows() * kHeads);
    const Window<float> sums(lse.data(), shape.rows(), kHeads);
    auto& ctx = context(shape.threads);
    attention(ctx, scaled(p.attention()), Index{0}, p.output(), sums);
    measure(state,
            {.tokens = static_cast<double>(shape.tokens),
             .flops = attention_backward_flops(shape),
             .threads = shape.threads},
            [&] {
              attention_backward(ctx, scaled(p.attention()), Window<const float>(p.output()),
                                 Window<const float>(sums), g.upstream(), g.attention());
              benchmark::DoNotOptimize(g.dq.data());
            });
  });
}

void add_step(Index cached, int threads) {
  const std::string name = "attention/step/" + std::to_string(kDim) + "x" + std::to_string(kDim) +
                           "/cache:" + std::to_string(cached) + threads_suffix(threads);
  add(name, [=](benchmark::State& state) {
    const Shape shape{1, 1, kHeads, kDim, kDim, threads};
    Problem<> p(shape);
    const Index size = cached * shape.keys();
    Buffer<float> keys(size), values(size);
    fill(keys, 4, 0.125F);
    fill(values, 5);
    const AttentionPast<float> past{
        {keys.data(), cached, shape.keys()}, {values.data(), cached, shape.keys()}, 0, cached};
    auto in = scaled(p.attention());
    in.past = &past;
    const double bytes = 8.0 * static_cast<double>(size);
    auto& ctx = context(threads);
    measure(state,
            {.tokens = 1,
             .flops = 4.0 * static_cast<double>(size),
             .bytes = bytes,
             .footprint = bytes,
             .threads = threads},
            [&] {
              attention(ctx, in, Index{1}, p.output());
              benchmark::DoNotOptimize(p.o.data());
            });
  });
}

Reference& oracle(int) {
  static Reference ctx;
  return ctx;
}

}  // namespace

void add_attention(const Flags& flags) {
  for (const Index tokens : {512, 1024, 2048, 4096, 8192}) {
    if (flags.quick && tokens > 512) continue;
    for (const int t : flags.threads) {
      const Shape shape{1, tokens, kHeads, kDim, kDim, t};
      add_forward<Cpu>("forward", shape, context);
      add_backward(shape);
    }
    if (tokens == 512)
      add_forward<Reference>("baseline_oracle", {1, tokens, kHeads, kDim, kDim, 1}, oracle);
  }
  for (const Index cached : {1024, 2048, 4096, 8192, 16384, 32768})
    for (const int t : flags.threads)
      if (!flags.quick || cached == 1024) add_step(cached, t);
}

}  // namespace bench
