// SPDX-License-Identifier: MIT
// The backward pass of retention on Hopper: every gradient a pass of its own over the sequence, all
// in one launch, no state in device memory (detail/sm90_backward_pass.cuh has the algebra).
#pragma once

#include "retnet/cuda/detail/sm90_backward_pass.cuh"
#include "retnet/cuda/detail/sm90_serves.cuh"

namespace retnet::cuda {

namespace sm90_backward {

/// Calls launch.template operator()<Dk, Dv>() for the head size of `in`; false where it has no plan.
template <class Launch>
bool with_head_size(int key_dim, int value_dim, Launch launch) {
  const auto is = [&](int dk, int dv) { return key_dim == dk && value_dim == dv; };
  if (is(64, 64)) return launch.template operator()<64, 64>(), true;
  if (is(64, 128)) return launch.template operator()<64, 128>(), true;
  if (is(128, 128)) return launch.template operator()<128, 128>(), true;
  if (is(128, 256)) return launch.template operator()<128, 256>(), true;
  if (is(256, 256)) return launch.template operator()<256, 256>(), true;
  if (is(256, 512)) return launch.template operator()<256, 512>(), true;
  return false;
}

template <class T>
CUtensorMap tiles_of(DeviceRows<T> rows, std::int64_t count, int columns) {
  return tensor_map(
      rows.data, {64, static_cast<std::uint64_t>(count), static_cast<std::uint64_t>(columns / 64)},
      {static_cast<std::uint64_t>(rows.stride) * 2, 128}, {64, kBoxRows, 1});
}

/// Blocks of one multiprocessor each, clusters of kCluster.
template <class Kernel, class Problem>
void launch(CudaContext& ctx, Kernel kernel, std::int64_t blocks, int cluster, int bytes,
            const Problem& problem, const std::string& shape) {
  RETNET_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<std::size_t>(bytes);
  config.stream = ctx.stream();
  config.attrs = &attribute;
  config.numAttrs = 1;
  RETNET_CUDA(cudaLaunchKernelEx(&config, kernel, problem), shape);
}

/// The segments of a sequence that take the least time: rounds of blocks times the chunks of each,
/// and for the states at the borders a third of that, and three launches instead of one.
inline int best_segments(std::int64_t heads, std::int64_t chunks, int blocks, int state_blocks,
                         int multiprocessors) {
  constexpr int kMost = 32, kLeastChunks = 4, kLaunches = 6;
  const auto rounds = [&](std::int64_t n) { return ceil_div<std::int64_t>(n, multiprocessors); };
  int best = 1;
  auto least = static_cast<double>(rounds(heads * blocks) * chunks);
  for (int n = 2; n <= kMost && chunks / n >= kLeastChunks; ++n) {
    const std::int64_t each = ceil_div<std::int64_t>(chunks, n);
    const double time = static_cast<double>(rounds(heads * blocks * n) * each) +
                        static_cast<double>(rounds(heads * state_blocks * (n - 1)) * each) / 3 +
                        kLaunches;
    if (time < 0.9 * least) best = n, least = time / 0.9;
  }
  return best;
}

template <class T, int kDk, int kDv>
void run(CudaContext& ctx, const DeviceRetention<T>& in, Problem<T> problem) {
  using P = Plan<kDk, kDv>;
  constexpr int kStateBlocks = 2 * P::kKeySlices;
  const std::int64_t heads = std::int64_t{in.sequences.count} * in.heads;
  const std::int64_t chunks = ceil_div<std::int64_t>(in.sequences.length, kChunk);
  const int segments =
      best_segments(heads, chunks, P::kBlocks, kStateBlocks, ctx.multiprocessors());
  problem.segment_chunks = static_cast<int>(ceil_div<std::int64_t>(chunks, segments));
  problem.segments = static_cast<int>(ceil_div<std::int64_t>(chunks, problem.segment_chunks));
  const int borders = problem.segments - 1;
  const std::string shape = shape_of(in);
  if (borders > 0) {
    for (float*& states : problem.borders)
      states = ctx.workspace().take<float>(in.state_size() * borders);
    launch(ctx, border_kernel<T, kDk, kDv>, heads * borders * kStateBlocks, P::kCluster, P::kBytes,
           problem, shape);
    constexpr int kElements = 256;
    join_borders<T><<<dim3(static_cast<unsigned>(in.state_size() / kElements), 2), kElements, 0,
                      ctx.stream()>>>(problem);
    RETNET_CUDA_LAUNCHED("join_borders", shape);
  }
  launch(ctx, backward_kernel<T, kDk, kDv>, heads * problem.segments * P::kBlocks, P::kCluster,
         P::kBytes, problem, shape);
}

}  // namespace sm90_backward

/// Fixed decay, a key head for every query head, head sizes that have a plan, and no gradient of the
/// decay.
template <class T>
bool sm90_backward_serves(const CudaContext& ctx, const DeviceRetention<T>& in,
                          DeviceRows<const T> d_o, const DeviceRetentionGradient<T>& grad) {
  if constexpr (sizeof(T) != 2) {
    return false;
  } else {
    return sm90_context_serves(ctx) && !in.log_gate && !grad.dlog_decay &&
           in.heads == in.kv_heads && sm90_rows_serve(in.q) && sm90_rows_serve(in.k) &&
           sm90_rows_serve(in.v) && sm90_rows_serve(d_o) && sm90_rows_serve(grad.dq) &&
           sm90_rows_serve(grad.dk) && sm90_rows_serve(grad.dv) &&
           in.sequences.rows < (std::int64_t{1} << 31) &&
           sm90_backward::with_head_size(in.key_dim, in.value_dim, [&]<int, int>() {});
  }
}

template <class T>
void retention_sm90_backward(CudaContext& ctx, const DeviceRetention<T>& in, const float* initial,
                             DeviceRows<const T> d_o, const DeviceRetentionGradient<T>& grad) {
  if constexpr (sizeof(T) == 2) {
    using sm90_backward::tiles_of;
    const auto scope = ctx.workspace().scope();
    const float* dstate = grad.dstate;
    if (dstate != nullptr) {  // read by the blocks of dK and dV, written by those of dK
      float* copy = ctx.workspace().take<float>(in.state_size());
      RETNET_CUDA(cudaMemcpyAsync(copy, dstate, in.state_size() * sizeof(float),
                                  cudaMemcpyDeviceToDevice, ctx.stream()));
      dstate = copy;
    }
    const std::int64_t rows = in.sequences.rows;
    const int keys = in.heads * in.key_dim, values = in.heads * in.value_dim;
    const sm90_backward::Problem<T> problem{
        .operand = {tiles_of(in.q, rows, keys), tiles_of(in.k, rows, keys),
                    tiles_of(in.v, rows, values), tiles_of(d_o, rows, values)},
        .result = {tiles_of(grad.dq, rows, keys), tiles_of(grad.dk, rows, keys),
                   tiles_of(grad.dv, rows, values)},
        .rows = {grad.dq, grad.dk, grad.dv},
        .initial = initial,
        .dstate = dstate,
        .dinitial = grad.dstate,
        .decay = in.decay,
        .sequences = in.sequences,
        .segments = 1,
        .segment_chunks = 0,
        .borders = {},
        .heads = in.heads,
        .key_dim = in.key_dim,
        .value_dim = in.value_dim};
    sm90_backward::with_head_size(in.key_dim, in.value_dim, [&]<int kDk, int kDv>() {
      sm90_backward::run<T, kDk, kDv>(ctx, in, problem);
    });
  }
}

}  // namespace retnet::cuda
