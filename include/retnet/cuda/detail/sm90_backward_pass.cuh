// SPDX-License-Identifier: MIT
// The three gradients of retention are retention again, with other operands in the roles of query,
// key and value, and two of them backwards in time (q, k, v, dO one head, S the state, G its
// gradient):
//
//   dQ = retention(dO, V, K)  forwards,   its state S^T
//   dK = retention(V, dO, Q)  backwards,  its state G^T      G_n = q_n^T dO_n + a_{n+1} G_{n+1}
//   dV = retention(K, Q, dO)  backwards,  its state G
//
// So one block walks one sequence of one head for one gradient (or 64 or 128 of its columns), the
// state in registers all the way, and all blocks are one launch. Nothing but q, k, v, dO is read and
// nothing but the gradients is written; the score tiles dO V^T are made twice.
//
// A chunk is 64 tokens. With query X, key Y, value Z of the chunk, p(i) = g^(tokens from the state to
// i) and r(j) = g^(tokens from j to the next state), everything transposed so that the state's
// accumulators are the next product's A operand as they lie:
//
//   O^T = (M X^T) diag(p) + Z^T P^T,   P_ij = g^|i-j| X_i Y_j^T for j not after i
//   M   = g^64 M + (Z^T diag(r)) Y
//
// Exponents are never positive: no decay overflows.
#pragma once

#include "retnet/cuda/device.cuh"
#include "retnet/cuda/ptx.cuh"
#include "retnet/cuda/retention_problem.cuh"

namespace retnet::cuda::sm90_backward {

inline constexpr int kChunk = 64;
inline constexpr int kTileBytes = kChunk * 64 * 2;  // 64 tokens of 64 columns, 128-byte swizzle
inline constexpr int kBoxRows = 32;                 // tokens that one copy moves
inline constexpr int kBoxBytes = kTileBytes / 2;
inline constexpr int kThreads = 384;  // one warpgroup copies, two multiply

enum Gradient { kQueryGradient, kKeyGradient, kValueGradient };
enum Operand { kQuery, kKey, kValue, kOutputGradient };

template <class T>
struct Problem {
  CUtensorMap operand[4];  // by Operand: [64, rows, columns / 64] in boxes of 32 rows
  CUtensorMap result[3];   // by Gradient
  DeviceRows<T> rows[3];   // the same memory, for the last tokens of a sequence
  const float* initial;    // [N,H,Dk,Dv] or null
  const float* dstate;     // gradient of the final state, or null
  float* dinitial;         // gradient of the initial state, or null; not dstate
  DeviceDecay decay;
  DeviceSequences sequences;
  int heads;
  int key_dim;
  int value_dim;
};

/// A pass with kKeys columns of query and key, for kColumns (64 or 128) columns of the result. A unit
/// is a tile of the query and the same columns of the key. To 256 keys a warpgroup owns 64 columns of
/// the result and all keys; above, both own the same 64 columns, half of the units each.
template <int kKeys, int kColumns>
struct Pass {
  static constexpr int kUnits = kKeys / 64;
  static constexpr int kTiles = kColumns / 64;
  static constexpr bool kSplit = kKeys > 256;
  static_assert(kColumns == 64 || (kColumns == 128 && !kSplit));
  static constexpr int kWarpgroups = kSplit ? 2 : kTiles;
  static constexpr int kChunks = kUnits <= 2 ? 3 : 2;                // of values in flight
  static constexpr int kRing = kSplit ? 10 : kChunks * kUnits;       // of units in flight

