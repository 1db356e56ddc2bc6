// SPDX-License-Identifier: MIT
// The recurrent form with deferred writes, as ops/retention_deferred.hpp has it: a state [Dk,Dv] is
// read at every token but written once in W of them. Between, the keys and values of the last tokens
// stand beside it, with G the log decay from the state to after each of them:
//
//   o_n = e^{G_n} q_n S + sum_{j pending} e^{G_n - G_j} (q_n . k_j) v_j
//   every W tokens:  S <- e^{G_n} S + sum_j e^{G_n - G_j} k_j^T v_j
//
// The same function as retention_recurrent_step with 1 + 1/W of the state's bytes a token instead
// of 2. How many tokens are pending stands on the device, so every token is the same launch and may
// be replayed as a graph.
#pragma once

#include "retnet/cuda/state_walk.cuh"

namespace retnet {

inline constexpr int kMaxPendingTokens = 16;

/// Tokens that are not in the states yet, of N sequences and H heads; all memory is the caller's and
/// on the device.
template <class T>
struct DevicePendingTokens {
  int window = 0;                    // W, at most 16
  T* keys = nullptr;                 // [N,H,W,Dk]
  T* values = nullptr;               // [N,H,W,Dv]
  double* log_decay = nullptr;       // [N,H,W]: G
  std::int32_t* counts = nullptr;    // [N], each below W
  std::uint32_t* arrived = nullptr;  // [N], zeros between launches: blocks that have read counts
};

namespace cuda {

/// Shared memory of a block, behind the ring: every slot of a head's pending tokens, used or not, so
/// that no address depends on a count that is still to come; the new token has the slot behind them.
template <class T, class Walk>
struct PendingMemory {
  static constexpr int kSlots = kMaxPendingTokens + 1;
  float *decay, *weight;  // [slots]: e^{G_n - G_j}; that times q . k_j, 0 where there is no token
  float* query;           // [Dk, a multiple of Walk::batch]
  T* keys;                // [slots, the same rows]
  T* values;              // [slots,columns]
  float* sums;            // [warps,columns], where keys and values were

  static std::int64_t bytes(int dk, int window) {
    const std::int64_t inputs = (window + 1) *
                                std::int64_t{round_up(dk, Walk::batch) + Walk::columns} *
                                static_cast<std::int64_t>(sizeof(T));
    const std::int64_t sums = Walk::warps * Walk::columns * 4;
    return 4 * (2 * round_up(kSlots, 4) + round_up(dk, Walk::batch)) +
           (inputs > sums ? inputs : sums);
  }
  __device__ PendingMemory(float4* memory, int dk, int window)
      : decay(reinterpret_cast<float*>(memory) + Walk::ring_bytes / 4),
        weight(decay + round_up(kSlots, 4)),
        query(weight + round_up(kSlots, 4)),
        keys(reinterpret_cast<T*>(query + round_up(dk, Walk::batch))),
        values(keys + (window + 1) * round_up(dk, Walk::batch)),
        sums(reinterpret_cast<float*>(keys)) {}
};

/// `count` rows of `width` elements, `stride` and `to_stride` apart, into shared memory: 16 bytes at a
/// time and asynchronously where everything is a multiple of that.
template <class T, class Walk>
__device__ void copy_slots(const T* from, std::int64_t stride, T* to, int to_stride, int count,
                           int width) {
  constexpr int kWidth = 16 / sizeof(T);
  const auto odd = reinterpret_cast<std::uintptr_t>(from) % 16 + stride % kWidth + width % kWidth;
  const int step = odd == 0 ? kWidth : 1, parts = width / step;
  for (int i = static_cast<int>(threadIdx.x); i < count * parts; i += Walk::threads) {
    const int row = i / parts, column = i % parts * step;
    const T* source = from + row * stride + column;
    T* target = to + row * to_stride + column;
    if (odd != 0) {
      *target = *source;
    } else {
      const auto address = static_cast<unsigned>(__cvta_generic_to_shared(target));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(source)
                   : "memory");
    }
  }
}

/// One head's pending tokens as a block has them in shared memory.
template <class T, class Walk>
struct PendingHead {
  const DevicePendingTokens<T>& all;
  const StatePlace<Walk>& place;
  const PendingMemory<T, Walk>& memory;
  std::int64_t slot;  // the head's first among all
  int tokens = 0;     // pending and new ones
  int new_tokens = 0;

