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

/// The tokens of one head that a settled state would have in it: those pending and, if there is one,
/// the new token.
template <class T>
struct PendingHead {
  int stored, tokens;
  double now;  // G after the last of them
  const T *keys, *values, *new_key = nullptr, *new_value = nullptr;
  const double* log_decay;
  int dk, dv;

  template <class Walk>
  __device__ PendingHead(const DevicePendingTokens<T>& all, const StatePlace<Walk>& place, int task)
      : stored(all.counts[place.sequence]), tokens(stored), dk(place.dk), dv(place.dv) {
    const std::int64_t slot = std::int64_t{task} * all.window;
    keys = all.keys + slot * dk;
    values = all.values + slot * dv;
    log_decay = all.log_decay + slot;
    now = stored > 0 ? log_decay[stored - 1] : 0.0;
  }
  __device__ void append(const T* key, const T* value, float log_step) {
    constexpr float kForgotten = -1e4f;  // e^ of it is 0; differences of G stay numbers
    new_key = key;
    new_value = value;
    now += fmaxf(log_step, kForgotten);
    ++tokens;
  }
  __device__ const T* key(int j) const {
    return j < stored ? keys + std::int64_t{j} * dk : new_key;
  }
  __device__ const T* value(int j) const {
    return j < stored ? values + std::int64_t{j} * dv : new_value;
  }
  __device__ float decay(int j) const {
    return j < stored ? expf(static_cast<float>(now - log_decay[j])) : 1.f;
  }
  __device__ float state_decay() const { return expf(static_cast<float>(now)); }
};

/// Shared memory of a block.
template <class Walk>
struct PendingMemory {
  int stride;     // W, a multiple of 4, and 4 more: rows of keys begin in different banks
  float* weight;  // [16]: e^{G_n - G_j} (q . k_j)
  float* query;   // [Dk, a multiple of Walk::batch]
  float* keys;    // the same rows, [Dk,stride]
  float* values;  // [W,columns]: e^{G_n - G_j} v_j
  float* sums;    // [warps,columns], where query was

  static std::int64_t bytes(int dk, int window) {
    const std::int64_t rows = round_up(dk, Walk::batch), tokens = round_up(window, 4);
    const std::int64_t inputs = rows * (tokens + 5) + tokens * Walk::columns;
    const std::int64_t sums = Walk::warps * Walk::columns;
    return 4 * (kMaxPendingTokens + (inputs > sums ? inputs : sums));
  }
  __device__ PendingMemory(float* memory, int dk, int window) : stride(round_up(window, 4) + 4) {
    weight = memory;
    sums = query = weight + kMaxPendingTokens;
    keys = query + round_up(dk, Walk::batch);
    values = keys + round_up(dk, Walk::batch) * stride;
  }
};

/// Keys and decayed values as settle_rows wants them; nothing where there is no token.
template <class T, class Walk>
__device__ void stage_pending(const PendingHead<T>& head, const StatePlace<Walk>& place,
                              const PendingMemory<Walk>& memory) {
  const int rows = round_up(place.dk, Walk::batch), window = memory.stride - 4;
  for (int i = static_cast<int>(threadIdx.x); i < rows * window; i += Walk::threads) {
    const int d = i % rows, j = i / rows;
    const bool there = d < place.dk && j < head.tokens;
    memory.keys[d * memory.stride + j] = there ? to_float(head.key(j)[d]) : 0.f;
  }
  for (int i = static_cast<int>(threadIdx.x); i < window * Walk::columns; i += Walk::threads) {
    const int j = i / Walk::columns, column = place.tile * Walk::columns + i % Walk::columns;
    const bool there = column < place.dv && j < head.tokens;
    memory.values[i] = there ? head.decay(j) * to_float(head.value(j)[column]) : 0.f;
  }
}

