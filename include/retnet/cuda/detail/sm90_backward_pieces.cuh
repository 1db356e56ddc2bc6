// SPDX-License-Identifier: MIT
// What a warpgroup of the Hopper backward pass does between its products: operands from tiles, tiles
// from accumulators, states to and from memory.
#pragma once

#include "retnet/cuda/detail/sm90_backward_problem.cuh"

namespace retnet::cuda::sm90_backward {

struct Lane {
  // From one lane for all, so that the compiler keeps what follows from it in uniform registers.
  int warpgroup = __shfl_sync(0xFFFFFFFF, static_cast<int>(threadIdx.x) / 128, 0) - 1;
  int thread = threadIdx.x % 128;
  int warp = thread / 32;
  int lane = thread % 32;
  int group = lane / 4;     // row of an accumulator, within 8
  int pair = lane % 4 * 2;  // column of one, within 8

  __device__ void sync() const { named_barrier(1 + warpgroup, 128); }
};

/// Barriers that one warpgroup of the two waits at and the other only arrives at.
__device__ inline void barrier_wait(int id) { named_barrier(id, 256); }
__device__ inline void barrier_arrive(int id) {
  asm volatile("bar.arrive %0, 256;" ::"r"(id) : "memory");
}

/// Two warpgroups multiply by turns: left alone they fall into step, and then the tensor cores idle
/// while both compute weights, operands and results. A turn is the products of the state and of the
/// scores with the values; the other warpgroup meanwhile makes its next scores and operands.
__device__ inline void open_turns(const Lane& me) {
  if (me.warpgroup == 1) barrier_arrive(7);
}
__device__ inline void take_turn(const Lane& me) { barrier_wait(7 + me.warpgroup); }
__device__ inline void pass_turn(const Lane& me) { barrier_arrive(8 - me.warpgroup); }
__device__ inline void close_turns(const Lane& me) {
  if (me.warpgroup == 0) barrier_wait(7);
}

/// matrix_tile in two halves: the low word is an address and grows by additions of 32 bits, which
/// uniform registers do; the high one is constant.
__device__ __forceinline__ std::uint32_t tile_word(const unsigned char* tile) {
  return static_cast<std::uint32_t>(matrix_tile(shared_address(tile)));
}
__device__ __forceinline__ std::uint64_t operand(std::uint32_t word, std::uint32_t bytes) {
  std::uint64_t d;
  asm("mov.b64 %0, {%1, %2};" : "=l"(d) : "r"(word + (bytes >> 4)), "r"(0x40000000 | 1024 >> 4));
  return d;
}

/// What an accumulator held is of no use any more: the first product assigns it. Without this its
/// registers stay taken.
template <int kSize>
__device__ __forceinline__ void forget(float (&d)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "=f"(d[i]));
}

/// Blocks of a cluster fill each other's units, so all are told.
template <int kCluster>
__device__ void release(std::uint64_t* bar, const Lane& me) {
  if constexpr (kCluster > 1) {
    if (me.lane < kCluster) mbarrier_arrive_remote(bar, me.lane);
  } else {
    if (me.lane == 0) mbarrier_arrive(bar);
  }
}

/// Rows that belong to no token of the sequence become zero. The caller fences.
__device__ inline void clear_rows(unsigned char* tile, int length, const Lane& me) {
#pragma unroll 1
  for (int x = length * 8 + me.thread; x < kChunk * 8; x += 128)
    *reinterpret_cast<uint4*>(tile + x * 16) = uint4{};
}

/// Z^T diag(r) as four A operands, 16 tokens each.
template <class T>
__device__ void load_scaled(std::uint32_t (&a)[4][4], const unsigned char* tile,
                            const float* key_scale, const Lane& me) {
  const int token = me.lane / 16 * 8 + me.lane % 8;
  const int piece = me.warp * 2 + me.lane / 8 % 2;
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    ldmatrix_t(a[s], shared_address(tile) + swizzled(16 * s + token, piece));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 r = *reinterpret_cast<const float2*>(key_scale + 16 * s + 8 * half + me.pair);
#pragma unroll
      for (int x = 2 * half; x < 2 * half + 2; ++x) {
        const float2 z = unpack<T>(a[s][x]);
        a[s][x] = pack<T>(z.x * r.x, z.y * r.y);
      }
    }
  }
}