  static constexpr int kValues = kRing * 2 * kTileBytes;
  static constexpr int kScores = kValues + kChunks * kTiles * kTileBytes;
  static constexpr int kStage = kScores + (kSplit ? 1 : kWarpgroups) * kTileBytes;
  static constexpr int kExchange = kStage + kTiles * kTileBytes;
  static constexpr int kTables = kExchange + (kSplit ? 4 * kTileBytes : 0);
  static constexpr int kBytes = kTables + 3072;
};

/// Powers of gamma. [1]: of the last chunk of the sequence, which may be shorter.
struct Tables {
  float weight[128];        // of score (i,j) at i - j + 63, 0 where j is after i
  float key_scale[2][64];   // r(j), 0 outside the sequence
  float out_scale[2][64];   // p(i)
  float carry[2];           // over the whole chunk
};

struct Barriers {
  std::uint64_t full[10], empty[10], values_full[3], values_empty[3];
};
static_assert(sizeof(Tables) + sizeof(Barriers) <= 3072);

/// A place in a ring of kSize and the parity of the round.
template <int kSize>
struct Ring {
  int at = 0;
  std::uint32_t round = 0;
  __device__ void next() {
    if (++at == kSize) at = 0, round ^= 1;
  }
};

/// What one block does.
struct Task {
  const CUtensorMap* query;
  const CUtensorMap* key;
  const CUtensorMap* value;
  const CUtensorMap* result;
  int query_column;  // in tiles, of the head
  int value_column;  // in tiles, of the block's part
  bool reverse;
  std::int64_t first;
  int tokens;
  int chunks;

  __device__ int chunk(int n) const { return reverse ? chunks - 1 - n : n; }
  __device__ int row(int n) const { return static_cast<int>(first) + chunk(n) * kChunk; }
  __device__ int length(int n) const { return min(kChunk, tokens - chunk(n) * kChunk); }
  __device__ int table(int n) const { return chunk(n) == chunks - 1; }
};

struct Block {
  unsigned char* shared;
  Tables* tables;
  Barriers* barriers;
};

__device__ inline void fill_tables(Tables& tables, const Task& task, float log2_gamma) {
  const int tail = task.length(task.reverse ? 0 : task.chunks - 1);
  for (int x = threadIdx.x; x < 256; x += kThreads) {
    if (x < 128) {
      const int distance = task.reverse ? 63 - x : x - 63;
      tables.weight[x] = distance >= 0 ? exp2f(log2_gamma * distance) : 0.f;
    } else {
      const int last = x >= 192;
      const int i = x & 63;
      const int length = last ? tail : kChunk;
      const float before = i < length ? exp2f(log2_gamma * (length - 1 - i)) : 0.f;
      const float after = i < length ? exp2f(log2_gamma * (i + 1)) : 0.f;
      tables.key_scale[last][i] = task.reverse ? after : before;
      tables.out_scale[last][i] = task.reverse ? before : after;
      if (i == 0) tables.carry[last] = exp2f(log2_gamma * length);
    }
  }
}

// ---- The copying warp ---------------------------------------------------------------------------

template <class P, int kCluster>
__device__ void copy_operands(const Block& block, const Task& task) {
  const int rank = kCluster > 1 ? cluster_rank() : 0;
  Barriers& bar = *block.barriers;
  Ring<P::kRing> unit;
  Ring<P::kChunks> values;
  for (int n = 0; n < task.chunks; ++n) {
    const int row = task.row(n);
    mbarrier_wait(&bar.values_empty[values.at], values.round ^ 1);
    mbarrier_arrive_expect(&bar.values_full[values.at], P::kTiles * kTileBytes);
    unsigned char* to = block.shared + P::kValues + values.at * P::kTiles * kTileBytes;
    for (int box = 0; box < 2 * P::kTiles; ++box)
      tma_load(to + box * kBoxBytes, task.value, &bar.values_full[values.at], 0,
               row + box % 2 * kBoxRows, task.value_column + box / 2);
    values.next();
    // The blocks of a cluster read the same units: each copies a part of it for all.
    for (int u = 0; u < P::kUnits; ++u) {
      mbarrier_wait(&bar.empty[unit.at], unit.round ^ 1);
      mbarrier_arrive_expect(&bar.full[unit.at], 2 * kTileBytes);
      for (int box = rank * 4 / kCluster; box < (rank + 1) * 4 / kCluster; ++box) {
        unsigned char* part = block.shared + unit.at * 2 * kTileBytes + box * kBoxBytes;
        const CUtensorMap* map = box < 2 ? task.query : task.key;
        const int y = row + box % 2 * kBoxRows;
        if constexpr (kCluster > 1)
          tma_load_multicast(part, map, &bar.full[unit.at], (1 << kCluster) - 1, 0, y,
                             task.query_column + u);
        else
          tma_load(part, map, &bar.full[unit.at], 0, y, task.query_column + u);
      }
      unit.next();
    }
  }
}

// ---- Pieces of the multiplying warpgroups -------------------------------------------------------

struct Lane {
  int warpgroup = threadIdx.x / 128 - 1;
  int thread = threadIdx.x % 128;
  int warp = thread / 32;
  int lane = thread % 32;
  int group = lane / 4;         // row of an accumulator, within 8
  int pair = lane % 4 * 2;      // column of one, within 8

