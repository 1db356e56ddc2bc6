// SPDX-License-Identifier: MIT
// Embedding on the device: y[r] = scale E[token[r]];  dE[token[r]] += scale dy[r].
//
// The rows of one token are summed by one block in the order of the rows, so the gradient does not
// change from run to run. The order is made on the host, where the tokens come from.
#pragma once

#include <span>
#include <vector>

#include "retnet/cuda/launch.cuh"
#include "retnet/cuda/matrix.cuh"

namespace retnet {

/// The rows of every token that occurs: token tokens[i] is in rows[starts[i]], ...,
/// rows[starts[i+1] - 1], which increase.
struct TokenOrder {
  std::vector<std::int32_t> tokens, starts, rows;

  /// Counting sort. Grows, never shrinks. Every token must be in [0, vocab).
  void build(std::span<const std::int32_t> of, std::int64_t vocab) {
    counts_.assign(static_cast<std::size_t>(vocab) + 1, 0);
    for (const auto t : of) ++counts_[static_cast<std::size_t>(t) + 1];
    tokens.clear();
    starts.clear();
    for (std::size_t t = 0; t < static_cast<std::size_t>(vocab); ++t) {
      if (counts_[t + 1] > 0) {
        tokens.push_back(static_cast<std::int32_t>(t));
        starts.push_back(counts_[t]);
      }
      counts_[t + 1] += counts_[t];
    }
    starts.push_back(static_cast<std::int32_t>(of.size()));
    rows.resize(of.size());
    for (std::size_t r = 0; r < of.size(); ++r)
      rows[static_cast<std::size_t>(counts_[static_cast<std::size_t>(of[r])]++)] =
          static_cast<std::int32_t>(r);
  }

 private:
  std::vector<std::int32_t> counts_;
};

/// A TokenOrder on the device.
struct DeviceTokenOrder {
  std::int32_t distinct = 0;
  const std::int32_t* tokens = nullptr;
  const std::int32_t* starts = nullptr;
  const std::int32_t* rows = nullptr;
};

namespace cuda {

template <class T, int V>
__global__ void embedding_kernel(float scale, const std::int32_t* tokens,
                                 DeviceMatrix<const T> table, DeviceMatrix<T> y) {
  wait_for_previous_kernel();
  const std::int64_t packs = y.cols / V;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < y.rows * packs;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t r = i / packs, j = i % packs * V;
    float x[V];
    load_floats(table.row(tokens[r]) + j, x);
#pragma unroll
    for (int e = 0; e < V; ++e) x[e] *= scale;
    store_floats(y.row(r) + j, x);
  }
}

template <class T, int V>
__global__ void embedding_backward_kernel(float scale, DeviceTokenOrder order,
                                          DeviceMatrix<const T> dy, DeviceMatrix<float> dtable) {
  const int first = order.starts[blockIdx.x], last = order.starts[blockIdx.x + 1];
  float* out = dtable.row(order.tokens[blockIdx.x]);
  for (std::int64_t j = threadIdx.x * V; j < dy.cols; j += std::int64_t{blockDim.x} * V) {
    float sum[V] = {};
#pragma unroll 4
    for (int i = first; i < last; ++i) {
      float d[V];
      load_floats(dy.row(order.rows[i]) + j, d);
#pragma unroll
      for (int e = 0; e < V; ++e) sum[e] += d[e];
    }
#pragma unroll
    for (int e = 0; e < V; ++e) out[j + e] = fmaf(scale, sum[e], out[j + e]);
  }
}

}  // namespace cuda

/// y[r] = scale table[tokens[r]]: tokens [R] on the device, table [V,C], y [R,C]. Every token must be a
/// row of the table; that is not checked here.
template <class T>
void embedding(CudaContext& ctx, float scale, const std::int32_t* tokens,
               DeviceMatrix<const T> table, DeviceMatrix<T> y) {
  const bool wide = cuda::packs(table, y);
  const auto kernel =
      wide ? cuda::embedding_kernel<T, cuda::kPack<T>> : cuda::embedding_kernel<T, 1>;
  const auto work = y.rows * y.cols / (wide ? cuda::kPack<T> : 1);
  cuda::launch(ctx, y.rows <= cuda::kShortRows, kernel, cuda::blocks_for(ctx, work, 256), 256, 0,
               scale, tokens, table, y);
}

/// dtable [V,C] += scale times the sums of the rows of dy [R,C] that have the token, in float, each in
/// the order of `order`.
template <class T>
void embedding_backward(CudaContext& ctx, float scale, const DeviceTokenOrder& order,
                        DeviceMatrix<const T> dy, DeviceMatrix<float> dtable) {
  if (order.distinct == 0) return;
  const auto kernel = cuda::packs(dy) ? cuda::embedding_backward_kernel<T, cuda::kPack<T>>
                                      : cuda::embedding_backward_kernel<T, 1>;
  kernel<<<static_cast<unsigned>(order.distinct), 128, 0, ctx.stream()>>>(scale, order, dy, dtable);
  RETNET_CUDA_LAUNCHED("embedding_backward", dy.text());
}

}  // namespace retnet
