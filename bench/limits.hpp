// SPDX-License-Identifier: MIT
// What this machine can do at most, measured by the program that quotes it: multiply-adds from
// registers and bytes from memory, one thread. Every figure is reported as a fraction of these.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "retnet/core/buffer.hpp"
#include "retnet/simd/pack.hpp"

namespace bench {

using retnet::Index;

inline double seconds_of(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Twelve independent chains hide the latency of the multiply-add.
inline double fma_peak() {
  using P = retnet::simd::Pack<float>;
  constexpr int kChains = 12, kSteps = 2'000'000;
  double best = 0.0;
  for (int run = 0; run < 5; ++run) {
    P acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = P::broadcast(1.0F + static_cast<float>(i));
    P a = P::broadcast(0.999F), b = P::broadcast(1e-3F);
    benchmark::DoNotOptimize(a);
    benchmark::DoNotOptimize(b);
    const double t = seconds_of([&] {
      for (int s = 0; s < kSteps; ++s)
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) acc[i] = fma(a, acc[i], b);
    });
    for (auto& x : acc) benchmark::DoNotOptimize(x);
    best = std::max(best, 2.0 * kChains * P::size * kSteps / t);
  }
  return best;
}

inline double read_bandwidth() {
  retnet::Buffer<float> data(Index{64} << 20);
  data.fill(1.0F);
  using P = retnet::simd::Pack<float>;
  double best = 0.0;
  for (int run = 0; run < 5; ++run) {
    P sum[4] = {P::zero(), P::zero(), P::zero(), P::zero()};
    const double t = seconds_of([&] {
      for (Index i = 0; i + 4 * P::size <= data.size(); i += 4 * P::size)
        for (int j = 0; j < 4; ++j) sum[j] = sum[j] + P::load(data.data() + i + j * P::size);
    });
    for (auto& x : sum) benchmark::DoNotOptimize(x);
    best = std::max(best, static_cast<double>(data.size()) * 4.0 / t);
  }
  return best;
}

struct Limits {
  double flops;
  double bytes;
};

/// Measured once, at the first use.
inline const Limits& limits() {
  static const Limits measured{fma_peak(), read_bandwidth()};
  return measured;
}

/// Rates per second, and the larger of the two fractions of what one thread's limit allows.
inline void report(benchmark::State& state, double tokens, double flops, double bytes) {
  using benchmark::Counter;
  const auto rate = [&](double amount) {
    return Counter(amount * static_cast<double>(state.iterations()), Counter::kIsRate);
  };
  if (tokens > 0) state.counters["tokens/s"] = rate(tokens);
  if (flops > 0) state.counters["FLOP/s"] = rate(flops);
  if (bytes > 0) state.counters["bytes/s"] = rate(bytes);
  const double least = std::max(flops / limits().flops, bytes / limits().bytes);
  state.counters["limit_fraction"] = rate(least);
}

inline void name_limits() {
  const auto text = [](double v) {
    return std::to_string(static_cast<long long>(v / 1e8) / 10.0).substr(0, 5);
  };
  benchmark::AddCustomContext("fma_peak_gflops_one_thread", text(limits().flops));
  benchmark::AddCustomContext("read_gb_per_s_one_thread", text(limits().bytes));
  benchmark::AddCustomContext("vector_bytes", std::to_string(retnet::simd::kVectorBytes));
}

}  // namespace bench

/// Google Benchmark's main with the limits in the header of its output.
#define RETNET_BENCH_MAIN()                                           \
  int main(int argc, char** argv) {                                   \
    bench::name_limits();                                             \
    benchmark::Initialize(&argc, argv);                               \
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1; \
    benchmark::RunSpecifiedBenchmarks();                              \
    benchmark::Shutdown();                                            \
    return 0;                                                         \
  }                                                                   \
  static_assert(true)