  __device__ void sync() const { named_barrier(1 + warpgroup, 128); }
};

/// What an accumulator held is of no use any more: the first product assigns it. Without this its
/// registers stay taken.
template <int kSize>
__device__ __forceinline__ void forget(float (&d)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "=f"(d[i]));
}

/// Four blocks of a cluster wait for each other's units, so all are told.
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

/// One tile of columns: O += M X^T with the old state as one group, then M = carry M + Z^T Y as
/// another. `old` may be written again when the first of the two has ended.
template <class T>
__device__ void step_state(float (&o)[32], float (&state)[32], std::uint32_t (&old)[4][4],
                           const std::uint32_t (&z)[4][4], float carry, const unsigned char* unit,
                           bool first) {
  pin(state);  // not packed before the group before it has given its registers back
  pack_state<T>(old, state);
#pragma unroll
  for (float& m : state) m *= carry;
  pin(state);
  wgmma_fence();
  const std::uint64_t x = matrix_tile(shared_address(unit));
  const std::uint64_t y = matrix_tile(shared_address(unit) + kTileBytes);
#pragma unroll
  for (int s = 0; s < 4; ++s) wgmma<T>(o, old[s], advance(x, 32 * s), !first || s > 0);
  wgmma_commit();
#pragma unroll
  for (int s = 0; s < 4; ++s) wgmma<T, 1>(state, z[s], advance(y, 2048 * s), true);
  wgmma_commit();
}

