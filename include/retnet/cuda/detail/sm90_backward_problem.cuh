// SPDX-License-Identifier: MIT
// What the blocks of the Hopper backward pass are given and how they find their part of it; the
// algebra is in sm90_backward_pass.cuh.
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
  int segments;        // of a sequence, a block each
  int segment_chunks;  // chunks of all but the last
  float* borders[2];   // [N,H,segments-1,Dk,Dv]: states between segments, forwards and backwards
  int heads;
  int key_dim;
  int value_dim;
};

/// A pass with kKeys columns of query and key, for kColumns (64 or 128) columns of the result. A unit
/// is a tile of the query and the same columns of the key. To 256 keys a warpgroup owns 64 columns of
/// the result and all units; above, both own the same 64 columns, every other unit each, and add up.
template <int kKeys, int kColumns>
struct Pass {
  static constexpr int kUnits = kKeys / 64;
  static constexpr int kTiles = kColumns / 64;
  static constexpr bool kSplit = kKeys > 256;
  static_assert(kColumns == 64 || (kColumns == 128 && !kSplit));
  static constexpr int kWarpgroups = kSplit ? 2 : kTiles;
  static constexpr int kOwnUnits = kSplit ? kUnits / 2 : kUnits;  // of a warpgroup
  static constexpr int kStep = kSplit ? 2 : 1;                    // from one of them to the next
  static constexpr int kChunks = kUnits <= 2 ? 3 : 2;             // of values in flight
  static constexpr int kRing = kSplit ? 10 : kChunks * kUnits;    // of units in flight
  // Registers allow the next chunk's scores beside this one's result.
  static constexpr bool kEarly = kUnits <= 2;

  static constexpr int kValues = kRing * 2 * kTileBytes;
  static constexpr int kScores = kValues + kChunks * kTiles * kTileBytes;
  static constexpr int kStage = kScores + kWarpgroups * kTileBytes;
  static constexpr int kExchange = kStage + kTiles * kTileBytes;
  static constexpr int kTables = kExchange + (kSplit ? 2 * kTileBytes : 0);
  static constexpr int kBytes = kTables + 3072;
};

/// Powers of gamma. [1]: of the last chunk of the sequence, which may be shorter.
struct Tables {
  float weight[128];       // of score (i,j) at i - j + 63, 0 where j is after i
  float key_scale[2][64];  // r(j), 0 outside the sequence
  float out_scale[2][64];  // p(i)
  float carry[2];          // over the whole chunk
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

struct Place {
  int sequence;
  int head;
  int segment;
  int slice;  // of the columns
};

/// The segment that a block of `gradient` has at `place`.
template <class P, class T>
__device__ Task task_of(const Problem<T>& problem, Gradient gradient, const Place& place) {
  const auto pick = [&](Operand of_query, Operand of_key, Operand of_value) {
    return &problem.operand[gradient == kQueryGradient ? of_query
                            : gradient == kKeyGradient ? of_key
                                                       : of_value];
  };
  const int width = gradient == kValueGradient ? problem.value_dim : problem.key_dim;
  const int from = place.segment * problem.segment_chunks * kChunk;
  const auto length = static_cast<int>(problem.sequences.length_of(place.sequence));
  Task task;
  task.query = pick(kOutputGradient, kValue, kKey);
  task.key = pick(kValue, kOutputGradient, kQuery);
  task.value = pick(kKey, kQuery, kOutputGradient);
  task.result = &problem.result[gradient];
  task.query_column = place.head * P::kUnits;
  task.value_column = place.head * (width / 64) + place.slice * P::kTiles;
  task.reverse = gradient != kQueryGradient;
  task.first = problem.sequences.first(place.sequence) + from;
  task.tokens = max(0, min(length - from, problem.segment_chunks * kChunk));
  task.chunks = ceil_div(task.tokens, kChunk);
  return task;
}

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

}  // namespace retnet::cuda::sm90_backward
