// SPDX-License-Identifier: MIT
// The parallel form by its definition (Sun et al. 2023, Eq. 5): every tile of 64 rows scores all keys
// before it. O(T^2) work, nothing but the output in memory.
//
//   O = (Q K^T * D) V + 2^G_n Q S_0
#pragma once

#include "retnet/cuda/detail/retention_sweep.cuh"

namespace retnet::cuda {

template <class T>
struct alignas(16) QuadraticMemory {
  T q[kTileSize<T>], k[kTileSize<T>], v[kTileSize<T>], s[kTileSize<T>];
  float2 rows[kTile], cols[kTile];
};

/// 64 rows of the output of one head, 64 of its columns.
template <class T>
class QuadraticBlock : SweepHead<T> {
  using Product = TileProduct<T>;
  using SweepHead<T>::p;

 public:
  __device__ QuadraticBlock(const Sweep<T>& sweep, QuadraticMemory<T>& memory, int s, int h,
                            int value_tile, std::int64_t chunk)
      : SweepHead<T>(sweep, s, h), m_(memory), tile_(value_tile), chunk_(chunk) {}

  __device__ void run() {
    if (chunk_ * kTile >= this->length) return;
    place(m_.rows, chunk_);
    Product out;
    if (p.initial != nullptr) from_initial(out);
    for (std::int64_t c = 0; c <= chunk_; ++c) from_keys(c, out);
    __syncthreads();
    out.put(m_.s);
    __syncthreads();
    TileRegisters<T> lines;
    lines.take(m_.s);
    lines.store(this->tile(this->rows(p.o), chunk_, tile_));
  }

 private:
  __device__ void place(float2* curve, std::int64_t c) {
    const int i = static_cast<int>(threadIdx.x);
    if (i < kTile) curve[i] = this->curve.at(c * kTile + min(i, this->rows_of(c) - 1));
  }

  __device__ void put(T* to, const HeadColumns<const T>& from, std::int64_t c, int t) {
    TileRegisters<T> lines;
    lines.fetch(this->tile(this->rows(from), c, t));
    lines.put(to);
  }

  __device__ void from_initial(Product& out) {
    for (int t = 0; t < p.key_tiles(); ++t) {
      Product state;
#pragma unroll
      for (int e = 0; e < 16; ++e)
        if (const auto at = this->state_at(t, tile_, e); at >= 0) state.sums[e] = p.initial[at];
      __syncthreads();
      state.put(m_.s);
      put(m_.q, p.q, chunk_, t);
      __syncthreads();
      out.template add<Layout::plain, Layout::plain>(m_.q, m_.s);
    }
#pragma unroll
    for (int e = 0; e < 16; ++e)
      out.sums[e] *= decay_between(m_.rows[Product::row(e)], {0.0f, 0.0f});
  }

  __device__ void from_keys(std::int64_t c, Product& out) {
    Product score;
    for (int t = 0; t < p.key_tiles(); ++t) {
      __syncthreads();
      put(m_.q, p.q, chunk_, t);
      put(m_.k, p.k, c, t);
      if (t == 0) {
        put(m_.v, p.v, c, tile_);
        place(m_.cols, c);
      }
      __syncthreads();
      score.template add<Layout::plain, Layout::transposed>(m_.q, m_.k);
    }
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      const int i = Product::row(e), j = Product::col(e);
      const bool seen = c < chunk_ || j <= i;
      score.sums[e] = seen ? score.sums[e] * decay_between(m_.rows[i], m_.cols[j]) : 0.0f;
    }
    score.put(m_.s);
    __syncthreads();
    out.template add<Layout::plain, Layout::plain>(m_.s, m_.v);
  }

  QuadraticMemory<T>& m_;
  int tile_;
  std::int64_t chunk_;
};

/// The last rows have most to do and come first.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    retention_quadratic_kernel(const __grid_constant__ Sweep<T> p) {
  extern __shared__ uint4 quadratic_memory[];
  const unsigned columns = static_cast<unsigned>(p.sequences.count * p.heads * p.value_tiles());
  const unsigned column = blockIdx.x % columns, chunks = gridDim.x / columns;
  const int task = static_cast<int>(column) / p.value_tiles();
  QuadraticBlock<T>(p, *reinterpret_cast<QuadraticMemory<T>*>(quadratic_memory), task / p.heads,
                    task % p.heads, static_cast<int>(column) % p.value_tiles(),
                    chunks - 1 - blockIdx.x / columns)
      .run();
}

template <class T>
void launch_quadratic(CudaContext& ctx, const DeviceRetention<T>& in, const Sweep<T>& p) {
  const std::int64_t blocks = std::int64_t{p.sequences.count} * p.heads * p.value_tiles() *
                              ceil_div<std::int64_t>(p.sequences.length, kTile);
  RETNET_CUDA(cudaFuncSetAttribute(retention_quadratic_kernel<T>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(sizeof(QuadraticMemory<T>))));
  retention_quadratic_kernel<T>
      <<<static_cast<unsigned>(blocks), kTileThreads, sizeof(QuadraticMemory<T>), ctx.stream()>>>(
          p);
  RETNET_CUDA_LAUNCHED("retention_quadratic_kernel", shape_of(in));
}

}  // namespace retnet::cuda