/// Scores of query i with kSize * 2 keys from `key` on, weighted, to columns from 8 * piece on of a
/// tile [i][j].
template <class T, int kSize>
__device__ void store_scores(unsigned char* tile, float (&scores)[kSize], const float* weight,
                             int key, const Lane& me) {
  constexpr int kPieces = kSize / 4;
  float w[kPieces + 1][2];  // of rows +8: column piece n is w[n], of rows +0: w[n + 1]
  const int distance = 63 + 16 * me.warp + 8 + me.group - me.pair - key;
#pragma unroll
  for (int n = 0; n <= kPieces; ++n) {
    w[n][0] = weight[distance - 8 * n];
    w[n][1] = weight[distance - 8 * n - 1];
  }
  const std::uint32_t to = shared_address(tile);
  const int row = 16 * me.warp + me.lane / 8 % 2 * 8 + me.lane % 8;
#pragma unroll
  for (int n = 0; n < kPieces; n += 2) {
    std::uint32_t r[4];
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      const int at = 4 * n + 2 * x;
      const float(&v)[2] = w[n + x / 2 + (x + 1) % 2];
      r[x] = pack<T>(scores[at] * v[0], scores[at + 1] * v[1]);
    }
    stmatrix(to + swizzled(row, key / 8 + n + me.lane / 16), r[0], r[1], r[2], r[3]);
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

/// O^T, tokens from `token` on, to a tile [token][column].
template <class T, int kSize>
__device__ void stage_result(unsigned char* tile, const float (&o)[kSize], int token,
                             const Lane& me) {
  const std::uint32_t to = shared_address(tile);
  const int row = token + me.lane / 16 * 8 + me.lane % 8;
  const int piece = me.warp * 2 + me.lane / 8 % 2;
#pragma unroll
  for (int n = 0; n < kSize / 4; n += 2) {
    std::uint32_t r[4];
#pragma unroll
    for (int x = 0; x < 4; ++x) r[x] = pack<T>(o[4 * n + 2 * x], o[4 * n + 2 * x + 1]);
    stmatrix_t(to + swizzled(row + 8 * n, piece), r[0], r[1], r[2], r[3]);
  }
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
    rows.each(first + step * b, me, [&](int x, std::int64_t at) {
      state[b][x] = from != nullptr ? from[at] : 0.f;
    });
}
template <int kTiles>
__device__ void store_state(const float (&state)[kTiles][32], float* to, const StateRows& rows,
                            int first, int step, const Lane& me) {
  if (to == nullptr) return;
#pragma unroll
  for (int b = 0; b < kTiles; ++b)
    rows.each(first + step * b, me, [&](int x, std::int64_t at) { to[at] = state[b][x]; });
}

// ---- A warpgroup with its own columns of the result ---------------------------------------------

/// Waits for the units of chunk n and begins its scores.
template <class T, class P>
__device__ void begin_scores(float (&scores)[32], const Block& block, const Task& task, int n,
                             Ring<P::kRing> unit, const Lane& me) {
  const int length = task.length(n);
  forget(scores);
#pragma unroll
  for (int u = 0; u < P::kUnits; ++u) {
    unsigned char* tiles = block.shared + unit.at * 2 * kTileBytes;
    mbarrier_wait(&block.barriers->full[unit.at], unit.round);
    if (length < kChunk) {
      clear_rows(tiles, length, me);
      clear_rows(tiles + kTileBytes, length, me);
      fence_proxy_async();
      me.sync();
    }
    wgmma_fence();
    const std::uint64_t x = matrix_tile(shared_address(tiles));
    const std::uint64_t y = matrix_tile(shared_address(tiles) + kTileBytes);
#pragma unroll
    for (int s = 0; s < 4; ++s)
      wgmma<T>(scores, advance(x, 32 * s), advance(y, 32 * s), u > 0 || s > 0);
    unit.next();
  }
  wgmma_commit();
}

template <class T, class P, int kCluster>
__device__ void multiply(const Block& block, const Task& task, const DeviceRows<T>& rows,
                         const float* initial, float* final_state, StateRows state_rows) {
  const Lane me;
  Barriers& bar = *block.barriers;
  unsigned char* score_tile = block.shared + P::kScores + me.warpgroup * kTileBytes;
  unsigned char* stage = block.shared + P::kStage + me.warpgroup * kTileBytes;
  state_rows.base += 64 * me.warpgroup * state_rows.row_stride;
  const int column = task.value_column + me.warpgroup;

  float state[P::kUnits][32];
  float o[32];  // first the scores
  load_state(state, initial, state_rows, 0, 1, me);
  Ring<P::kRing> unit;
  Ring<P::kChunks> values;

  for (int n = 0; n < task.chunks; ++n) {
    const int table = task.table(n);
    begin_scores<T, P>(o, block, task, n, unit, me);
    unsigned char* z_tile =
        block.shared + P::kValues + (values.at * P::kTiles + me.warpgroup) * kTileBytes;
    mbarrier_wait(&bar.values_full[values.at], values.round);
    if (task.length(n) < kChunk) {
      clear_rows(z_tile, task.length(n), me);
      fence_proxy_async();
      me.sync();
    }
    std::uint32_t z[4][4];
    load_scaled<T>(z, z_tile, block.tables->key_scale[table], me);
    wgmma_wait<0>();
    pin(o);
    store_scores<T>(score_tile, o, block.tables->weight, 0, me);
    fence_proxy_async();

    const float carry = block.tables->carry[table];
    const Ring<P::kRing> begin = unit;
    forget(o);
#pragma unroll
    for (int u = 0; u < P::kUnits; ++u) {
      std::uint32_t old[4][4];
      step_state<T>(o, state[u], old, z, carry, block.shared + unit.at * 2 * kTileBytes, u == 0);
      wgmma_wait<1>();
      unit.next();
    }
    wgmma_wait<0>();
    pin(o);
#pragma unroll
    for (int u = 0; u < P::kUnits; ++u) pin(state[u]);
    Ring<P::kRing> used = begin;
#pragma unroll
    for (int u = 0; u < P::kUnits; ++u, used.next()) release<kCluster>(&bar.empty[used.at], me);

    scale_columns(o, block.tables->out_scale[table], me);
    if (me.thread == 0) tma_store_wait_read<0>();
    me.sync();  // the scores are there, the stage is free
    pin(o);
    wgmma_fence();
    const std::uint64_t z_operand = matrix_tile(shared_address(z_tile));
    const std::uint64_t p_operand = matrix_tile(shared_address(score_tile));
#pragma unroll
    for (int s = 0; s < 4; ++s)
      wgmma<T, 1>(o, advance(z_operand, 2048 * s), advance(p_operand, 32 * s), true);
    wgmma_commit();
    wgmma_wait<0>();
    pin(o);
    if (me.lane == 0) mbarrier_arrive(&bar.values_empty[values.at]);
    values.next();

    stage_result<T>(stage, o, 0, me);
    fence_proxy_async();
    me.sync();
    store_result(stage, task, rows, n, column, 0, kChunk, me);
  }
  store_state(state, final_state, state_rows, 0, 1, me);
  if (me.thread == 0) tma_store_wait_read<0>();
}

// ---- Two warpgroups with the same columns, half of the keys each --------------------------------

/// Each adds the products of its units, and of its half of the scores' columns; then each finishes
/// half of the tokens with what the other hands over.
template <class T, class P, int kCluster>
__device__ void multiply_split(const Block& block, const Task& task, const DeviceRows<T>& rows,
                               const float* initial, float* final_state,
                               const StateRows& state_rows) {
  const Lane me;
  const int w = me.warpgroup;
  Barriers& bar = *block.barriers;
  unsigned char* score_tile = block.shared + P::kScores;
  unsigned char* stage = block.shared + P::kStage;

  float state[P::kUnits / 2][32];
  float scores[16], o[32];
  load_state(state, initial, state_rows, w, 2, me);
  Ring<P::kRing> unit;
  Ring<P::kChunks> values;

  for (int n = 0; n < task.chunks; ++n) {
    const int table = task.table(n), length = task.length(n);
    unsigned char* z_tile = block.shared + P::kValues + values.at * kTileBytes;
    mbarrier_wait(&bar.values_full[values.at], values.round);
    if (length < kChunk) {
      clear_rows(z_tile, length, me);
      fence_proxy_async();
      me.sync();
    }
    std::uint32_t z[4][4];
    load_scaled<T>(z, z_tile, block.tables->key_scale[table], me);

    const float carry = block.tables->carry[table];
    Ring<P::kRing> used = unit;
    forget(scores);
    forget(o);
#pragma unroll
    for (int u = 0; u < P::kUnits / 2; ++u) {
      unsigned char* own = nullptr;
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        unsigned char* tiles = block.shared + unit.at * 2 * kTileBytes;
        mbarrier_wait(&bar.full[unit.at], unit.round);
        if (length < kChunk) {
          clear_rows(tiles, length, me);
          clear_rows(tiles + kTileBytes, length, me);
          fence_proxy_async();
          me.sync();
        }
        if (side == w) own = tiles;
        wgmma_fence();
        const std::uint64_t x = matrix_tile(shared_address(tiles));
        const std::uint64_t y = matrix_tile(shared_address(tiles) + kTileBytes + w * kBoxBytes);
#pragma unroll
        for (int s = 0; s < 4; ++s)
          wgmma<T>(scores, advance(x, 32 * s), advance(y, 32 * s), u + side + s > 0);
        unit.next();
      }
      std::uint32_t old[4][4];
      step_state<T>(o, state[u], old, z, carry, own, u == 0);
      wgmma_wait<1>();
      if (u == 0) continue;
      for (int side = 0; side < 2; ++side, used.next()) release<kCluster>(&bar.empty[used.at], me);
    }
    wgmma_wait<0>();
    pin(scores);
    pin(o);
#pragma unroll
    for (int u = 0; u < P::kUnits / 2; ++u) pin(state[u]);
    for (int side = 0; side < 2; ++side, used.next()) release<kCluster>(&bar.empty[used.at], me);

    store_scores<T>(score_tile, scores, block.tables->weight, 32 * w, me);
    scale_columns(o, block.tables->out_scale[table], me);
    if (me.thread == 0) tma_store_wait_read<0>();
    fence_proxy_async();
    me.sync();  // the scores are there, the stage is free
    pin(o);
    wgmma_fence();
    const std::uint64_t z_operand = matrix_tile(shared_address(z_tile));
    const std::uint64_t p_operand = matrix_tile(shared_address(score_tile));
#pragma unroll
    for (int s = 0; s < 2; ++s)
      wgmma<T, 1>(o, advance(z_operand, 2048 * (2 * w + s)), advance(p_operand, 32 * (2 * w + s)),
                  true);
    wgmma_commit();
    wgmma_wait<0>();
    pin(o);
    if (me.lane == 0) mbarrier_arrive(&bar.values_empty[values.at]);
    values.next();

    float4* exchange = reinterpret_cast<float4*>(block.shared + P::kExchange) + n % 2 * 1024;
    float mine[16];
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      float give[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        give[e] = w == 0 ? o[16 + 4 * x + e] : o[4 * x + e];
        mine[4 * x + e] = w == 0 ? o[4 * x + e] : o[16 + 4 * x + e];
      }
      exchange[w * 512 + x * 128 + me.thread] = {give[0], give[1], give[2], give[3]};
    }
    named_barrier(3, 256);
#pragma unroll
    for (int x = 0; x < 4; ++x) {
      const float4 take = exchange[(1 - w) * 512 + x * 128 + me.thread];
      mine[4 * x] += take.x, mine[4 * x + 1] += take.y;
      mine[4 * x + 2] += take.z, mine[4 * x + 3] += take.w;
    }
    stage_result<T>(stage, mine, 32 * w, me);
    fence_proxy_async();
    me.sync();
    store_result(stage, task, rows, n, task.value_column, 32 * w, 32 * w + 32, me);
  }
  store_state(state, final_state, state_rows, w, 2, me);
  if (me.thread == 0) tma_store_wait_read<0>();
}

