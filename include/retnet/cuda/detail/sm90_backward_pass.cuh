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

#include "retnet/cuda/detail/sm90_backward_pieces.cuh"

namespace retnet::cuda::sm90_backward {

// ---- The copying warp ---------------------------------------------------------------------------

/// kStates: a pass for the state alone has no use for queries.
template <class P, int kCluster, bool kStates>
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
      mbarrier_arrive_expect(&bar.full[unit.at], (kStates ? 1 : 2) * kTileBytes);
      for (int box = rank * 4 / kCluster; box < (rank + 1) * 4 / kCluster; ++box) {
        if (kStates && box < 2) continue;
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

// ---- A multiplying warpgroup --------------------------------------------------------------------

/// Waits for the warpgroup's units of chunk n and begins their scores.
template <class T, class P>
__device__ void begin_scores(float (&scores)[32], const Block& block, const Task& task, int n,
                             Ring<P::kRing / P::kStep> unit, const Lane& me) {
  const int length = task.length(n);
  forget(scores);
#pragma unroll
  for (int u = 0; u < P::kOwnUnits; ++u) {
    const int slot = unit.at * P::kStep + (P::kSplit ? me.warpgroup : 0);
    unsigned char* tiles = block.shared + slot * 2 * kTileBytes;
    mbarrier_wait(&block.barriers->full[slot], unit.round);
    if (length < kChunk) {
      clear_rows(tiles, length, me);
      clear_rows(tiles + kTileBytes, length, me);
      fence_proxy_async();
      me.sync();
    }
    wgmma_fence();
    const std::uint32_t x = tile_word(tiles), y = tile_word(tiles + kTileBytes);
#pragma unroll
    for (int s = 0; s < 4; ++s)
      wgmma<T>(scores, operand(x, 32 * s), operand(y, 32 * s), u > 0 || s > 0);
    unit.next();
  }
  wgmma_commit();
}

/// Two warpgroups with halves of the units have halves of the scores too: the product with the values
/// is linear, so each goes on with its own and only the results are added.
template <class T, class P, int kCluster>
__device__ void multiply(const Block& block, const Task& task, const DeviceRows<T>& rows,
                         const float* initial, float* final_state, StateRows state_rows) {
  constexpr bool kEarly = P::kEarly, kPair = P::kWarpgroups == 2 && !P::kSplit;
  const Lane me;
  Barriers& bar = *block.barriers;
  const int tile = P::kSplit ? 0 : me.warpgroup;
  unsigned char* score_tile = block.shared + P::kScores + me.warpgroup * kTileBytes;
  unsigned char* stage = block.shared + P::kStage + tile * kTileBytes;
  const Exchange exchange{reinterpret_cast<float4*>(block.shared + P::kExchange)};
  const int first_unit = P::kSplit ? me.warpgroup : 0;
  state_rows.base += 64 * tile * state_rows.row_stride;

  float state[P::kOwnUnits][32];
  float accumulators[kEarly ? 2 : 1][32];
  float(&o)[32] = accumulators[0];
  float(&scores)[32] = accumulators[kEarly];
  load_state(state, initial, state_rows, first_unit, P::kStep, me);
  Ring<P::kRing / P::kStep> unit;
  Ring<P::kChunks> values;
  if constexpr (P::kSplit) exchange.open(me);
  std::uint32_t packed[16];
  float mine[16];
  const auto finish = [&](int n) {
    if constexpr (P::kSplit) {
      exchange.take(mine, me);
      std::uint32_t half[8];
      pack_result<T>(half, mine);
      stage_result(stage, half, 32 * me.warpgroup, me);
    } else {
      stage_result(stage, packed, 0, me);
    }
    fence_proxy_async();
    me.sync();
    const int from = P::kSplit ? 32 * me.warpgroup : 0;
    store_result(stage, task, rows, n, task.value_column + tile, from, from + kChunk / P::kStep,
                 me);
  };
  if constexpr (kPair) open_turns(me);
  if (kEarly && task.chunks > 0) begin_scores<T, P>(scores, block, task, 0, unit, me);

  for (int n = 0; n < task.chunks; ++n) {
    const int table = task.table(n);
    if (!kEarly) begin_scores<T, P>(scores, block, task, n, unit, me);
    if (!kEarly && n > 0) finish(n - 1);
    unsigned char* z_tile = block.shared + P::kValues + (values.at * P::kTiles + tile) * kTileBytes;
    mbarrier_wait(&bar.values_full[values.at], values.round);
    if (task.length(n) < kChunk) {
      clear_rows(z_tile, task.length(n), me);
      fence_proxy_async();
      me.sync();
    }
    std::uint32_t z[4][4];
    load_scaled<T>(z, z_tile, block.tables->key_scale[table], me);
    const Weights weights(block.tables->weight, me);
    const float carry = block.tables->carry[table];
    std::uint32_t old[2][4][4];  // of a unit under way and of the next
    pack_and_decay<T>(old[0], state[0], carry);
    wgmma_wait<0>();
    pin(scores);
    const auto publish_scores = [&] {
      store_scores<T>(score_tile, scores, weights, me);
      fence_proxy_async();
    };
    if (!kEarly) publish_scores();

    Ring<P::kRing / P::kStep> used = unit;
    const auto release_unit = [&] {
      release<kCluster>(&bar.empty[used.at * P::kStep + first_unit], me);
      used.next();
    };
    forget(o);
    if constexpr (kPair) take_turn(me);
#pragma unroll
    for (int u = 0; u < P::kOwnUnits; ++u) {
      if (u > 0) pack_and_decay<T>(old[u % 2], state[u], carry);
      step_state<T>(o, state[u], old[u % 2], z,
                    block.shared + (unit.at * P::kStep + first_unit) * 2 * kTileBytes, u == 0);
      if (!kEarly) {
        wgmma_wait<1>();
        if (u > 0) release_unit();
      }
      unit.next();
    }
    if (kEarly) publish_scores();
    wgmma_wait<0>();
    pin(o);
#pragma unroll
    for (int u = 0; u < P::kOwnUnits; ++u) pin(state[u]);
#pragma unroll
    for (int u = kEarly ? 0 : P::kOwnUnits - 1; u < P::kOwnUnits; ++u) release_unit();

    scale_columns(o, block.tables->out_scale[table], me);
    if (me.thread == 0) tma_store_wait_read<0>();
    me.sync();  // the scores are there, the stage is free
    pin(o);
    wgmma_fence();
    const std::uint32_t z_word = tile_word(z_tile), p_word = tile_word(score_tile);
#pragma unroll
    for (int s = 0; s < 4; ++s)
      wgmma<T, 1>(o, operand(z_word, 2048 * s), operand(p_word, 32 * s), true);
    wgmma_commit();
    if constexpr (kPair) pass_turn(me);
    const bool more = n + 1 < task.chunks;
    if (kEarly && more) {
      begin_scores<T, P>(scores, block, task, n + 1, unit, me);
      wgmma_wait<1>();
    } else {
      wgmma_wait<0>();
    }
    pin(o);
    if (me.lane == 0) mbarrier_arrive(&bar.values_empty[values.at]);
    values.next();

    if constexpr (P::kSplit)
      exchange.give(mine, o, me);
    else
      pack_result<T>(packed, o);
    if (kEarly) finish(n);
  }
  if (!kEarly && task.chunks > 0) finish(task.chunks - 1);
  if constexpr (P::kSplit) exchange.close(me);
  if constexpr (kPair) close_turns(me);
  store_state(state, final_state, state_rows, first_unit, P::kStep, me);
  if (me.thread == 0) tma_store_wait_read<0>();
}

/// The state alone, from zero, at the end of the segment.
template <class T, class P, int kCluster>
__device__ void accumulate(const Block& block, const Task& task, float* final_state,
                           StateRows state_rows) {
  const Lane me;
  Barriers& bar = *block.barriers;
  const int tile = P::kSplit ? 0 : me.warpgroup;
  const int first_unit = P::kSplit ? me.warpgroup : 0;
  state_rows.base += 64 * tile * state_rows.row_stride;
  float state[P::kOwnUnits][32] = {};
  Ring<P::kRing / P::kStep> unit;
  Ring<P::kChunks> values;

  for (int n = 0; n < task.chunks; ++n) {
    const int table = task.table(n), length = task.length(n);
    unsigned char* z_tile = block.shared + P::kValues + (values.at * P::kTiles + tile) * kTileBytes;
    mbarrier_wait(&bar.values_full[values.at], values.round);
    if (length < kChunk) {
      clear_rows(z_tile, length, me);
      fence_proxy_async();
      me.sync();
    }
    std::uint32_t z[4][4];
    load_scaled<T>(z, z_tile, block.tables->key_scale[table], me);
    if (me.lane == 0) mbarrier_arrive(&bar.values_empty[values.at]);
    values.next();
    const float carry = block.tables->carry[table];
    Ring<P::kRing / P::kStep> used = unit;
#pragma unroll
    for (auto& tile_state : state) {
#pragma unroll
      for (float& m : tile_state) m *= carry;
      pin(tile_state);
    }
#pragma unroll
    for (int u = 0; u < P::kOwnUnits; ++u, unit.next()) {
      const int slot = unit.at * P::kStep + first_unit;
      unsigned char* keys = block.shared + (2 * slot + 1) * kTileBytes;
      mbarrier_wait(&bar.full[slot], unit.round);
      if (length < kChunk) {
        clear_rows(keys, length, me);
        fence_proxy_async();
        me.sync();
      }
      wgmma_fence();
      const std::uint32_t y = tile_word(keys);
#pragma unroll
      for (int s = 0; s < 4; ++s) wgmma<T, 1>(state[u], z[s], operand(y, 2048 * s), true);
    }
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int u = 0; u < P::kOwnUnits; ++u, used.next()) {
      pin(state[u]);
      release<kCluster>(&bar.empty[used.at * P::kStep + first_unit], me);
    }
  }
  store_state(state, final_state, state_rows, first_unit, P::kStep, me);
}

// ---- The kernels --------------------------------------------------------------------------------

template <class P, int kCluster>
__device__ Block prepare(const Task& task, unsigned char* shared, float log2_gamma) {
  const Block block{shared, reinterpret_cast<Tables*>(shared + P::kTables),
                    reinterpret_cast<Barriers*>(shared + P::kTables + sizeof(Tables))};
  fill_tables(*block.tables, task, log2_gamma);
  if (threadIdx.x == 0) {
    for (int i = 0; i < P::kRing; ++i) {
      mbarrier_init(&block.barriers->full[i], 1);
      mbarrier_init(&block.barriers->empty[i], 4 * P::kWarpgroups / P::kStep * kCluster);
    }
    for (int i = 0; i < P::kChunks; ++i) {
      mbarrier_init(&block.barriers->values_full[i], 1);
      mbarrier_init(&block.barriers->values_empty[i], 4 * P::kWarpgroups);
    }
    fence_mbarrier_init();
  }
  __syncthreads();
  if constexpr (kCluster > 1) cluster_sync();
  return block;
}

/// kStates: of the state alone, for the segment on the other side of the border.
template <class T, class P, int kCluster, bool kStates>
__device__ void run_pass(const Problem<T>& problem, unsigned char* shared, Gradient gradient,
                         const Place& place) {
  const Task task = task_of<P>(problem, gradient, place);
  const Block block = prepare<P, kCluster>(task, shared, problem.decay.log2_gamma[place.head]);
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    registers_release<24>();
    if (threadIdx.x == 0) copy_operands<P, kCluster, kStates>(block, task);
    __syncwarp();
  } else {
    registers_acquire<240>();
    const std::int64_t dk = problem.key_dim, dv = problem.value_dim;
    const std::int64_t head = std::int64_t{place.sequence} * problem.heads + place.head;
    const int last = problem.segments - 1;
    const auto border = [&](int after) {
      return problem.borders[task.reverse] + (head * last + after) * dk * dv;
    };
    const int row = place.slice * P::kTiles * 64;
    const StateRows state_rows =
        gradient == kValueGradient ? StateRows{row, 1, dv} : StateRows{row * dv, dv, 1};
    if (warpgroup > P::kWarpgroups) {
      // no columns for it
    } else if constexpr (kStates) {
      accumulate<T, P, kCluster>(block, task, border(place.segment - task.reverse), state_rows);
    } else {
      const bool outer = place.segment == (task.reverse ? last : 0);
      const float* initial = task.reverse ? problem.dstate : problem.initial;
      if (initial != nullptr) initial += head * dk * dv;
      if (!outer) initial = border(place.segment - !task.reverse);
      float* final_state = nullptr;
      if (gradient == kKeyGradient && place.segment == 0 && problem.dinitial != nullptr)
        final_state = problem.dinitial + head * dk * dv;
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
  static constexpr int kBlocks = 2 * kKeySlices + kValueSlices;  // of one segment of one head
  // Blocks that read the same units share the copying of them. Clusters of 4 would read less still,
  // but 3 multiprocessors in 33 stay idle then: too few of a chip's parts hold a multiple of 4.
  static constexpr int kCluster = kKeySlices == kValueSlices && kKeySlices > 1 ? 2 : 1;
  static constexpr int kBytes =
      KeyPass::kBytes > ValuePass::kBytes ? KeyPass::kBytes : ValuePass::kBytes;
};

/// `block` of `segments` segments of all heads.
__device__ inline Place place_of(int block, int segments, int heads) {
  return {block / segments / heads, block / segments % heads, block % segments, 0};
}

template <class T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(const __grid_constant__ Problem<T> problem) {
#if RETNET_SM90A
  using P = Plan<kDk, kDv>;
  extern __shared__ __align__(1024) unsigned char shared[];
  Place place = place_of(blockIdx.x / P::kBlocks, problem.segments, problem.heads);
  const int part = blockIdx.x % P::kBlocks - P::kValueSlices;
  if (part < 0) {
    place.slice = part + P::kValueSlices;
    run_pass<T, typename P::ValuePass, P::kCluster, false>(problem, shared, kValueGradient, place);
  } else {
    place.slice = part % P::kKeySlices;
    run_pass<T, typename P::KeyPass, P::kCluster, false>(
        problem, shared, part < P::kKeySlices ? kKeyGradient : kQueryGradient, place);
  }
#endif
}

/// To every border what the segment before it in the walk adds: S of the passes of dQ, G of dK.
template <class T, int kDk, int kDv>
__global__ void __launch_bounds__(kThreads, 1)
    border_kernel(const __grid_constant__ Problem<T> problem) {
#if RETNET_SM90A
  using P = Plan<kDk, kDv>;
  extern __shared__ __align__(1024) unsigned char shared[];
  const int of_border = blockIdx.x % (2 * P::kKeySlices);
  Place place = place_of(blockIdx.x / (2 * P::kKeySlices), problem.segments - 1, problem.heads);
  const bool forwards = of_border < P::kKeySlices;
  place.slice = of_border % P::kKeySlices;
  if (!forwards) ++place.segment;
  run_pass<T, typename P::KeyPass, P::kCluster, true>(
      problem, shared, forwards ? kQueryGradient : kKeyGradient, place);
#endif
}

/// Sums along the walk: a border's state becomes all that arrives there. A thread has one element of
/// a head's states; blockIdx.y: 0 forwards, 1 backwards.
template <class T>
__global__ void join_borders(const __grid_constant__ Problem<T> problem) {
  const std::int64_t size = std::int64_t{problem.key_dim} * problem.value_dim;
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t head = at / size;
  if (head >= std::int64_t{problem.sequences.count} * problem.heads) return;
  const bool reverse = blockIdx.y != 0;
  const int borders = problem.segments - 1;
  const float* initial = reverse ? problem.dstate : problem.initial;
  float* state = problem.borders[reverse] + head * borders * size + at % size;
  const auto length = problem.sequences.length_of(static_cast<int>(head / problem.heads));
  const std::int64_t step = std::int64_t{problem.segment_chunks} * kChunk;
  const float log2_gamma = problem.decay.log2_gamma[head % problem.heads];
  float sum = initial != nullptr ? initial[at] : 0.f;
  for (int n = 0; n < borders; ++n) {
    const int border = reverse ? borders - 1 - n : n;
    const std::int64_t left = length - (border + reverse) * step;
    const auto tokens = static_cast<float>(left < 0 ? 0 : left < step ? left : step);
    sum = sum * exp2f(log2_gamma * tokens) + state[border * size];
    state[border * size] = sum;
  }
}

}  // namespace retnet::cuda::sm90_backward