/// S <- keep S + sum_j k_j^T v_j, for the rows of a batch.
template <class Walk>
__device__ void settle_rows(StateRows<Walk>& s, int first, float keep, const StatePlace<Walk>& place,
                            const PendingMemory<Walk>& memory) {
  const int column = static_cast<int>(threadIdx.x) % Walk::lanes * Walk::pack;
#pragma unroll
  for (int i = 0; i < Walk::rows; ++i)
#pragma unroll
    for (int c = 0; c < Walk::pack; ++c) s[i].at[c] *= keep;
  for (int j = 0; j < memory.stride - 4; j += 4) {
    Vector<float, Walk::pack> v[4];
#pragma unroll
    for (int m = 0; m < 4; ++m)
      v[m] = load_vector<float, Walk::pack>(memory.values + (j + m) * Walk::columns + column);
#pragma unroll
    for (int i = 0; i < Walk::rows; ++i) {
      const auto k = load_vector<float, 4>(memory.keys + place.row(first, i) * memory.stride + j);
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int c = 0; c < Walk::pack; ++c) s[i].at[c] = fmaf(k.at[m], v[m].at[c], s[i].at[c]);
    }
  }
}

/// sum += q S over a batch.
template <class Walk>
__device__ void read_rows(const StateRows<Walk>& s, int first, const float* query,
                          const StatePlace<Walk>& place, float (&sum)[1][Walk::pack]) {
#pragma unroll
  for (int i = 0; i < Walk::rows; ++i) {
    const float q = query[place.row(first, i)];
#pragma unroll
    for (int c = 0; c < Walk::pack; ++c) sum[0][c] = fmaf(q, s[i].at[c], sum[0][c]);
  }
}

/// weight_j = e^{G_n - G_j} (q . k_j), a warp for each token.
template <class Walk, class T>
__device__ void weigh_pending(const PendingHead<T>& head, const T* query, float* weight) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int j = static_cast<int>(threadIdx.x) / 32; j < head.tokens; j += Walk::warps) {
    const T* key = head.key(j);
    float dot = 0.f;
    for (int d = lane; d < head.dk; d += 32) dot = fmaf(to_float(query[d]), to_float(key[d]), dot);
    dot = warp_sum(dot);
    if (lane == 0) weight[j] = head.decay(j) * dot;
  }
}

/// The new token goes where the next launch finds it: each block its columns of the value, one the
/// key and G.
template <class T, class Walk>
__device__ void append_pending(const PendingHead<T>& head, const StatePlace<Walk>& place,
                               const DevicePendingTokens<T>& pending, int task) {
  const std::int64_t slot = std::int64_t{task} * pending.window + head.stored;
  for (int i = static_cast<int>(threadIdx.x); i < Walk::columns; i += Walk::threads) {
    const int column = place.tile * Walk::columns + i;
    if (column < place.dv) pending.values[slot * place.dv + column] = head.new_value[column];
  }
  if (place.tile > 0) return;
  for (int d = static_cast<int>(threadIdx.x); d < place.dk; d += Walk::threads)
    pending.keys[slot * place.dk + d] = head.new_key[d];
  if (threadIdx.x == 0) pending.log_decay[slot] = head.now;
}

/// sum <- keep sum + sum_j weight_j v_j, the tokens dealt out to the groups.
template <class Walk, class T>
__device__ void add_pending(const PendingHead<T>& head, const StatePlace<Walk>& place, float keep,
                            const float* weight, float (&sum)[1][Walk::pack]) {
#pragma unroll
  for (int c = 0; c < Walk::pack; ++c) sum[0][c] *= keep;
#pragma unroll
  for (int i = 0; i < ceil_div(kMaxPendingTokens, Walk::groups); ++i) {
    const int j = place.group + i * Walk::groups;
    if (j >= head.tokens) continue;
    float v[Walk::pack];
    place.load_columns(head.value(j), v);
#pragma unroll
    for (int c = 0; c < Walk::pack; ++c) sum[0][c] = fmaf(weight[j], v[c], sum[0][c]);
  }
}

