// SPDX-License-Identifier: MIT
// The parallel form by its definition (Sun et al. 2023, Eq. 5): every tile of 64 rows scores all keys
// before it. O(T^2) work, nothing but the output in memory.
//
//   O = (Q K^T * D) V + 2^G_n Q S_0
#pragma once

#include "retnet/cuda/detail/retention_sweep.cuh"

namespace retnet::cuda {

/// Tiles of the output's columns that share the scores of a block.
inline constexpr int kQuadraticTiles = 2;

template <class T>
struct alignas(16) QuadraticMemory {
  T q[kTileSize<T>], k[kTileSize<T>], s[kTileSize<T>], v[kQuadraticTiles][kTileSize<T>];
  float2 rows[kTile], cols[kTile];
};

/// 64 rows of the output of one head, 128 of its columns.
template <class T>
class QuadraticBlock : SweepHead<T> {
  using Product = TileProduct<T>;
  using SweepHead<T>::p;

 public:
  __device__ QuadraticBlock(const Sweep<T>& sweep, QuadraticMemory<T>& memory, int s, int h,
                            int value_tile, std::int64_t chunk)
      : SweepHead<T>(sweep, s, h),
        m_(memory),
        tile_(value_tile),
        chunk_(chunk),
        q_rows_(this->rows(p.q)),
        k_rows_(this->rows(p.k)),
        v_rows_(this->rows(p.v)) {}

  __device__ void run() {
    if (chunk_ * kTile >= this->length) return;
    place(m_.rows, chunk_);
    if (p.initial != nullptr) from_initial();
    fetch(0, 0);
    for (std::int64_t c = 0; c <= chunk_; ++c) from_keys(c);
    for (int w = 0; w < kQuadraticTiles; ++w) {
      __syncthreads();
      out_[w].put(m_.s);
      __syncthreads();
      TileRegisters<T> lines;
      lines.take(m_.s);
      lines.store(this->tile(this->rows(p.o), chunk_, tile_ + w));
    }
  }

 private:
  __device__ void place(float2* curve, std::int64_t c) {
    const int i = static_cast<int>(threadIdx.x);
    if (i < kTile) curve[i] = this->curve.at(c * kTile + min(i, this->rows_of(c) - 1));
  }

  /// Tile t of the keys of chunk c, with its values when it is the first.
  __device__ void fetch(std::int64_t c, int t) {
    q_.fetch(this->tile(q_rows_, chunk_, t));
    k_.fetch(this->tile(k_rows_, c, t));
    if (t > 0) return;
#pragma unroll
    for (int w = 0; w < kQuadraticTiles; ++w) v_[w].fetch(this->tile(v_rows_, c, tile_ + w));
  }

  __device__ void from_initial() {
    for (int t = 0; t < p.key_tiles(); ++t) {
      __syncthreads();
      q_.fetch(this->tile(q_rows_, chunk_, t));
      q_.put(m_.q);
#pragma unroll
      for (int w = 0; w < kQuadraticTiles; ++w) {
        Product state;
#pragma unroll
        for (int e = 0; e < 16; ++e)
          if (const auto at = this->state_at(t, tile_ + w, e); at >= 0)
            state.sums[e] = p.initial[at];
        state.put(m_.v[w]);
      }
      __syncthreads();
#pragma unroll
      for (int w = 0; w < kQuadraticTiles; ++w)
        out_[w].template add<Layout::plain, Layout::plain>(m_.q, m_.v[w]);
    }
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      const float decay = decay_between(m_.rows[Product::row(e)], {0.0f, 0.0f});
#pragma unroll
      for (int w = 0; w < kQuadraticTiles; ++w) out_[w].sums[e] *= decay;
    }
  }

  __device__ void from_keys(std::int64_t c) {
    Product score;
    for (int t = 0; t < p.key_tiles(); ++t) {
      __syncthreads();
      q_.put(m_.q);
      k_.put(m_.k);
      if (t == 0) {
#pragma unroll
        for (int w = 0; w < kQuadraticTiles; ++w) v_[w].put(m_.v[w]);
        place(m_.cols, c);
      }
      __syncthreads();
      const bool same = t + 1 < p.key_tiles();
      if (same || c < chunk_) fetch(same ? c : c + 1, same ? t + 1 : 0);
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
#pragma unroll
    for (int w = 0; w < kQuadraticTiles; ++w)
      out_[w].template add<Layout::plain, Layout::plain>(m_.s, m_.v[w]);
  }

  QuadraticMemory<T>& m_;
  int tile_;
  std::int64_t chunk_;
  HeadRows<const T> q_rows_, k_rows_, v_rows_;
  TileRegisters<T> q_, k_, v_[kQuadraticTiles];
  Product out_[kQuadraticTiles];
};

/// The last rows have most to do and come first.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    retention_quadratic_kernel(const __grid_constant__ Sweep<T> p) {
  extern __shared__ uint4 quadratic_memory[];
  const unsigned tiles = static_cast<unsigned>(ceil_div(p.value_tiles(), kQuadraticTiles));
  const unsigned columns = static_cast<unsigned>(p.sequences.count * p.heads) * tiles;
  const unsigned column = blockIdx.x % columns, chunks = gridDim.x / columns;
  const int task = static_cast<int>(column / tiles);
  QuadraticBlock<T>(p, *reinterpret_cast<QuadraticMemory<T>*>(quadratic_memory), task / p.heads,
                    task % p.heads, static_cast<int>(column % tiles) * kQuadraticTiles,
                    chunks - 1 - blockIdx.x / columns)
      .run();
}

template <class T>
void launch_quadratic(CudaContext& ctx, const DeviceRetention<T>& in, const Sweep<T>& p) {
  const std::int64_t blocks = std::int64_t{p.sequences.count} * p.heads *
                              ceil_div(p.value_tiles(), kQuadraticTiles) *
                              ceil_div<std::int64_t>(p.sequences.length, kTile);
  raise_shared_memory(ctx, retention_quadratic_kernel<T>);
  retention_quadratic_kernel<T>
      <<<static_cast<unsigned>(blocks), kTileThreads, sizeof(QuadraticMemory<T>), ctx.stream()>>>(
          p);
  RETNET_CUDA_LAUNCHED("retention_quadratic_kernel", shape_of(in));
}

}  // namespace retnet::cuda