  /// Column of the tile's first value, and how many there are.
  __device__ int first_column() const { return place.tile * Walk::columns; }
  __device__ int columns() const { return min(Walk::columns, place.dv - first_column()); }
  __device__ int key_stride() const { return round_up(place.dk, Walk::batch); }
  /// Where token j is.
  __device__ int slot_of(int j) const { return j < tokens - new_tokens ? j : all.window; }

  __device__ void copy() const {
    const int rest = key_stride() - place.dk;  // zeros, for rows that a batch has too many
    for (int i = static_cast<int>(threadIdx.x); i < rest * (all.window + 1); i += Walk::threads)
      memory.keys[i / rest * key_stride() + place.dk + i % rest] = from_float<T>(0.f);
    copy_slots<T, Walk>(all.keys + slot * place.dk, place.dk, memory.keys, key_stride(), all.window,
                        place.dk);
    copy_slots<T, Walk>(all.values + slot * place.dv + first_column(), place.dv, memory.values,
                        Walk::columns, all.window, columns());
  }
  /// The new token, from the inputs to its slot.
  __device__ void copy_new(const T* key, const T* value) const {
    for (int d = static_cast<int>(threadIdx.x); d < place.dk; d += Walk::threads)
      memory.keys[all.window * key_stride() + d] = key[d];
    for (int c = static_cast<int>(threadIdx.x); c < columns(); c += Walk::threads)
      memory.values[all.window * Walk::columns + c] = value[first_column() + c];
  }
  /// How many tokens there are, and their decay until `log_step` after the last pending one; the
  /// state's decay is returned. All that is loaded is loaded at once.
  __device__ float count(int added, float log_step) {
    constexpr float kForgotten = -1e4f;  // e^ of it is 0; differences of G stay numbers
    const int j = static_cast<int>(threadIdx.x) % 32;
    const int stored = all.counts[place.sequence];
    const double own = j < all.window ? all.log_decay[slot + j] : 0.0;
    const double last = __shfl_sync(0xFFFFFFFF, own, max(stored - 1, 0));
    const double now = (stored > 0 ? last : 0.0) + fmaxf(log_step, kForgotten);
    new_tokens = added;
    tokens = stored + added;
    if (threadIdx.x < 32 && j <= all.window)
      memory.decay[j] = j < stored ? expf(static_cast<float>(now - own)) : 1.f;
    if (threadIdx.x == 0 && place.tile == 0 && added > 0 && tokens < all.window)
      all.log_decay[slot + stored] = now;
    return expf(static_cast<float>(now));
  }
  /// weight_j = e^{G_n - G_j} (q . k_j), a warp for each slot; read after a barrier.
  __device__ void weigh() const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int j = static_cast<int>(threadIdx.x) / 32; j < tokens; j += Walk::warps) {
      const T* key = memory.keys + slot_of(j) * key_stride();
      float dot = 0.f;
      for (int d = lane; d < place.dk; d += 32) dot = fmaf(memory.query[d], to_float(key[d]), dot);
      dot = warp_sum(dot);
      if (lane == 0) memory.weight[j] = memory.decay[slot_of(j)] * dot;
    }
  }
  /// The new token goes where the next launch finds it: each block its columns of the value, one the
  /// key.
  __device__ void append() const {
    const std::int64_t at = slot + tokens - 1;
    for (int c = static_cast<int>(threadIdx.x); c < columns(); c += Walk::threads)
      all.values[at * place.dv + first_column() + c] =
          memory.values[all.window * Walk::columns + c];
    if (place.tile > 0) return;
    for (int d = static_cast<int>(threadIdx.x); d < place.dk; d += Walk::threads)
      all.keys[at * place.dk + d] = memory.keys[all.window * key_stride() + d];
  }
  /// This thread's columns of value j.
  __device__ void value(int j, float (&v)[Walk::pack]) const {
    const T* from = memory.values + slot_of(j) * Walk::columns + (place.column - first_column());
    const auto raw = load_vector<T, Walk::pack>(from);
#pragma unroll
    for (int c = 0; c < Walk::pack; ++c) v[c] = to_float(raw.at[c]);
  }
  /// S <- keep S + sum_j e^{G_n - G_j} k_j^T v_j, for the rows of a batch.
  __device__ void settle(StateRows<Walk>& s, int first, float keep) const {
#pragma unroll
    for (int i = 0; i < Walk::rows; ++i)
#pragma unroll
      for (int c = 0; c < Walk::pack; ++c) s[i].at[c] *= keep;
    for (int j = 0; j < tokens; ++j) {
      const T* key = memory.keys + slot_of(j) * key_stride() + place.row(first, 0);
      const auto k = load_vector<T, Walk::rows>(key);
      const float decay = memory.decay[slot_of(j)];
      float v[Walk::pack];
      value(j, v);
#pragma unroll
      for (int i = 0; i < Walk::rows; ++i)
#pragma unroll
        for (int c = 0; c < Walk::pack; ++c)
          s[i].at[c] = fmaf(to_float(k.at[i]), decay * v[c], s[i].at[c]);
    }
  }
  /// sum <- keep sum + sum_j weight_j v_j, the tokens dealt out to the groups.
  __device__ void add_values(float keep, float (&sum)[1][Walk::pack]) const {
#pragma unroll
    for (int c = 0; c < Walk::pack; ++c) sum[0][c] *= keep;
    for (int j = place.group; j < tokens; j += Walk::groups) {
      float v[Walk::pack];
      value(j, v);
#pragma unroll
      for (int c = 0; c < Walk::pack; ++c) sum[0][c] = fmaf(memory.weight[j], v[c], sum[0][c]);
    }
  }
};

