// SPDX-License-Identifier: MIT
// One row of a bench: what an iteration does at the least, how fast that went, and which part of
// the machine's limit it reached. The limits are probed before and after the timed loop; the better
// of the two counts, so a fraction errs on the low side. Counters of every row:
//
//   tokens/s, FLOP/s, bytes/s, ns/element   of useful work; those that make sense for the row
//   limit_fraction   the larger of the two fractions (compute, bytes); the label names which
//   waited           share of the time in which threads waited for a processor: noise by others
#pragma once

#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <cstdio>
#include <string>
#include <utility>

#include "flags.hpp"
#include "limits.hpp"

namespace bench {

/// Of one iteration. Zero: does not apply.
struct Work {
  double tokens = 0.0;
  double elements = 0.0;
  double flops = 0.0;  // useful ones; each program says how it counts
  double bytes = 0.0;  // that must move, whatever the kernel
  Stream traffic = Stream::read;
  double footprint = static_cast<double>(kBeyondCaches);  // bytes touched over and over
  int threads = 1;
};

namespace detail {

struct Roof {
  double flops = 0.0, bytes = 0.0;
};

inline Roof roof_of(const Work& work) {
  Roof roof;
  if (work.flops > 0.0) roof.flops = multiply_adds(work.threads);
  if (work.bytes > 0.0)
    roof.bytes = stream_rate(work.traffic, static_cast<Index>(work.footprint), work.threads);
  return roof;
}

inline std::string size_text(double bytes) {
  char text[32];
  const bool large = bytes >= 1 << 20;
  std::snprintf(text, sizeof text, "%.0f %s", bytes / (large ? 1 << 20 : 1 << 10),
                large ? "MB" : "KB");
  return bytes >= static_cast<double>(kBeyondCaches) ? "memory" : text;
}

inline void write_counters(benchmark::State& state, const Work& work, const Roof& roof,
                           double seconds, double waited) {
  const double rate = static_cast<double>(state.iterations()) / seconds;
  // No zeros: of a counter that is 0 in every repetition Google Benchmark writes a variation of NaN.
  const auto set = [&](const char* name, double value) {
    if (value > 0.0) state.counters[name] = value;
  };
  set("tokens/s", work.tokens * rate);
  set("FLOP/s", work.flops * rate);
  set("bytes/s", work.bytes * rate);
  if (work.elements > 0.0) set("ns/element", 1e9 / (work.elements * rate));
  set("waited", waited / (seconds * 1e9));

  const double compute = roof.flops > 0.0 ? work.flops / roof.flops : 0.0;
  const double moved = roof.bytes > 0.0 ? work.bytes / roof.bytes : 0.0;
  if (compute == 0.0 && moved == 0.0) return;
  state.counters["limit_fraction"] = std::max(compute, moved) * rate;
  char label[96];
  if (compute >= moved) {
    std::snprintf(label, sizeof label, "limit: multiply-add, %.0f GFLOP/s", roof.flops * 1e-9);
  } else {
    std::snprintf(label, sizeof label, "limit: %s %s, %.0f GB/s", name_of(work.traffic),
                  size_text(work.footprint).c_str(), roof.bytes * 1e-9);
  }
  state.SetLabel(label);
}

}  // namespace detail

/// Runs body() once to warm up and then as often as asked, and fills the row.
template <class Body>
void measure(benchmark::State& state, const Work& work, Body&& body) {
  const detail::Roof before = detail::roof_of(work);
  body();
  const double waited = waited_ns();
  const double seconds = seconds_of([&] {
    for (auto _ : state) {
      body();
      benchmark::ClobberMemory();
    }
  });
  const double waited_meanwhile = waited_ns() - waited;
  const detail::Roof after = detail::roof_of(work);
  detail::write_counters(state, work,
                         {std::max(before.flops, after.flops), std::max(before.bytes, after.bytes)},
                         seconds, waited_meanwhile);
}

/// Registers a row. Rates are per second of real time, since several threads may work on one row.
template <class Row>
benchmark::internal::Benchmark* add(const std::string& name, Row&& row) {
  return benchmark::RegisterBenchmark(name.c_str(), std::forward<Row>(row))
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

inline std::string threads_suffix(int threads) { return "/threads:" + std::to_string(threads); }

namespace detail {

inline const char*& help_text() {
  static const char* text = "";
  return text;
}

inline void name_machine(const Flags& flags) {
  const auto say = [](const std::string& key, double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value);
    benchmark::AddCustomContext(key, text);
  };
  for (const int t : flags.threads) {
    const std::string end = "_" + std::to_string(t) + (t == 1 ? "_thread" : "_threads");
    say("fma_gflops" + end, multiply_adds(t) * 1e-9);
    for (const Stream s : {Stream::read, Stream::update, Stream::copy})
      say(name_of(s) + std::string("_gb_per_s") + end, stream_rate(s, kBeyondCaches, t) * 1e-9);
  }
  benchmark::AddCustomContext("vector_bytes", std::to_string(retnet::simd::kVectorBytes));
  benchmark::AddCustomContext("eigen", std::to_string(EIGEN_WORLD_VERSION) + "." +
                                           std::to_string(EIGEN_MAJOR_VERSION) + "." +
                                           std::to_string(EIGEN_MINOR_VERSION));
#if defined(__clang__)
  benchmark::AddCustomContext("compiler", "clang " __clang_version__);
#else
  benchmark::AddCustomContext("compiler", "g++ " __VERSION__);
#endif
}

}  // namespace detail

/// main() of a bench program: `add_rows(flags)` registers its rows, `help` describes its own flags.
template <class AddRows>
int run(int argc, char** argv, const char* help, AddRows&& add_rows) {
  detail::help_text() = help;
  benchmark::Initialize(&argc, argv, [] {
    std::printf(
        "  --quick         fewer and smaller rows\n"
        "  --threads=1,2   threads of the rows\n%s"
        "Flags of Google Benchmark: --benchmark_filter=<regex>, --benchmark_list_tests,\n"
        "--benchmark_repetitions=<n>, --benchmark_min_time=<seconds>, "
        "--benchmark_out=<file>, ...\n",
        detail::help_text());
  });
  Flags flags(argc, argv);
  processors();
  pin(0);
  add_rows(flags);
  flags.check();
  detail::name_machine(flags);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace bench
