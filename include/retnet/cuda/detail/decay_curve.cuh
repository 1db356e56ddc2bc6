// SPDX-License-Identifier: MIT
// The decay between any two tokens of a sequence. With G_n the log2 of the decay from the start of
// the sequence to after its row n,
//
//   D_nm = a_{m+1} ... a_n = 2^(G_n - G_m),   m <= n
//
// is taken from the difference, which is never positive: no power of gamma can overflow, whatever
// gamma and however long the sequence. G is kept as the sum of two floats, 48 bits, since the
// difference of neighbours far from the start is small beside what it is taken from.
#pragma once

#include "retnet/cuda/device.cuh"
#include "retnet/cuda/retention_problem.cuh"

namespace retnet::cuda {

inline constexpr int kScanThreads = 256;

__device__ inline float2 split_double(double x) {
  const auto high = static_cast<float>(x);
  return {high, static_cast<float>(x - static_cast<double>(high))};
}

/// Of one head of one sequence.
struct DecayCurve {
  double log2_gamma = 0.0;
  const float2* prefix = nullptr;  // of the first row when gated, else null
  std::int64_t stride = 0;

  /// G_n; n = -1 is before the first row.
  __device__ float2 at(std::int64_t n) const {
    if (n < 0) return {0.0f, 0.0f};
    if (prefix != nullptr) return prefix[n * stride];
    return split_double(static_cast<double>(n + 1) * log2_gamma);
  }
};

/// 2^(later - earlier).
__device__ inline float decay_between(float2 later, float2 earlier) {
  return exp2f((later.x - earlier.x) + (later.y - earlier.y));
}

/// The sum of x over the threads up to this one; `total` of all. `scratch` holds a number a warp.
template <int Threads>
__device__ double block_scan(double x, double* scratch, double& total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int d = 1; d < 32; d *= 2) {
    const double before = __shfl_up_sync(0xFFFFFFFF, x, d);
    if (lane >= d) x += before;
  }
  if (lane == 31) scratch[warp] = x;
  __syncthreads();
  total = 0.0;
  double before = 0.0;
  for (int w = 0; w < Threads / 32; ++w) {
    if (w == warp) before = total;
    total += scratch[w];
  }
  __syncthreads();
  return before + x;
}

/// prefix[n,h] = G_n of every row, from gates in natural logarithm. A block for each sequence and head.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    decay_prefix_kernel(DeviceSequences sequences, int heads, DeviceRows<const float> log_gate,
                        float2* prefix) {
  __shared__ double scratch[Threads / 32];
  const int s = static_cast<int>(blockIdx.x) / heads, h = static_cast<int>(blockIdx.x) % heads;
  const std::int64_t first = sequences.first(s), length = sequences.length_of(s);
  constexpr double kLog2E = 1.4426950408889634;
  double sum = 0.0;
  for (std::int64_t c = 0; c < length; c += Threads) {
    const std::int64_t n = c + threadIdx.x;
    const double x = n < length ? static_cast<double>(log_gate.row(first + n)[h]) : 0.0;
    double total;
    const double up_to_here = sum + block_scan<Threads>(x, scratch, total);
    if (n < length) prefix[(first + n) * heads + h] = split_double(up_to_here * kLog2E);
    sum += total;
  }
}

/// The curve of every row and head when gated, else null. Valid until the caller's scope ends.
template <class T>
const float2* decay_prefix(CudaContext& ctx, const DeviceRetention<T>& in) {
  if (!in.log_gate) return nullptr;
  auto* prefix = ctx.workspace().take<float2>(in.sequences.rows * in.heads);
  decay_prefix_kernel<kScanThreads>
      <<<in.sequences.count * in.heads, kScanThreads, 0, ctx.stream()>>>(in.sequences, in.heads,
                                                                         in.log_gate, prefix);
  RETNET_CUDA_LAUNCHED("decay_prefix_kernel", shape_of(in));
  return prefix;
}

}  // namespace retnet::cuda