/// The last block of a sequence to have read the count of its pending tokens sets it.
template <class T>
__device__ void set_count(const DevicePendingTokens<T>& pending, int sequence, int count,
                          unsigned blocks) {
  if (threadIdx.x != 0) return;
  __threadfence();
  if (atomicAdd(pending.arrived + sequence, 1u) + 1 < blocks) return;
  pending.counts[sequence] = count;
  pending.arrived[sequence] = 0;
}

/// One token, the one at `token`, of every sequence that has it.
template <class T, class Walk>
__global__ void __launch_bounds__(Walk::threads, Walk::blocks)
    retention_deferred_kernel(const __grid_constant__ DeviceRetention<T> in, std::int64_t token,
                              const __grid_constant__ DevicePendingTokens<T> pending, float* states,
                              DeviceRows<T> o) {
  extern __shared__ float4 walk_memory[];
  wait_for_previous_kernel();
  const StatePlace<Walk> place(in.heads, in.key_dim, in.value_dim);
  if (token >= in.sequences.length_of(place.sequence)) return;
  const int h = place.head, dk = place.dk, dv = place.dv, kv_head = h / in.group();
  const std::int64_t row = in.sequences.first(place.sequence) + token;
  const PendingMemory<T, Walk> memory(walk_memory, dk, pending.window);
  PendingHead<T, Walk> head{pending, place, memory, std::int64_t{place.task} * pending.window};

  head.copy();  // a part of the ring's first batch, as far as waiting is concerned
  StateRing<Walk> ring(states, place, walk_memory);
  const T* query = in.q.row(row) + h * dk;
  for (int d = static_cast<int>(threadIdx.x); d < round_up(dk, Walk::batch); d += Walk::threads)
    memory.query[d] = d < dk ? to_float(query[d]) : 0.f;
  head.copy_new(in.k.row(row) + kv_head * dk, in.v.row(row) + kv_head * dv);
  const float keep = head.count(1, log_decay_of(in, row, h));
  const bool full = head.tokens == pending.window;
  ring.wait();
  __syncthreads();
  set_count(pending, place.sequence, full ? 0 : head.tokens,
            in.heads * ceil_div(dv, Walk::columns));
  if (!full) {
    head.weigh();
    head.append();
    __syncthreads();
  }

  float sum[1][Walk::pack] = {};
  for (int first = 0; first < dk; first += Walk::batch) {
    StateRows<Walk> s;
    ring.take(s);
    if (full) {
      head.settle(s, first, keep);
      place.store(states, first, s);
    }
    const auto q = load_vector<float, Walk::rows>(memory.query + place.row(first, 0));
#pragma unroll
    for (int i = 0; i < Walk::rows; ++i)
#pragma unroll
      for (int c = 0; c < Walk::pack; ++c) sum[0][c] = fmaf(q.at[i], s[i].at[c], sum[0][c]);
    ring.advance(first);
  }
  if (!full) head.add_values(keep, sum);
  __syncthreads();  // keys and values are read; their memory takes the sums
  sum_over_rows<Walk>(sum, place, memory.sums, [&](int, int column, float x) {
    o.row(row)[h * dv + column] = from_float<T>(x);
  });
}