// ---- The kernel ---------------------------------------------------------------------------------

/// kSlices blocks make the columns of one gradient of one head.
template <class T, class P, int kCluster>
__device__ void run_pass(const Problem<T>& problem, unsigned char* shared, Gradient gradient,
                         int sequence, int head, int slice) {
  const bool by_value = gradient == kValueGradient;
  const int key_tiles = problem.key_dim / 64, value_tiles = problem.value_dim / 64;
  const Operand query = gradient == kQueryGradient ? kOutputGradient
                        : gradient == kKeyGradient ? kValue
                                                   : kKey;
  const Operand key = gradient == kQueryGradient ? kValue
                      : gradient == kKeyGradient ? kOutputGradient
                                                 : kQuery;
  const Operand value = gradient == kQueryGradient ? kKey
                        : gradient == kKeyGradient ? kQuery
                                                   : kOutputGradient;
  Task task;
  task.query = &problem.operand[query];
  task.key = &problem.operand[key];
  task.value = &problem.operand[value];
  task.result = &problem.result[gradient];
  task.query_column = head * P::kUnits;
  task.value_column = head * (by_value ? value_tiles : key_tiles) + slice * P::kTiles;
  task.reverse = gradient != kQueryGradient;
  task.first = problem.sequences.first(sequence);
  task.tokens = static_cast<int>(problem.sequences.length_of(sequence));
  task.chunks = ceil_div(task.tokens, kChunk);

  const Block block{shared, reinterpret_cast<Tables*>(shared + P::kTables),
                    reinterpret_cast<Barriers*>(shared + P::kTables + sizeof(Tables))};
  fill_tables(*block.tables, task, problem.decay.log2_gamma[head]);
  if (threadIdx.x == 0) {
    for (int i = 0; i < P::kRing; ++i) {
      mbarrier_init(&block.barriers->full[i], 1);
      mbarrier_init(&block.barriers->empty[i], 4 * P::kWarpgroups * kCluster);
    }
    for (int i = 0; i < P::kChunks; ++i) {
      mbarrier_init(&block.barriers->values_full[i], 1);
      mbarrier_init(&block.barriers->values_empty[i], 4 * P::kWarpgroups);
    }
    fence_mbarrier_init();
  }
  __syncthreads();
  if constexpr (kCluster > 1) cluster_sync();

  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    registers_release<24>();
    if (threadIdx.x == 0) copy_operands<P, kCluster>(block, task);
    __syncwarp();
  } else {
    registers_acquire<240>();
    const std::int64_t dk = problem.key_dim, dv = problem.value_dim;
    const std::int64_t base = (std::int64_t{sequence} * problem.heads + head) * dk * dv;
    const int row = slice * P::kTiles * 64;
    const StateRows state_rows =
        by_value ? StateRows{base + row, 1, dv} : StateRows{base + row * dv, dv, 1};
    const float* initial = gradient == kQueryGradient ? problem.initial : problem.dstate;
    float* final_state = gradient == kKeyGradient ? problem.dinitial : nullptr;
    if constexpr (P::kSplit) {
      multiply_split<T, P, kCluster>(block, task, problem.rows[gradient], initial, final_state,
                                     state_rows);
    } else if (warpgroup <= P::kWarpgroups) {
      multiply<T, P, kCluster>(block, task, problem.rows[gradient], initial, final_state,
                               state_rows);
    }
  }
  if constexpr (kCluster > 1) cluster_sync();
}

