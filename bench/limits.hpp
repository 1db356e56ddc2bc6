// SPDX-License-Identifier: MIT
// What this machine can do at most, measured by the program that quotes it: multiply-adds from
// registers, and bytes read, updated in place or copied, by one thread or several. A probe takes a
// few milliseconds, so that it can be repeated beside every sample: a shared machine is not the
// same machine a second later.
//
// The limit of bytes belongs to a size. A state of 256 KB is held against a stream over 256 KB, and
// what exceeds the caches against one that exceeds them.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>

#include "machine.hpp"
#include "retnet/core/buffer.hpp"
#include "retnet/simd/pack.hpp"

namespace bench {

enum class Stream { read, update, copy };

inline const char* name_of(Stream stream) {
  return stream == Stream::read ? "read" : stream == Stream::update ? "update" : "copy";
}

/// Larger than the caches of any machine this is likely to meet: servers have 300 MB.
inline constexpr Index kBeyondCaches = Index{1} << 30;

/// Memory for streams and for weights that shall not be in a cache; all of it holds ones.
inline retnet::Buffer<float>& arena() {
  static retnet::Buffer<float> memory = [] {
    retnet::Buffer<float> m(kBeyondCaches / 4);
    m.fill(1.0F);
    return m;
  }();
  return memory;
}

namespace detail {

// Twelve independent chains hide the latency of the multiply-add.
inline constexpr int kChains = 12, kSteps = 400'000;

[[gnu::noinline]] inline void chains() {
  using P = retnet::simd::Pack<float>;
  P acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = P::broadcast(1.0F + static_cast<float>(i));
  P a = P::broadcast(0.999F), b = P::broadcast(1e-3F);
  benchmark::DoNotOptimize(a);
  benchmark::DoNotOptimize(b);
  for (int s = 0; s < kSteps; ++s)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = fma(a, acc[i], b);
  for (auto& x : acc) benchmark::DoNotOptimize(x);
}

// One pass over n floats from `from`, or from there to `to`.
[[gnu::noinline]] inline void pass(Stream stream, float* from, float* to, Index n) {
  using P = retnet::simd::Pack<float>;
  constexpr int kAtOnce = 8;
  P sum[kAtOnce], one = P::broadcast(1.0F);
  benchmark::DoNotOptimize(one);
  for (auto& x : sum) x = P::zero();
  for (Index i = 0; i + kAtOnce * P::size <= n; i += kAtOnce * P::size) {
#pragma GCC unroll 8
    for (int j = 0; j < kAtOnce; ++j) {
      const P x = P::load(from + i + j * P::size);
      if (stream == Stream::read) sum[j] = sum[j] + x;
      if (stream == Stream::update) (one * x).store(from + i + j * P::size);
      if (stream == Stream::copy) x.store(to + i + j * P::size);
    }
  }
  for (auto& x : sum) benchmark::DoNotOptimize(x);
  benchmark::ClobberMemory();
}

}  // namespace detail

/// FLOP/s of multiply-adds now, all threads together: the best of three probes of about 1 ms.
inline double multiply_adds(int threads) {
  constexpr double kWork =
      2.0 * detail::kChains * retnet::simd::kLanes<float> * static_cast<double>(detail::kSteps);
  auto& ctx = context(threads);
  double best = 0.0;
  for (int probe = 0; probe < 3; ++probe) {
    ctx.parallel_for(threads, [](Index, retnet::Workspace&) {});  // awake before the clock starts
    const double t = seconds_of(
        [&] { ctx.parallel_for(threads, [](Index, retnet::Workspace&) { detail::chains(); }); });
    best = std::max(best, kWork * threads / t);
  }
  return best;
}

/// Bytes/s now, all threads together, of a stream that touches `footprint` bytes over and over;
/// read and written bytes count both.
inline double stream_rate(Stream stream, Index footprint, int threads) {
  constexpr Index kPart = Index{64} << 20;  // of the arena, in turn: the caches hold another part
  static Index turn = 0;
  auto& ctx = context(threads);
  auto& memory = arena();
  const bool beyond = footprint >= kPart;
  const Index bytes = beyond ? kPart : std::max<Index>(footprint, 4096);
  const Index floats = bytes / 4 / threads, passes = beyond ? 1 : (Index{16} << 20) / bytes + 1;
  const double moved = static_cast<double>(floats * 4 * threads * passes);
  double best = 0.0;
  for (int probe = 0; probe < (beyond ? 2 : 3); ++probe) {
    float* start = memory.data() + (beyond ? turn++ % (kBeyondCaches / kPart) * (kPart / 4) : 0);
    ctx.parallel_for(threads, [](Index, retnet::Workspace&) {});
    const double t = seconds_of([&] {
      ctx.parallel_for(threads, [&](Index part, retnet::Workspace&) {
        float* from = start + part * floats;
        const Index n = stream == Stream::copy ? floats / 2 : floats;
        for (Index i = 0; i < passes; ++i) detail::pass(stream, from, from + n, n);
      });
    });
    best = std::max(best, moved * (stream == Stream::update ? 2.0 : 1.0) / t);
  }
  return best;
}

}  // namespace bench