template <class T, class Walk>
__global__ void __launch_bounds__(Walk::threads, Walk::blocks)
    settle_pending_kernel(const __grid_constant__ DevicePendingTokens<T> pending, int heads, int dk,
                          int dv, float* states) {
  extern __shared__ float4 walk_memory[];
  wait_for_previous_kernel();
  const StatePlace<Walk> place(heads, dk, dv);
  if (pending.counts[place.sequence] == 0) return;
  const PendingMemory<T, Walk> memory(walk_memory, dk, pending.window);
  PendingHead<T, Walk> head{pending, place, memory, std::int64_t{place.task} * pending.window};
  head.copy();
  StateRing<Walk> ring(states, place, walk_memory);
  const float keep = head.count(0, 0.f);
  ring.wait();
  __syncthreads();
  set_count(pending, place.sequence, 0, heads * ceil_div(dv, Walk::columns));
  for (int first = 0; first < dk; first += Walk::batch) {
    StateRows<Walk> s;
    ring.take(s);
    head.settle(s, first, keep);
    ring.advance(first);
    place.store(states, first, s);
  }
}

template <class T>
void check_pending(const DevicePendingTokens<T>& pending, const char* where) {
  RETNET_CUDA_REQUIRE(pending.window > 0 && pending.window <= kMaxPendingTokens, where, "window ",
                      pending.window, ", expected 1 to ", kMaxPendingTokens);
  RETNET_CUDA_REQUIRE(pending.keys != nullptr && pending.values != nullptr &&
                          pending.log_decay != nullptr && pending.counts != nullptr &&
                          pending.arrived != nullptr,
                      where, "pending tokens have no memory");
}

}  // namespace cuda

/// states [N,H,Dk,Dv]; the tokens of `in` follow the pending ones, one launch for each.
template <class T>
void retention_deferred(CudaContext& ctx, const DeviceRetention<T>& in,
                        const DevicePendingTokens<T>& pending, float* states, DeviceRows<T> o) {
  constexpr const char* kWhere = "retention_deferred";
  cuda::check_problem(in, kWhere);
  cuda::check_pending(pending, kWhere);
  RETNET_CUDA_REQUIRE(states != nullptr && o, kWhere, "states or o is null");
  ctx.note("retention_recurrent: deferred writes");
  const int tasks = in.sequences.count * in.heads;
  cuda::choose_walk<cuda::StateWalk<32, 4, 4, 2, 4>>(
      ctx, tasks, in.value_dim, {states}, [&](auto chosen) {
        using Walk = decltype(chosen);
        const std::int64_t shared = cuda::PendingMemory<T, Walk>::bytes(in.key_dim, pending.window);
        for (std::int64_t t = 0; t < in.sequences.length; ++t)
          cuda::launch_walk<Walk>(ctx, cuda::retention_deferred_kernel<T, Walk>, tasks,
                                  in.value_dim, shared, in, t, pending, states, o);
      });
}

/// The states with all pending tokens in them; none are pending afterwards.
template <class T>
void settle_pending(CudaContext& ctx, const DevicePendingTokens<T>& pending, int sequences,
                    int heads, int dk, int dv, float* states) {
  constexpr const char* kWhere = "settle_pending";
  cuda::check_pending(pending, kWhere);
  RETNET_CUDA_REQUIRE(sequences > 0 && heads > 0 && dk > 0 && dv > 0 && states != nullptr, kWhere,
                      "N=", sequences, " H=", heads, " Dk=", dk, " Dv=", dv,
                      ", expected positive sizes and states");
  const int tasks = sequences * heads;
  cuda::choose_walk<cuda::StateWalk<32, 4, 4, 2, 4>>(ctx, tasks, dv, {states}, [&](auto chosen) {
    using Walk = decltype(chosen);
    cuda::launch_walk<Walk>(ctx, cuda::settle_pending_kernel<T, Walk>, tasks, dv,
                            cuda::PendingMemory<T, Walk>::bytes(dk, pending.window), pending, heads,
                            dk, dv, states);
  });
}

}  // namespace retnet
