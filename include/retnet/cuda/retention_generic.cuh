// SPDX-License-Identifier: MIT
// Retention on any device of compute capability 8.0 or later: any head sizes, any number of tokens,
// heads that share keys, packed sequences, gates. float is exact to its rounding.
//
// Every gradient is a retention of other operands, so that no state is ever stored:
//
//   dQ: queries dO, keys V, values K, state S^T, forwards in time
//   dK: queries V, keys dO, values Q, state dS^T, backwards
//   dV: queries K, keys Q, values dO, state dS, backwards; it ends as the initial state's gradient
//   d log a_n = sum over i >= n of q_i . dq_i - k_i . dk_i, plus <dS_T, S_T>: of each, what decays
#pragma once

#include "retnet/cuda/detail/retention_quadratic.cuh"
#include "retnet/cuda/detail/retention_sweep.cuh"

namespace retnet {

namespace cuda {

/// From the sums of row_dots and end_dots, a block for each sequence and head.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    decay_gradient_kernel(DeviceSequences sequences, int heads, int tiles, const float* q_dots,
                          const float* k_dots, const float* end_dots, DeviceRows<float> dlog) {
  __shared__ double scratch[Threads / 32];
  const int s = static_cast<int>(blockIdx.x) / heads, h = static_cast<int>(blockIdx.x) % heads;
  const std::int64_t first = sequences.first(s), length = sequences.length_of(s);
  double sum = 0.0;
  for (int t = 0; t < tiles; ++t) sum += end_dots[(std::int64_t{s} * heads + h) * tiles + t];
  for (std::int64_t c = 0; c < length; c += Threads) {
    const std::int64_t row = first + length - 1 - (c + threadIdx.x);
    double x = 0.0;
    for (int t = 0; t < tiles && row >= first; ++t) {
      const std::int64_t at = (row * heads + h) * tiles + t;
      x += static_cast<double>(q_dots[at]) - static_cast<double>(k_dots[at]);
    }
    double total;
    const double from_here = sum + block_scan<Threads>(x, scratch, total);
    if (row >= first) dlog.row(row)[h] = static_cast<float>(from_here);
    sum += total;
  }
}

/// The forward sweep; without `o`, of the state alone.
template <class T>
Sweep<T> forward_sweep(const DeviceRetention<T>& in, const float2* prefix, const float* initial,
                       float* final, DeviceRows<T> o) {
  Sweep<T> p;
  if (o) p.q = {in.q, in.key_dim, 1};
  p.k = {in.k, in.key_dim, in.group()};
  p.v = {in.v, in.value_dim, in.group()};
  p.o = {o, in.value_dim, 1};
  p.heads = in.heads;
  p.sequences = in.sequences;
  p.decay = in.decay;
  p.prefix = prefix;
  p.initial = initial;
  p.final = final;
  p.state_row = in.value_dim;
  p.state_col = 1;
  return p;
}

}  // namespace cuda

template <class T>
void retention_generic_forward(CudaContext& ctx, const DeviceRetention<T>& in, const float* initial,
                               float* final, DeviceRows<T> o) {
  const auto scope = ctx.workspace().scope();
  const float2* prefix = cuda::decay_prefix(ctx, in);
  cuda::launch_sweep(ctx, in, cuda::forward_sweep(in, prefix, initial, final, o));
}

/// By the definition, in O(T^2).
template <class T>
void retention_generic_parallel(CudaContext& ctx, const DeviceRetention<T>& in,
                                const float* initial, float* final, DeviceRows<T> o) {
  const auto scope = ctx.workspace().scope();
  const float2* prefix = cuda::decay_prefix(ctx, in);
  cuda::launch_quadratic(ctx, in, cuda::forward_sweep(in, prefix, initial, final, o));
  if (final != nullptr)
    cuda::launch_sweep(ctx, in, cuda::forward_sweep(in, prefix, initial, final, DeviceRows<T>{}));
}

template <class T>
void retention_generic_backward(CudaContext& ctx, const DeviceRetention<T>& in,
                                const float* initial, DeviceRows<const T> d_o,
                                const DeviceRetentionGradient<T>& grad) {
  const auto scope = ctx.workspace().scope();
  const int dk = in.key_dim, dv = in.value_dim, group = in.group();
  const cuda::HeadColumns<const T> q{in.q, dk, 1}, k{in.k, dk, group}, v{in.v, dv, group},
      dout{d_o, dv, 1};
  const auto base = cuda::forward_sweep(in, cuda::decay_prefix(ctx, in), nullptr, nullptr, {});
  const int tiles = cuda::ceil_div(dk, cuda::kTile);  // of dq and of dk
  const std::int64_t dots = in.sequences.rows * in.heads * tiles;
  const std::int64_t ends = std::int64_t{in.sequences.count} * in.heads * tiles;
  float *q_dots = nullptr, *k_dots = nullptr, *end_dots = nullptr;
  if (grad.dlog_decay) {
    q_dots = ctx.workspace().take<float>(dots);
    k_dots = ctx.workspace().take<float>(dots);
    end_dots = ctx.workspace().take<float>(ends);
  }

  auto queries = base;
  queries.q = dout, queries.k = v, queries.v = k;
  queries.o = {grad.dq, dk, 1};
  queries.initial = initial;
  queries.state_row = 1, queries.state_col = dv;
  queries.partner = q, queries.row_dots = q_dots;
  queries.end_state = grad.dstate, queries.end_dots = end_dots;
  cuda::launch_sweep(ctx, in, queries);

  auto keys = base;
  keys.q = v, keys.k = dout, keys.v = q;
  keys.o = {grad.dk, dk, group};
  keys.reversed = true;
  keys.initial = grad.dstate;
  keys.state_row = 1, keys.state_col = dv;
  keys.partner = k, keys.row_dots = k_dots;
  cuda::launch_sweep(ctx, in, keys);

  auto values = base;
  values.q = k, values.k = q, values.v = dout;
  values.o = {grad.dv, dv, group};
  values.reversed = true;
  values.initial = grad.dstate;
  values.final = grad.dstate;
  cuda::launch_sweep(ctx, in, values);

  if (!grad.dlog_decay) return;
  cuda::decay_gradient_kernel<cuda::kScanThreads>
      <<<in.sequences.count * in.heads, cuda::kScanThreads, 0, ctx.stream()>>>(
          in.sequences, in.heads, tiles, q_dots, k_dots, end_dots, grad.dlog_decay);
  RETNET_CUDA_LAUNCHED("decay_gradient_kernel", cuda::shape_of(in));
}

}  // namespace retnet
