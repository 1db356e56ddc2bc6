// SPDX-License-Identifier: MIT
// A whole model (torchscale_v2 preset, d 256, 4 layers, 4 heads, V 256), threads as argument:
// prefill in chunks, one training step, and decoding with float and bfloat16 weights. Decoding is
// bytes: each token reads all weights once.
#include <benchmark/benchmark.h>

#include "limits.hpp"
#include "retnet/model/session.hpp"
#include "retnet/train/trainer.hpp"

namespace {

using namespace retnet;

RetNetConfig config() {
  return presets::torchscale_v2({.vocab = 256, .d_model = 256, .layers = 4, .heads = 4});
}

std::vector<Token> text(Index n) {
  std::vector<Token> tokens(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<Token>(philox({1}, 0, i)[0] % 256);
  return tokens;
}

void prefill(benchmark::State& state) {
  const RetNetModel<float> model(config());
  Cpu ctx(static_cast<int>(state.range(1)));
  const auto tokens = text(state.range(0));
  const auto n = state.range(0);
  Buffer<float> h(n * config().d_model);
  auto memory = model.initial_state();
  for (auto _ : state) {
    memory.reset();
    model.hidden(ctx, model.weights(), {Form::chunkwise(), Sequences::dense(1, n)},
                 {tokens.data(), {1, n}}, &memory, {h.data(), n, config().d_model});
    benchmark::DoNotOptimize(h.data());
  }
  const auto rows = static_cast<double>(n);
  bench::report(state, rows, 2.0 * rows * static_cast<double>(model.count_params()), 0);
}

void training_step(benchmark::State& state) {
  Trainer<float> trainer(RetNetModel<float>(config()), {});
  Cpu ctx(static_cast<int>(state.range(0)));
  Batch batch{8, 256, text(2048), text(2048)};
  for (auto _ : state) benchmark::DoNotOptimize(trainer.step(ctx, batch, 1e-4).loss);
  bench::report(state, 2048, 6.0 * 2048 * static_cast<double>(trainer.layout().count()), 0);
}

template <class Weight>
void decode(benchmark::State& state) {
  const RetNetModel<float> wide(config());
  const auto model = wide.with_weights(wide.weight_buffer().cast<Weight>());
  Session<float, Weight> session(model);
  const auto prompt = text(16);
  session.prompt(prompt);
  for (auto _ : state) benchmark::DoNotOptimize(session.next());
  bench::report(state, 1, 0,
                static_cast<double>(model.count_params()) * sizeof(Weight) +
                    2.0 * static_cast<double>(session.state().bytes()));
}

BENCHMARK(prefill)
    ->ArgsProduct({{512, 4096}, {1, 2}})
    ->ArgNames({"T", "threads"})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(training_step)
    ->Arg(1)
    ->Arg(2)
    ->ArgName("threads")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(decode<float>)->Unit(benchmark::kMicrosecond);
BENCHMARK(decode<bfloat16>)->Unit(benchmark::kMicrosecond);

}  // namespace

RETNET_BENCH_MAIN();
