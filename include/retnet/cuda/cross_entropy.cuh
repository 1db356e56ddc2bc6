// SPDX-License-Identifier: MIT
// Cross-entropy of the next token on the device; the definition is that of ops/cross_entropy.hpp.
//
//   L = sum_r (log sum_v exp(z_rv) - z_r,target)        dz_rv = scale (softmax(z_r)_v - [v = target])
//
// The logits of a block of rows become their gradient in place. A row is read twice and written
// once; it is small enough that the second reading finds it in the L2 cache.
#pragma once

#include "retnet/cuda/activation.cuh"

namespace retnet {

/// Sums on the device: nats, and rows that have a target.
struct DeviceLoss {
  double sum;
  std::int64_t rows;
};

namespace cuda {

inline constexpr int kLossThreads = 512;

/// The largest logit so far and the sum of exp(z - largest).
struct SoftmaxSum {
  float highest, sum;
};
__device__ inline SoftmaxSum join(SoftmaxSum a, SoftmaxSum b) {
  const float highest = fmaxf(a.highest, b.highest);
  if (highest == -INFINITY) return {highest, 0.0f};
  return {highest, a.sum * quick_exp(a.highest - highest) + b.sum * quick_exp(b.highest - highest)};
}

// The same in all threads of the block.
__device__ inline SoftmaxSum join_block(SoftmaxSum x) {
  __shared__ SoftmaxSum warps[kLossThreads / 32];
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2)
    x = join(x, {__shfl_xor_sync(0xFFFFFFFF, x.highest, lane),
                 __shfl_xor_sync(0xFFFFFFFF, x.sum, lane)});
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  x = warps[0];
  for (int i = 1; i < kLossThreads / 32; ++i) x = join(x, warps[i]);
  return x;
}

/// One row a block. losses[r] is nats, or -1 for a row without a target.
template <class T, int V>
__global__ void __launch_bounds__(kLossThreads)
    cross_entropy_kernel(const std::int32_t* targets, DeviceMatrix<T> logits, float scale,
                         float* losses) {
  const std::int64_t r = blockIdx.x;
  T* z = logits.row(r);
  const int n = static_cast<int>(logits.cols), target = targets[r];
  if (target < 0) {
    if (threadIdx.x == 0) losses[r] = -1.0f;
    if (scale != 0.0f)
      for (int j = threadIdx.x; j < n; j += kLossThreads) z[j] = from_float<T>(0.0f);
    return;
  }
  SoftmaxSum mine{-INFINITY, 0.0f};
#pragma unroll 2
  for (int j = threadIdx.x * V; j < n; j += kLossThreads * V) {
    float x[V];
    load_floats(z + j, x);
    SoftmaxSum pack{x[0], 0.0f};
#pragma unroll
    for (int e = 1; e < V; ++e) pack.highest = fmaxf(pack.highest, x[e]);
    const float base = pack.highest == -INFINITY ? 0.0f : pack.highest;
#pragma unroll
    for (int e = 0; e < V; ++e) pack.sum += quick_exp(x[e] - base);
    mine = join(mine, pack);
  }
  const float at_target = to_float(z[target]);
  const SoftmaxSum all = join_block(mine);  // and nobody writes before everybody has read
  if (threadIdx.x == 0) losses[r] = logf(all.sum) + (all.highest - at_target);
  if (scale == 0.0f) return;
  const float factor = scale / all.sum;
#pragma unroll 2
  for (int j = threadIdx.x * V; j < n; j += kLossThreads * V) {
    float x[V];
    load_floats(z + j, x);
#pragma unroll
    for (int e = 0; e < V; ++e)
      x[e] = factor * quick_exp(x[e] - all.highest) - (j + e == target ? scale : 0.0f);
    store_floats(z + j, x);
  }
}

// One block: the same sum whatever runs beside it.
template <int Threads>
__global__ void add_losses_kernel(const float* losses, std::int64_t rows, DeviceLoss* loss) {
  __shared__ double sums[Threads];
  __shared__ std::int64_t counts[Threads];
  double sum = 0.0;
  std::int64_t count = 0;
  for (std::int64_t r = threadIdx.x; r < rows; r += Threads) {
    const float x = losses[r];
    const bool counts_it = !(x == -1.0f);
    sum += counts_it ? static_cast<double>(x) : 0.0;
    count += counts_it;
  }
  sums[threadIdx.x] = sum;
  counts[threadIdx.x] = count;
  for (int step = Threads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x >= step) continue;
    sums[threadIdx.x] += sums[threadIdx.x + step];
    counts[threadIdx.x] += counts[threadIdx.x + step];
  }
  if (threadIdx.x != 0) return;
  loss->sum += sums[0];
  loss->rows += counts[0];
}

}  // namespace cuda

/// Adds the summed loss of logits [R,V], in nats, to *loss on the device. When `gradient_scale` is
/// not 0, logits become gradient_scale (softmax - onehot). Targets [R] are on the device; a negative one leaves its row out,
/// whose gradient is zero.
template <class T>
void cross_entropy(CudaContext& ctx, const std::int32_t* targets, DeviceMatrix<T> logits,
                   float gradient_scale, DeviceLoss* loss) {
  if (logits.rows == 0) return;
  const auto scope = ctx.workspace().scope();
  float* losses = ctx.workspace().take<float>(logits.rows);
  const auto kernel = cuda::packs(logits) ? cuda::cross_entropy_kernel<T, cuda::kPack<T>>
                                          : cuda::cross_entropy_kernel<T, 1>;
  kernel<<<static_cast<unsigned>(logits.rows), cuda::kLossThreads, 0, ctx.stream()>>>(
      targets, logits, gradient_scale, losses);
  RETNET_CUDA_LAUNCHED("cross_entropy", logits.text());
  cuda::add_losses_kernel<256><<<1, 256, 0, ctx.stream()>>>(losses, logits.rows, loss);
  RETNET_CUDA_LAUNCHED("add_losses", logits.text());
}

}  // namespace retnet