/// The accumulators of 64 columns as four A operands.
template <class T>
__device__ void pack_state(std::uint32_t (&a)[4][4], const float (&d)[32]) {
#pragma unroll
  for (int s = 0; s < 4; ++s)
#pragma unroll
    for (int x = 0; x < 4; ++x) a[s][x] = pack<T>(d[8 * s + 2 * x], d[8 * s + 2 * x + 1]);
}

/// The state as A operand, and decayed to the end of the chunk.
template <class T>
__device__ void pack_and_decay(std::uint32_t (&old)[4][4], float (&state)[32], float carry) {
  pin(state);  // not before the group whose registers it takes has ended
  pack_state<T>(old, state);
#pragma unroll
  for (float& m : state) m *= carry;
  pin(state);
}

/// One tile of columns: O += M X^T with the old state, M += Z^T Y on the decayed.
template <class T>
__device__ void step_state(float (&o)[32], float (&state)[32], const std::uint32_t (&old)[4][4],
                           const std::uint32_t (&z)[4][4], const unsigned char* unit, bool first) {
  wgmma_fence();
  const std::uint32_t x = tile_word(unit), y = tile_word(unit + kTileBytes);
#pragma unroll
  for (int s = 0; s < 4; ++s) wgmma<T>(o, old[s], operand(x, 32 * s), !first || s > 0);
#pragma unroll
  for (int s = 0; s < 4; ++s) wgmma<T, 1>(state, z[s], operand(y, 2048 * s), true);
  wgmma_commit();
}

/// Of a lane's scores: of columns 8n, 8n + 1 from the lane's, [n] in rows 8 on, [n + 1] in the others.
struct Weights {
  float at[9][2];

  __device__ Weights(const float* weight, const Lane& me) {
    const float* from = weight + 63 + 16 * me.warp + 8 + me.group - me.pair;
#pragma unroll
    for (int n = 0; n < 9; ++n) at[n][0] = from[-8 * n], at[n][1] = from[-8 * n - 1];
  }
};

/// Scores [i][j], weighted, to a tile.
template <class T>
__device__ void store_scores(unsigned char* tile, const float (&scores)[32], const Weights& weights,
                             const Lane& me) {
  const std::uint32_t to = shared_address(tile);
  const int row = 16 * me.warp + me.lane / 8 % 2 * 8 + me.lane % 8;
#pragma unroll
  for (int n = 0; n < 8; n += 2) {
    std::uint32_t r[4];
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      const int at = 4 * n + 2 * x;
      const float(&w)[2] = weights.at[n + x / 2 + (x + 1) % 2];
      r[x] = pack<T>(scores[at] * w[0], scores[at + 1] * w[1]);
    }
    stmatrix(to + swizzled(row, n + me.lane / 16), r[0], r[1], r[2], r[3]);
  }
}

template <int kSize>
__device__ void scale_columns(float (&o)[kSize], const float* out_scale, const Lane& me) {
#pragma unroll
  for (int n = 0; n < kSize / 4; ++n) {
    const float2 p = *reinterpret_cast<const float2*>(out_scale + 8 * n + me.pair);
    o[4 * n] *= p.x, o[4 * n + 1] *= p.y, o[4 * n + 2] *= p.x, o[4 * n + 3] *= p.y;
  }
}

template <class T, int kSize>
__device__ void pack_result(std::uint32_t (&r)[kSize / 2], const float (&o)[kSize]) {
#pragma unroll
  for (int x = 0; x < kSize / 2; ++x) r[x] = pack<T>(o[2 * x], o[2 * x + 1]);
}

/// O^T, tokens from `token` on, to a tile [token][column].
template <int kSize>
__device__ void stage_result(unsigned char* tile, const std::uint32_t (&r)[kSize], int token,
                             const Lane& me) {
  const std::uint32_t to = shared_address(tile);
  const int row = token + me.lane / 16 * 8 + me.lane % 8;
  const int piece = me.warp * 2 + me.lane / 8 % 2;
#pragma unroll
  for (int x = 0; x < kSize; x += 4)
    stmatrix_t(to + swizzled(row + 4 * x, piece), r[x], r[x + 1], r[x + 2], r[x + 3]);
}

