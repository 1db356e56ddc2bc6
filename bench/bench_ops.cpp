// SPDX-License-Identifier: MIT
// The ops that a layer is made of, one thread, float: the dense product in training, single-token
// and chunk shapes beside Eigen's product; norm, gate and rotation by bytes moved.
#include <benchmark/benchmark.h>

#include "limits.hpp"
#include "retnet/ops/activation.hpp"
#include "retnet/ops/linear.hpp"
#include "retnet/ops/norm.hpp"
#include "retnet/ops/rotation.hpp"

namespace {

using namespace retnet;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct Operands {
  Operands(Index m, Index n, Index k) : x(Matrix::Random(m, k)), w(Matrix::Random(n, k)), y(m, n) {}
  Window<const float> input() const { return {x.data(), x.rows(), x.cols()}; }
  Window<const float> weight() const { return {w.data(), w.rows(), w.cols()}; }
  Window<float> output() { return {y.data(), y.rows(), y.cols()}; }
  double flops() const { return 2.0 * static_cast<double>(y.size() * x.cols()); }
  double bytes() const { return 4.0 * static_cast<double>(w.size()); }
  Matrix x, w, y;
};

void linear_rows(benchmark::State& state) {  // y[M,N] = x[M,K] W[N,K]^T
  Operands c(state.range(0), state.range(1), state.range(2));
  Cpu ctx(1);
  for (auto _ : state) {
    linear(ctx, c.weight(), Window<const float>(), c.input(), c.output(), state.range(0) == 1);
    benchmark::DoNotOptimize(c.y.data());
  }
  bench::report(state, 0, c.flops(), 0);
}

void baseline_eigen_linear_rows(benchmark::State& state) {
  Operands c(state.range(0), state.range(1), state.range(2));
  for (auto _ : state) {
    c.y.noalias() = c.x * c.w.transpose();
    benchmark::DoNotOptimize(c.y.data());
  }
  bench::report(state, 0, c.flops(), 0);
}

void shapes(benchmark::internal::Benchmark* b) {
  for (const int width : {128, 512, 1024})
    for (const int rows : {1, 64, 1024}) b->Args({rows, width, width});
  b->Args({64, 64, 64})->Args({64, 128, 64})->Args({64, 512, 256})->Unit(benchmark::kMicrosecond);
}

constexpr Index kRows = 1024, kWidth = 1024, kHeads = 8;

void rms_norm(benchmark::State& state) {
  Operands c(kRows, kWidth, kWidth);
  Cpu ctx(1);
  for (auto _ : state) {
    norm(ctx, NormKind::rms, 1e-6, kHeads, Window<const float>(), Window<const float>(), c.input(),
         c.output());
    benchmark::DoNotOptimize(c.y.data());
  }
  bench::report(state, kRows, 0, 8.0 * kRows * kWidth);
}

void swish_gate(benchmark::State& state) {
  Operands c(kRows, kWidth, kWidth);
  Cpu ctx(1);
  for (auto _ : state) {
    gate(ctx, Activation::swish, c.input(), Window<const float>(c.weight()), c.output());
    benchmark::DoNotOptimize(c.y.data());
  }
  bench::report(state, kRows, 0, 12.0 * kRows * kWidth);
}

void rotation(benchmark::State& state) {
  Operands c(kRows, kWidth, kWidth);
  Cpu ctx(1);
  const RotationTable table(RotationLayout::interleaved, theta_inclusive(kWidth / kHeads, 10000.0));
  const auto log_gamma = log_gamma_pow2(kHeads);
  const std::int64_t position = 0;
  for (auto _ : state) {
    rotate(ctx, table, {0.125, log_gamma}, kHeads, Sequences::dense(1, kRows), &position, c.input(),
           c.output());
    benchmark::DoNotOptimize(c.y.data());
  }
  bench::report(state, kRows, 0, 8.0 * kRows * kWidth);
}

BENCHMARK(linear_rows)->Apply(shapes);
BENCHMARK(baseline_eigen_linear_rows)->Apply(shapes);
BENCHMARK(rms_norm)->Unit(benchmark::kMicrosecond);
BENCHMARK(swish_gate)->Unit(benchmark::kMicrosecond);
BENCHMARK(rotation)->Unit(benchmark::kMicrosecond);

}  // namespace

RETNET_BENCH_MAIN();