/// How the gradients of a head of size kDk/kDv are cut into blocks.
template <int kDk, int kDv>
struct Plan {
  static constexpr int kKeyColumns = kDv > 256 || kDk == 64 ? 64 : 128;  // of dQ and dK in a block
  static constexpr int kValueColumns = kDv == 64 ? 64 : 128;
  using KeyPass = Pass<kDv, kKeyColumns>;
  using ValuePass = Pass<kDk, kValueColumns>;
  static constexpr int kKeySlices = kDk / kKeyColumns;
  static constexpr int kValueSlices = kDv / kValueColumns;
  static constexpr int kBlocks = 2 * kKeySlices + kValueSlices;  // of one head
  static constexpr int kCluster = kKeySlices == kValueSlices ? kKeySlices : 1;
  static constexpr int kBytes =
      KeyPass::kBytes > ValuePass::kBytes ? KeyPass::kBytes : ValuePass::kBytes;
};

template <class T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(const __grid_constant__ Problem<T> problem) {
#if RETNET_SM90A
  using P = Plan<kDk, kDv>;
  extern __shared__ __align__(1024) unsigned char shared[];
  const int of_head = blockIdx.x % P::kBlocks;
  const int sequence = blockIdx.x / P::kBlocks / problem.heads;
  const int head = blockIdx.x / P::kBlocks % problem.heads;
  if (of_head < P::kValueSlices) {
    run_pass<T, typename P::ValuePass, P::kCluster>(problem, shared, kValueGradient, sequence, head,
                                                    of_head);
  } else {
    const int part = of_head - P::kValueSlices;
    run_pass<T, typename P::KeyPass, P::kCluster>(
        problem, shared, part < P::kKeySlices ? kKeyGradient : kQueryGradient, sequence, head,
        part % P::kKeySlices);
  }
#endif
}

}  // namespace retnet::cuda::sm90_backward
