// SPDX-License-Identifier: MIT
// The recurrent form: one pass over the states [N,H,Dk,Dv], which is all that decoding costs, for
// up to eight tokens of each sequence.
//
//   S <- a_n S + k_n^T v_n        o_n = q_n S        (Sun et al. 2023, Eq. 6)
//
// A block owns some columns of one head's state and all of its rows: the sum over rows stays in the
// block, and no two blocks touch the same number, so a pass is one launch. Nothing waits for the
// host and nothing is allocated: a pass may be captured in a graph.
#pragma once

#include "retnet/cuda/device.cuh"
#include "retnet/cuda/retention_problem.cuh"
#include "retnet/cuda/state_walk.cuh"

namespace retnet {

namespace cuda {

inline constexpr int kMaxStepTokens = 8;

/// The tokens [first, first + Tokens) of every sequence, where it has them. `from` may be null (no
/// state yet), `to` may be null (nobody asks for it) or `from`; a sequence without tokens is copied.
template <class T, int Tokens, class Walk>
__global__ void __launch_bounds__(Walk::threads, ceil_div(Walk::blocks, Tokens == 1 ? 1 : 2))
    retention_step_kernel(const __grid_constant__ DeviceRetention<T> in, std::int64_t first,
                          const float* from, float* to, DeviceRows<T> o) {
  extern __shared__ float4 walk_memory[];
  const int rows = round_up(in.key_dim, Walk::batch);
  // [rows][Tokens] {q,k}
  auto* query_key = reinterpret_cast<float2*>(walk_memory + Walk::ring_bytes / 16);
  wait_for_previous_kernel();
  const StatePlace<Walk> place(in.heads, in.key_dim, in.value_dim);
  const int h = place.head, dk = in.key_dim, dv = in.value_dim, kv_head = h / in.group();
  const std::int64_t left = in.sequences.length_of(place.sequence) - first;
  if (left <= 0 && from == to) return;
  const int tokens = left < Tokens ? max(static_cast<int>(left), 0) : Tokens;
  const std::int64_t row = in.sequences.first(place.sequence) + first;

  StateRing<Walk> ring(from, place, walk_memory);
#pragma unroll
  for (int t = 0; t < Tokens; ++t) {
    for (int d = static_cast<int>(threadIdx.x); d < rows; d += Walk::threads) {
      const bool there = d < dk && t < tokens;
      query_key[d * Tokens + t] = {there ? to_float(in.q.row(row + t)[h * dk + d]) : 0.f,
                                   there ? to_float(in.k.row(row + t)[kv_head * dk + d]) : 0.f};
    }
  }
  float decay[Tokens], v[Tokens][Walk::pack], sum[Tokens][Walk::pack] = {};
#pragma unroll
  for (int t = 0; t < Tokens; ++t) {
    decay[t] = 1.f;
#pragma unroll
    for (int c = 0; c < Walk::pack; ++c) v[t][c] = 0.f;
    if (t >= tokens) continue;
    decay[t] = decay_of(in, row + t, h);
    place.load_columns(in.v.row(row + t) + kv_head * dv, v[t]);
  }
  __syncthreads();

  for (int d = 0; d < dk; d += Walk::batch) {
    StateRows<Walk> s;
    ring.take(s);
#pragma unroll
    for (int i = 0; i < Walk::rows; ++i) {
      const auto qk = load_vector<float2, Tokens>(query_key + place.row(d, i) * Tokens);
#pragma unroll
      for (int t = 0; t < Tokens; ++t) {
#pragma unroll
        for (int c = 0; c < Walk::pack; ++c) {
          s[i].at[c] = fmaf(decay[t], s[i].at[c], qk.at[t].y * v[t][c]);
          sum[t][c] = fmaf(qk.at[t].x, s[i].at[c], sum[t][c]);
        }
      }
    }
    ring.advance(d);
    place.store(to, d, s);
  }

  __syncthreads();  // query_key is read; its memory takes the sums of the warps
  const auto write = [&](int t, int column, float x) {
    if (t < tokens) o.row(row + t)[h * dv + column] = from_float<T>(x);
  };
  sum_over_rows<Walk>(sum, place, reinterpret_cast<float*>(query_key), write);
}

/// One launch: the tokens from `first` on.
template <class T, int Tokens, class Walk>
void retention_step_launch(CudaContext& ctx, const DeviceRetention<T>& in, std::int64_t first,
                           const float* from, float* to, DeviceRows<T> o) {
  const std::int64_t inputs = std::int64_t{round_up(in.key_dim, Walk::batch)} * Tokens * 8;
  const std::int64_t sums = std::int64_t{Walk::warps} * Tokens * Walk::columns * 4;
  launch_walk<Walk>(ctx, retention_step_kernel<T, Tokens, Walk>, in.sequences.count * in.heads,
                    in.value_dim, inputs > sums ? inputs : sums, in, first, from, to, o);
  RETNET_CUDA_LAUNCHED("retention_step_kernel", shape_of(in));
}

/// Up to `most` tokens; how many that were.
template <class T, class Walk>
int retention_step_pass(CudaContext& ctx, const DeviceRetention<T>& in, std::int64_t first,
                        int most, const float* from, float* to, DeviceRows<T> o) {
  const std::int64_t left = in.sequences.length - first;
  if (left == 1 || most == 1) {
    retention_step_launch<T, 1, Walk>(ctx, in, first, from, to, o);
    return 1;
  }
  if (left <= 4) {
    retention_step_launch<T, 4, Walk>(ctx, in, first, from, to, o);
    return 4;
  }
  retention_step_launch<T, kMaxStepTokens, Walk>(ctx, in, first, from, to, o);
  return kMaxStepTokens;
}

/// Any number of tokens; null states as in retention.cuh.
template <class T>
void retention_step_passes(CudaContext& ctx, const DeviceRetention<T>& in, const float* from,
                           float* to, DeviceRows<T> o) {
  const int most = in.key_dim <= 1024 ? kMaxStepTokens : 1;  // else queries and keys fill a block
  const auto scope = ctx.workspace().scope();
  if (to == nullptr && in.sequences.length > most)  // passes hand the states on in memory
    to = ctx.workspace().template take<float>(in.state_size());
  const int tasks = in.sequences.count * in.heads;
  if (in.sequences.length == 1) {
    choose_walk<StateWalk<16, 4, 4, 2, 4>>(ctx, tasks, in.value_dim, {from, to}, [&](auto walk) {
      retention_step_launch<T, 1, decltype(walk)>(ctx, in, 0, from, to, o);
    });
    return;
  }
  choose_walk<StateWalk<32, 4, 4, 4, 4>>(ctx, tasks, in.value_dim, {from, to}, [&](auto walk) {
    for (std::int64_t t = 0; t < in.sequences.length;)
      t += retention_step_pass<T, decltype(walk)>(ctx, in, t, most, t == 0 ? from : to, to, o);
  });
}

}  // namespace cuda

/// The next tokens of N sequences; states [N,H,Dk,Dv] are updated in place.
template <class T>
void retention_recurrent_step(CudaContext& ctx, const DeviceRetention<T>& in, float* states,
                              DeviceRows<T> o) {
  constexpr const char* kWhere = "retention_recurrent_step";
  cuda::check_problem(in, kWhere);
  RETNET_CUDA_REQUIRE(states != nullptr && o, kWhere, "states or o is null");
  ctx.note("retention_recurrent: step");
  cuda::retention_step_passes(ctx, in, states, states, o);
}

}  // namespace retnet
