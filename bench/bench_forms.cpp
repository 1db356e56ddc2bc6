// SPDX-License-Identifier: MIT
// The retention operator in its three forms over the length of the text, one thread, float: H = 8
// heads of Dk = 64, Dv = 128. Beside them the oracle (plain loops over the definition) and plain
// Eigen expressions of the parallel and the chunkwise form. FLOPs are the useful ones: the causal
// half of the scores, the state once for reading and once for writing.
#include <benchmark/benchmark.h>

#include "limits.hpp"
#include "retnet/core/params.hpp"
#include "retnet/ops/retention_chunkwise.hpp"
#include "retnet/ops/retention_parallel.hpp"
#include "retnet/ops/retention_recurrent.hpp"

namespace {

using namespace retnet;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Strided = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;

constexpr Index kHeads = 8, kKey = 64, kValue = 128, kChunk = 64;

struct Case {
  explicit Case(Index tokens)
      : length(tokens),
        q(tokens * kHeads * kKey),
        k(tokens * kHeads * kKey),
        v(tokens * kHeads * kValue),
        o(tokens * kHeads * kValue),
        state(kHeads * kKey * kValue),
        log_gamma(log_gamma_pow2(kHeads)),
        rows(Sequences::dense(1, tokens)) {
    std::uint64_t stream = 0;
    for (auto* x : {&q, &k, &v}) {
      for (Index i = 0; i < x->size(); ++i)
        (*x)[i] = static_cast<float>(normal({1}, stream, static_cast<std::uint64_t>(i)));
      ++stream;
    }
    state.fill(0.0F);
  }
  RetentionInput<float> input() const {
    return {{q.data(), length, kHeads * kKey},
            {k.data(), length, kHeads * kKey},
            {v.data(), length, kHeads * kValue},
            kHeads,
            kHeads,
            {log_gamma, {}},
            &rows};
  }
  Window<float> output() { return {o.data(), length, kHeads * kValue}; }
  double flops(double chunk) const {
    const auto n = static_cast<double>(length);
    return kHeads * n * ((chunk + 1) * (kKey + kValue) + (chunk < n ? 4.0 * kKey * kValue : 0.0));
  }