/// Tokens [from, to) of a staged tile to memory. A whole box goes by a bulk copy; the last tokens of
/// a sequence one by one, for what follows belongs to others.
template <class T>
__device__ void store_result(const unsigned char* tile, const Task& task, const DeviceRows<T>& rows,
                             int n, int column, int from, int to, const Lane& me) {
  const int length = task.length(n);
  if (length == kChunk) {
    if (me.thread == 0) {
      for (int i = from; i < to; i += kBoxRows)
        tma_store(task.result, tile + i * 128, 0, task.row(n) + i, column);
      tma_store_commit();
    }
    return;
  }
#pragma unroll 1
  for (int x = from * 8 + me.thread; x < min(to, length) * 8; x += 128) {
    const int i = x / 8, piece = x % 8;
    T* row = rows.row(task.row(n) + i) + column * 64 + piece * 8;
    *reinterpret_cast<uint4*>(row) = *reinterpret_cast<const uint4*>(tile + swizzled(i, piece));
  }
}

/// Where the accumulators of a state lie in memory: 64 of its rows from `row` on.
struct StateRows {
  std::int64_t base;
  std::int64_t row_stride;
  std::int64_t column_stride;

  template <class Visit>
  __device__ void each(int tile, const Lane& me, Visit visit) const {
#pragma unroll
    for (int x = 0; x < 32; ++x) {
      const int row = 16 * me.warp + me.group + x % 4 / 2 * 8;
      const int column = tile * 64 + x / 4 * 8 + me.pair + x % 2;
      visit(x, base + row * row_stride + column * column_stride);
    }
  }
};

template <int kTiles>
__device__ void load_state(float (&state)[kTiles][32], const float* from, const StateRows& rows,
                           int first, int step, const Lane& me) {
#pragma unroll
  for (int b = 0; b < kTiles; ++b)
    rows.each(first + step * b, me,
              [&](int x, std::int64_t at) { state[b][x] = from != nullptr ? from[at] : 0.f; });
}
template <int kTiles>
__device__ void store_state(const float (&state)[kTiles][32], float* to, const StateRows& rows,
                            int first, int step, const Lane& me) {
  if (to == nullptr) return;
#pragma unroll
  for (int b = 0; b < kTiles; ++b)
    rows.each(first + step * b, me, [&](int x, std::int64_t at) { to[at] = state[b][x]; });
}

/// Half of the tokens of a result that two warpgroups made halves of: one gives the other's tokens
/// and takes its own. Between the two calls they need not wait for each other.
struct Exchange {
  float4* buffer;  // [2][4][128]

  __device__ void give(float (&mine)[16], const float (&o)[32], const Lane& me) const {
    const bool low = me.warpgroup == 0;
    barrier_wait(5 + me.warpgroup);  // the other has taken the last
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      float theirs[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        mine[4 * x + e] = low ? o[4 * x + e] : o[16 + 4 * x + e];
        theirs[e] = low ? o[16 + 4 * x + e] : o[4 * x + e];
      }
      buffer[me.warpgroup * 512 + x * 128 + me.thread] = {theirs[0], theirs[1], theirs[2],
                                                          theirs[3]};
    }
    barrier_arrive(3 + me.warpgroup);
  }
  __device__ void take(float (&mine)[16], const Lane& me) const {
    barrier_wait(4 - me.warpgroup);  // the other has given
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      const float4 part = buffer[(1 - me.warpgroup) * 512 + x * 128 + me.thread];
      mine[4 * x] += part.x, mine[4 * x + 1] += part.y;
      mine[4 * x + 2] += part.z, mine[4 * x + 3] += part.w;
    }
    barrier_arrive(6 - me.warpgroup);
  }
  /// Before the first.
  __device__ void open(const Lane& me) const { barrier_arrive(6 - me.warpgroup); }
  /// After the last, so that no barrier is left half full.
  __device__ void close(const Lane& me) const { barrier_wait(5 + me.warpgroup); }
};

}  // namespace retnet::cuda::sm90_backward
