// SPDX-License-Identifier: MIT
// How a block passes over its columns of one head's state [Dk,Dv], row-major: `lanes` threads stand
// side by side on a row with `pack` floats each, and groups of them take rows in turn. Rows come by
// asynchronous copies into a ring of shared memory that is the thread's own: no barrier guards it, and
// what is in flight covers the latency whatever else the block does. Also the launch of such kernels,
// and the sum over rows with which they end.
#pragma once

#include <initializer_list>

#include "retnet/cuda/device.cuh"
#include "retnet/cuda/launch.cuh"
#include "retnet/cuda/retention_problem.cuh"

namespace retnet::cuda {

template <int Lanes, int Pack, int Rows, int Stages, int Blocks>
struct StateWalk {
  static constexpr int lanes = Lanes, pack = Pack, rows = Rows, stages = Stages;
  static constexpr int threads = 256, warps = threads / 32, groups = threads / lanes;
  static constexpr int batch = groups * rows;
  static constexpr int columns = lanes * pack;
  static constexpr int blocks = Blocks;  // on a multiprocessor, at least
  static constexpr int ring_bytes = stages * rows * threads * pack * 4;
};

/// A thread's part of the rows [first, first + batch).
template <class Walk>
using StateRows = Vector<float, Walk::pack>[Walk::rows];

/// One access, which the compiler makes several of after inlining where it is not asked for by name.
__device__ inline void store_pack(float* to, const Vector<float, 4>& x) {
  __stwb(reinterpret_cast<float4*>(to), make_float4(x.at[0], x.at[1], x.at[2], x.at[3]));
}
__device__ inline void store_pack(float* to, const Vector<float, 1>& x) { *to = x.at[0]; }

/// Where this thread stands.
template <class Walk>
struct StatePlace {
  int dk, dv, task, sequence, head, tile, column, group;
  std::int64_t offset;  // of its column in row 0, among all states

  __device__ StatePlace(int heads, int key_dim, int value_dim) : dk(key_dim), dv(value_dim) {
    const int tiles = ceil_div(dv, Walk::columns);
    task = static_cast<int>(blockIdx.x) / tiles;
    tile = static_cast<int>(blockIdx.x) % tiles;
    sequence = task / heads;
    head = task % heads;
    column = tile * Walk::columns + static_cast<int>(threadIdx.x) % Walk::lanes * Walk::pack;
    group = static_cast<int>(threadIdx.x) / Walk::lanes;
    offset = std::int64_t{task} * dk * dv + column;
  }

  /// Row i of the batch that begins at `first`: a thread's rows are adjacent.
  __device__ int row(int first, int i) const { return first + group * Walk::rows + i; }
  __device__ bool inside(int row) const { return row < dk && column < dv; }

  __device__ void store(float* states, int first, const StateRows<Walk>& s) const {
    float* at = states + offset + std::int64_t{row(first, 0)} * dv;
#pragma unroll
    for (int i = 0; i < Walk::rows; ++i, at += dv)
      if (states != nullptr && inside(row(first, i))) store_pack(at, s[i]);
  }
  /// This thread's columns of a row [Dv], which may begin at any address.
  template <class T>
  __device__ void load_columns(const T* values, float (&v)[Walk::pack]) const {
#pragma unroll
    for (int c = 0; c < Walk::pack; ++c) v[c] = column < dv ? to_float(values[column + c]) : 0.f;
  }
};

/// The rows of a head's state in turn. Of the thread that calls, so a take needs no barrier.
template <class Walk>
class StateRing {
 public:
  /// Requests the first batches. `memory`: ring_bytes, aligned to 16; states may be null: zeros.
  __device__ StateRing(const float* states, const StatePlace<Walk>& place, void* memory)
      : from_(states), place_(place), slots_(reinterpret_cast<Slot*>(memory) + threadIdx.x) {
#pragma unroll
    for (int stage = 0; stage < Walk::stages; ++stage) request(stage * Walk::batch, stage);
  }
  /// For the next batch, and for copies of this thread from before the ring was made.
  __device__ void wait() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(Walk::stages - 1) : "memory");
  }
  /// The next batch.
  __device__ void take(StateRows<Walk>& s) const {
    wait();
    const Slot* slot = slots_ + stage_ * Walk::rows * Walk::threads;
#pragma unroll
    for (int i = 0; i < Walk::rows; ++i)
      s[i] = load_vector<float, Walk::pack>(slot[i * Walk::threads].at);
  }
  /// Called after take, when what it gave has been read.
  __device__ void advance(int first) {
    request(first + Walk::stages * Walk::batch, stage_);
    stage_ = stage_ + 1 == Walk::stages ? 0 : stage_ + 1;
  }

 private:
  using Slot = Vector<float, Walk::pack>;

  __device__ void request(int first, int stage) {
    const float* at = from_ + place_.offset + std::int64_t{place_.row(first, 0)} * place_.dv;
    const Slot* slot = slots_ + stage * Walk::rows * Walk::threads;
#pragma unroll
    for (int i = 0; i < Walk::rows; ++i, at += place_.dv) {
      const bool there = from_ != nullptr && place_.inside(place_.row(first, i));
      const auto to = static_cast<unsigned>(__cvta_generic_to_shared(slot + i * Walk::threads));
      copy(to, there ? at : from_, there ? sizeof(Slot) : 0);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  /// `bytes` of a slot; the rest becomes zero.
  __device__ static void copy(unsigned to, const float* from, unsigned bytes) {
    if constexpr (Walk::pack == 4)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                   : "memory");
    else
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes)
                   : "memory");
  }

  const float* from_;
  const StatePlace<Walk>& place_;
  Slot* slots_;
  int stage_ = 0;
};