  Index length;
  Buffer<float> q, k, v, o, state;
  std::vector<double> log_gamma;
  Sequences rows;
};

void parallel(benchmark::State& state) {
  Case c(state.range(0));
  Cpu ctx(1);
  for (auto _ : state) {
    retention_parallel(ctx, c.input(), static_cast<float*>(nullptr), c.output());
    benchmark::DoNotOptimize(c.o.data());
  }
  bench::report(state, static_cast<double>(c.length), c.flops(static_cast<double>(c.length)), 0);
}

void chunkwise(benchmark::State& state) {
  Case c(state.range(0));
  Cpu ctx(1);
  for (auto _ : state) {
    retention_chunkwise(ctx, c.input(), kChunk, c.state.data(), c.output());
    benchmark::DoNotOptimize(c.o.data());
  }
  bench::report(state, static_cast<double>(c.length), c.flops(kChunk), 0);
}

void chunkwise_forward_backward(benchmark::State& state) {
  Case c(state.range(0));
  Cpu ctx(1);
  Buffer<float> dq(c.q.size()), dk(c.k.size()), dv(c.v.size());
  const RetentionGradient<float> grad{{dq.data(), c.length, kHeads * kKey},
                                      {dk.data(), c.length, kHeads * kKey},
                                      {dv.data(), c.length, kHeads * kValue},
                                      nullptr,
                                      {}};
  for (auto _ : state) {
    retention_chunkwise(ctx, c.input(), kChunk, static_cast<float*>(nullptr), c.output());
    retention_chunkwise_backward(ctx, c.input(), kChunk, static_cast<const float*>(nullptr),
                                 Window<const float>(c.output()), grad);
    benchmark::DoNotOptimize(dq.data());
  }
  // backward: five products with the state, five triangles (dP twice)
  const double back = kHeads * static_cast<double>(c.length) *
                      (10.0 * kKey * kValue + (kChunk + 1.0) * (3.0 * kKey + 3.0 * kValue));
  bench::report(state, static_cast<double>(c.length), c.flops(kChunk) + back, 0);
}

void recurrent(benchmark::State& state) {
  Case c(state.range(0));
  Cpu ctx(1);
  for (auto _ : state) {
    retention_recurrent(ctx, c.input(), c.state.data(), c.output());
    benchmark::DoNotOptimize(c.o.data());
  }
  const auto n = static_cast<double>(c.length);
  bench::report(state, n, n * kHeads * 5.0 * kKey * kValue, 0);
}

void baseline_oracle_parallel(benchmark::State& state) {
  Case c(state.range(0));
  Reference ctx;
  for (auto _ : state) {
    retention_parallel(ctx, c.input(), static_cast<float*>(nullptr), c.output());
    benchmark::DoNotOptimize(c.o.data());
  }
  bench::report(state, static_cast<double>(c.length), c.flops(static_cast<double>(c.length)), 0);
}

Strided head(const Buffer<float>& x, Index first, Index rows, Index h, Index width) {
  return {x.data() + first * kHeads * width + h * width, rows, width,
          Eigen::OuterStride<>(kHeads * width)};
}

// One chunk of Eigen products; S is read and advanced.
void eigen_chunk(Case& c, Index first, Index rows, Index h, const Matrix& decay, Matrix& s) {
  const double log_gamma = c.log_gamma[static_cast<std::size_t>(h)];
  const auto q = head(c.q, first, rows, h, kKey), k = head(c.k, first, rows, h, kKey);
  const auto v = head(c.v, first, rows, h, kValue);
  Eigen::VectorXf up(rows), down(rows);
  for (Index i = 0; i < rows; ++i) {
    up(i) = static_cast<float>(std::exp(static_cast<double>(i + 1) * log_gamma));
    down(i) = static_cast<float>(std::exp(static_cast<double>(rows - 1 - i) * log_gamma));
  }
  Eigen::Map<Matrix, 0, Eigen::OuterStride<>> o(c.o.data() + first * kHeads * kValue + h * kValue,
                                                rows, kValue,
                                                Eigen::OuterStride<>(kHeads * kValue));
  Matrix scores = q * k.transpose();
  scores.array() *= decay.topLeftCorner(rows, rows).array();
  o.noalias() = scores * v;
  o.noalias() += up.asDiagonal() * (q * s);
  s *= up(rows - 1);
  s.noalias() += k.transpose() * (down.asDiagonal() * v);
}

void eigen(benchmark::State& state, Index chunk) {
  Case c(state.range(0));
  chunk = std::min(chunk, c.length);
  for (auto _ : state) {
    for (Index h = 0; h < kHeads; ++h) {
      Matrix decay(chunk, chunk), s = Matrix::Zero(kKey, kValue);
      for (Index i = 0; i < chunk; ++i)
        for (Index j = 0; j < chunk; ++j)
          decay(i, j) =
              i < j ? 0.0F
                    : static_cast<float>(std::exp(static_cast<double>(i - j) *
                                                  c.log_gamma[static_cast<std::size_t>(h)]));
      for (Index first = 0; first < c.length; first += chunk)
        eigen_chunk(c, first, std::min(chunk, c.length - first), h, decay, s);
    }
    benchmark::DoNotOptimize(c.o.data());
  }
  bench::report(state, static_cast<double>(c.length), c.flops(static_cast<double>(chunk)), 0);
}
void baseline_eigen_parallel(benchmark::State& state) { eigen(state, state.range(0)); }
void baseline_eigen_chunkwise(benchmark::State& state) { eigen(state, kChunk); }

BENCHMARK(parallel)->RangeMultiplier(4)->Range(64, 4096)->Unit(benchmark::kMillisecond);
BENCHMARK(chunkwise)->RangeMultiplier(4)->Range(64, 65536)->Unit(benchmark::kMillisecond);
BENCHMARK(recurrent)->RangeMultiplier(4)->Range(64, 65536)->Unit(benchmark::kMillisecond);
BENCHMARK(chunkwise_forward_backward)
    ->RangeMultiplier(4)
    ->Range(64, 16384)
    ->Unit(benchmark::kMillisecond);
BENCHMARK(baseline_oracle_parallel)
    ->RangeMultiplier(4)
    ->Range(64, 1024)
    ->Unit(benchmark::kMillisecond);
BENCHMARK(baseline_eigen_parallel)
    ->RangeMultiplier(4)
    ->Range(64, 4096)
    ->Unit(benchmark::kMillisecond);
BENCHMARK(baseline_eigen_chunkwise)
    ->RangeMultiplier(4)
    ->Range(64, 65536)
    ->Unit(benchmark::kMillisecond);

}  // namespace

RETNET_BENCH_MAIN();