/// The last block of a sequence sets the count of its pending tokens, when all have read it.
template <class T>
__device__ void set_count(const DevicePendingTokens<T>& pending, int sequence, int count,
                          unsigned blocks) {
  __syncthreads();
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
  extern __shared__ float4 shared[];
  wait_for_previous_kernel();
  const StatePlace<Walk> place(in.heads, in.key_dim, in.value_dim);
  if (token >= in.sequences.length_of(place.sequence)) return;
  const int h = place.head, dk = place.dk, dv = place.dv, kv_head = h / in.group();
  const int task = place.sequence * in.heads + h;
  const std::int64_t row = in.sequences.first(place.sequence) + token;
  const PendingMemory<Walk> memory(reinterpret_cast<float*>(shared), dk, pending.window);

  StateRows<Walk> s;
  place.load(states, 0, s);
  PendingHead<T> head(pending, place, task);
  head.append(in.k.row(row) + kv_head * dk, in.v.row(row) + kv_head * dv, log_decay_of(in, row, h));
  const bool full = head.tokens == pending.window;
  const T* query = in.q.row(row) + h * dk;
  for (int d = static_cast<int>(threadIdx.x); d < round_up(dk, Walk::batch); d += Walk::threads)
    memory.query[d] = d < dk ? to_float(query[d]) : 0.f;
  if (full) {
    stage_pending(head, place, memory);
  } else {
    weigh_pending<Walk>(head, query, memory.weight);
    append_pending(head, place, pending, task);
  }
  __syncthreads();

  float sum[1][Walk::pack] = {};
  const float keep = head.state_decay();
  for (int d = 0; d < dk; d += Walk::batch) {
    if (d > 0) place.load(states, d, s);
    if (full) {
      settle_rows<Walk>(s, d, keep, place, memory);
      place.store(states, d, s);
    }
    read_rows<Walk>(s, d, memory.query, place, sum);
  }
  if (!full) add_pending<Walk>(head, place, keep, memory.weight, sum);
  __syncthreads();  // the query is read; its memory takes the sums
  sum_over_rows<Walk>(sum, place, memory.sums, [&](int, int column, float x) {
    o.row(row)[h * dv + column] = from_float<T>(x);
  });
  set_count(pending, place.sequence, full ? 0 : head.tokens,
            in.heads * ceil_div(dv, Walk::columns));
}

template <class T, class Walk>
__global__ void __launch_bounds__(Walk::threads, Walk::blocks)
    settle_pending_kernel(const __grid_constant__ DevicePendingTokens<T> pending, int heads, int dk,
                          int dv, float* states) {
  extern __shared__ float4 shared[];
  wait_for_previous_kernel();
  const StatePlace<Walk> place(heads, dk, dv);
  const PendingHead<T> head(pending, place, place.sequence * heads + place.head);
  if (head.tokens == 0) return;
  const PendingMemory<Walk> memory(reinterpret_cast<float*>(shared), dk, pending.window);
  stage_pending(head, place, memory);
  __syncthreads();
  for (int d = 0; d < dk; d += Walk::batch) {
    StateRows<Walk> s;
    place.load(states, d, s);
    settle_rows<Walk>(s, d, head.state_decay(), place, memory);
    place.store(states, d, s);
  }
  set_count(pending, place.sequence, 0, heads * ceil_div(dv, Walk::columns));
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
  cuda::choose_walk(ctx, tasks, in.value_dim, {states}, [&](auto chosen) {
    using Walk = decltype(chosen);
    const std::int64_t shared = cuda::PendingMemory<Walk>::bytes(in.key_dim, pending.window);
    for (std::int64_t t = 0; t < in.sequences.length; ++t)
      cuda::launch_walk<Walk>(ctx, cuda::retention_deferred_kernel<T, Walk>, tasks, in.value_dim,
                              shared, in, t, pending, states, o);
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
  cuda::choose_walk(ctx, tasks, dv, {states}, [&](auto chosen) {
    using Walk = decltype(chosen);
    cuda::launch_walk<Walk>(ctx, cuda::settle_pending_kernel<T, Walk>, tasks, dv,
                            cuda::PendingMemory<Walk>::bytes(dk, pending.window), pending, heads, dk,
                            dv, states);
  });
}

}  // namespace retnet
