// SPDX-License-Identifier: MIT
// Clipping and AdamW over flat buffers on the device; the definitions are those of train/clip.hpp and
// train/adamw.hpp. Weights, moments and gradients are float; a copy of the weights in another type,
// which the model computes with, is written in the same pass.
//
//   g = factor g, factor = mean min(1, limit / |mean g|)
//   m = b1 m + (1-b1) g      v = b2 v + (1-b2) g^2
//   w = w - lr (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay w)
//
// The norm stays on the device until the step is done: no kernel waits for the host.
#pragma once

#include <cmath>
#include <vector>

#include "retnet/cuda/cross_entropy.cuh"

namespace retnet {

/// What a step does to the gradients, decided on the device.
struct DeviceUpdate {
  double norm;   // of the mean gradient, before clipping
  float factor;  // what every gradient is multiplied by
  int skip;      // not finite: nothing is changed
};

struct DeviceAdamW {
  double beta1 = 0.9, beta2 = 0.98, eps = 1e-8, weight_decay = 0.05;
};

/// A part of the flat buffers whose weights all decay or all do not.
struct DeviceAdamBlock {
  std::int64_t offset;
  std::int32_t size;
  std::int32_t decays;
};

namespace cuda {

inline constexpr int kAdamThreads = 256;
inline constexpr int kNormBlocks = 1024;

template <class T>
__global__ void square_sum_kernel(const T* x, std::int64_t n, double* sums) {
  __shared__ double warps[kAdamThreads / 32];
  const std::int64_t packs = n / 4, step = std::int64_t{gridDim.x} * blockDim.x;
  const std::int64_t me = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  double sum = 0.0;
#pragma unroll 4
  for (std::int64_t i = me; i < packs; i += step) {
    float a[4];
    load_floats(x + 4 * i, a);
    sum += static_cast<double>(a[0] * a[0] + a[1] * a[1] + (a[2] * a[2] + a[3] * a[3]));
  }
  if (me < n - 4 * packs) sum += static_cast<double>(x[4 * packs + me]) * x[4 * packs + me];
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, lane);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kAdamThreads / 32; ++i) sum += warps[i];
  sums[blockIdx.x] = sum;
}

template <int Lanes>
__global__ void update_kernel(const double* sums, int parts, const DeviceLoss* loss, double limit,
                              DeviceUpdate* update) {
  double sum = 0.0;
  for (int i = threadIdx.x; i < parts; i += Lanes) sum += sums[i];
#pragma unroll
  for (int lane = Lanes / 2; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, lane);
  if (threadIdx.x != 0) return;
  const double mean = 1.0 / static_cast<double>(loss->rows);
  const double norm = sqrt(sum) * mean;
  update->norm = norm;
  update->factor = static_cast<float>(norm > limit ? mean * (limit / norm) : mean);
  update->skip = !isfinite(norm) || !isfinite(loss->sum);
}

template <class T>
struct AdamStep {
  float beta1, beta2, eps, rate, correction, shrink;
  const float* gradient;
  float *weights, *first, *second;
  T* copy;  // null where T is float: the weights are what the model computes with
};

template <class T>
__global__ void __launch_bounds__(kAdamThreads)
    adamw_kernel(AdamStep<T> s, const DeviceAdamBlock* blocks, const DeviceUpdate* update) {
  if (update->skip) return;
  const DeviceAdamBlock b = blocks[blockIdx.x];
  const float factor = update->factor, shrink = b.decays ? s.shrink : 1.0f;
  const auto one = [&](float g, float& w, float& m, float& v) {
    g *= factor;
    m = s.beta1 * m + (1.0f - s.beta1) * g;
    v = s.beta2 * v + (1.0f - s.beta2) * g * g;
    w = shrink * w - s.rate * m / (sqrtf(v * s.correction) + s.eps);
  };
  const int packs = b.size / 4;  // places are aligned
  for (int p = threadIdx.x; p < packs; p += kAdamThreads) {
    const std::int64_t i = b.offset + 4 * p;
    float g[4], w[4], m[4], v[4];
    load_floats(s.gradient + i, g);
    load_floats(s.weights + i, w);
    load_floats(s.first + i, m);
    load_floats(s.second + i, v);
#pragma unroll
    for (int e = 0; e < 4; ++e) one(g[e], w[e], m[e], v[e]);
    store_floats(s.weights + i, w);
    store_floats(s.first + i, m);
    store_floats(s.second + i, v);
    if (s.copy != nullptr) store_floats(s.copy + i, w);
  }
  const int rest = 4 * packs + static_cast<int>(threadIdx.x);
  if (rest >= b.size) return;
  const std::int64_t i = b.offset + rest;
  one(s.gradient[i], s.weights[i], s.first[i], s.second[i]);
  if (s.copy != nullptr) s.copy[i] = from_float<T>(s.weights[i]);
}

/// out = x, rounded.
template <class T>
__global__ void round_kernel(const float* x, std::int64_t n, T* out) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x)
    out[i] = from_float<T>(x[i]);
}

}  // namespace cuda

/// From the summed gradient [size] and the summed loss to what the step multiplies it by: the mean over
/// the targets, clipped to the norm `clip_norm`. All pointers are on the device.
inline void decide_update(CudaContext& ctx, const float* gradient, std::int64_t size,
                          const DeviceLoss* loss, double clip_norm, DeviceUpdate* update) {
  const auto scope = ctx.workspace().scope();
  double* sums = ctx.workspace().take<double>(cuda::kNormBlocks);
  cuda::square_sum_kernel<float>
      <<<cuda::kNormBlocks, cuda::kAdamThreads, 0, ctx.stream()>>>(gradient, size, sums);
  RETNET_CUDA_LAUNCHED("square_sum", cuda::concat(size, " elements"));
  cuda::update_kernel<32>
      <<<1, 32, 0, ctx.stream()>>>(sums, cuda::kNormBlocks, loss, clip_norm, update);
  RETNET_CUDA_LAUNCHED("update", cuda::concat(size, " elements"));
}

/// AdamW on flat buffers, all of one size: step number t, counted from 1; nothing where `update` says to
/// skip. Every block begins at a multiple of 4 elements and the buffers at one of 16 bytes. `copy`, the
/// weights rounded to T, may be null.
template <class T>
void adamw(CudaContext& ctx, const DeviceAdamW& config, double lr, std::int64_t t,
           const DeviceBuffer<DeviceAdamBlock>& blocks, const DeviceUpdate* update,
           const float* gradient, float* weights, float* first, float* second, T* copy) {
  const auto steps = static_cast<double>(t);
  const cuda::AdamStep<T> s{
      .beta1 = static_cast<float>(config.beta1),
      .beta2 = static_cast<float>(config.beta2),
      .eps = static_cast<float>(config.eps),
      .rate = static_cast<float>(lr / (1.0 - std::pow(config.beta1, steps))),
      .correction = static_cast<float>(1.0 / (1.0 - std::pow(config.beta2, steps))),
      .shrink = static_cast<float>(1.0 - lr * config.weight_decay),
      .gradient = gradient,
      .weights = weights,
      .first = first,
      .second = second,
      .copy = copy};
  cuda::adamw_kernel<T>
      <<<static_cast<unsigned>(blocks.size()), cuda::kAdamThreads, 0, ctx.stream()>>>(
          s, blocks.data(), update);
  RETNET_CUDA_LAUNCHED("adamw", cuda::concat(blocks.size(), " blocks"));
}

}  // namespace retnet