/// Adds up what the groups of a block have for each of its columns and calls write(t, column, sum)
/// once for each. `shared`: warps * Count * columns floats, which nobody else uses.
template <class Walk, int Count, class Write>
__device__ void sum_over_rows(float (&sum)[Count][Walk::pack], const StatePlace<Walk>& place,
                              float* shared, Write&& write) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int t = 0; t < Count; ++t) {
#pragma unroll
    for (int c = 0; c < Walk::pack; ++c) {
#pragma unroll
      for (int other = 16; other >= Walk::lanes; other /= 2)
        sum[t][c] += __shfl_xor_sync(0xFFFFFFFF, sum[t][c], other);
      if (lane < Walk::lanes)
        shared[(warp * Count + t) * Walk::columns + lane * Walk::pack + c] = sum[t][c];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < Count * Walk::columns; i += Walk::threads) {
    const int column = place.tile * Walk::columns + i % Walk::columns;
    float x = 0.f;
#pragma unroll
    for (int w = 0; w < Walk::warps; ++w) x += shared[w * Count * Walk::columns + i];
    if (column < place.dv) write(i / Walk::columns, column, x);
  }
}

/// log a_n of a head.
template <class T>
__device__ float log_decay_of(const DeviceRetention<T>& in, std::int64_t row, int head) {
  constexpr float kLn2 = 0.693147180559945f;
  return in.log_gate ? in.log_gate.row(row)[head] : in.decay.log2_gamma[head] * kLn2;
}
/// a_n of a head. Near 1 by expm1, so that 1 - 2^-(5+h) comes out exact where float has it.
template <class T>
__device__ float decay_of(const DeviceRetention<T>& in, std::int64_t row, int head) {
  const float x = log_decay_of(in, row, head);
  return x > -0.5f ? 1.f + expm1f(x) : expf(x);
}

/// `tasks` heads' states of Dv columns, one block for each Walk::columns of them. `shared`: bytes
/// beside the ring, which comes first.
template <class Walk, class... Parameters, class... Arguments>
void launch_walk(CudaContext& ctx, void (*kernel)(Parameters...), int tasks, int dv,
                 std::int64_t shared, Arguments&&... arguments) {
  constexpr int kWithoutAsking = 48 * 1024;
  shared += Walk::ring_bytes;
  if (shared > kWithoutAsking) raise_shared_memory(ctx, kernel);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(tasks) * ceil_div(dv, Walk::columns));
  config.blockDim = dim3(Walk::threads);
  config.dynamicSmemBytes = static_cast<std::size_t>(shared);
  config.stream = ctx.stream();
  config.attrs = &early;
  config.numAttrs = ctx.properties().major >= 9 ? 1 : 0;
  RETNET_CUDA(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...),
              concat(tasks, " states of ", dv, " columns"));
}

/// Calls run() with Wide, with a walk of more blocks where there are few states, or with one of single
/// floats where rows are no multiple of 16 bytes.
template <class Wide, class Run>
void choose_walk(const CudaContext& ctx, int tasks, int dv,
                 std::initializer_list<const float*> states, Run&& run) {
  bool aligned = dv % 4 == 0;
  for (const float* s : states) aligned = aligned && reinterpret_cast<std::uintptr_t>(s) % 16 == 0;
  if (!aligned) {
    run(StateWalk<32, 1, 4, 4, 1>{});
  } else if (std::int64_t{tasks} * ceil_div(dv, 128) < ctx.multiprocessors() / 2) {
    run(StateWalk<8, 4, 4, 2, 4>{});
  } else {
    run(Wide{});
  }
}

}  // namespace retnet::cuda
