// SPDX-License-Identifier: MIT
// Retention on a device, all forms; see retention_problem.cuh for what they are given.
//
//   retention_chunkwise            O(T), for training and prompts
//   retention_parallel             O(T^2), the definition
//   retention_recurrent            token by token, for generation
//   retention_chunkwise_backward   O(T), nothing stored between forward and backward
//
// States are float [N,H,Dk,Dv]. A null initial state is zero, a null final state is dropped; both may
// be the same memory. Beside that no output may overlap an input or another output. Nothing waits for
// the device; scratch memory comes from the context. All throw std::invalid_argument for sizes, strides,
// decays and null pointers that retention_problem.cuh does not allow, and CudaError where a launch fails;
// what a kernel finds out later is thrown by a later call.
//
// The same call gives the same bits every time on one device. Results for other numbers of sequences,
// heads or tokens, or of another device, are equal to rounding: where heads are few, long sequences of
// fixed decay are cut into segments, as many as the device has room for. What a segment leaves to the
// next is summed without what has decayed by 2^-26: beside an end of a sequence that is zero (padding,
// say) its state then misses numbers that are as much smaller than those before it.
#pragma once

#include "retnet/cuda/retention_generic.cuh"
#include "retnet/cuda/retention_sm90_backward.cuh"
#include "retnet/cuda/retention_sm90_forward.cuh"
#include "retnet/cuda/retention_step.cuh"

namespace retnet {

namespace cuda {

/// What the ops ask beyond check_problem.
template <class T, class U>
void check_rows(const DeviceRetention<T>& in, DeviceRows<U> rows, std::int64_t width,
                const char* name, const char* where) {
  RETNET_CUDA_REQUIRE(rows, where, name, " is null, expected device memory");
  RETNET_CUDA_REQUIRE(rows.stride >= width, where, shape_of(in), ", rows of ", name, " are ",
                      rows.stride, " apart, expected at least ", width);
}

template <class T, class U>
void check_op(const DeviceRetention<T>& in, DeviceRows<U> o, const char* name, const char* where) {
  check_problem(in, where);
  check_rows(in, o, std::int64_t{in.heads} * in.value_dim, name, where);
  if (in.log_gate) check_rows(in, in.log_gate, in.heads, "log_gate", where);
}

}  // namespace cuda

/// o [R,H*Dv] and the final state, in chunks: 16-bit types on Hopper by wgmma where sizes and alignment
/// allow (see sm90_forward_serves), else by portable tiles.
template <class T>
void retention_chunkwise(CudaContext& ctx, const DeviceRetention<T>& in, const float* initial,
                         float* final, DeviceRows<T> o) {
  cuda::check_op(in, o, "o", "retention_chunkwise");
  ctx.make_current();
  if (cuda::sm90_forward_serves(ctx, in, o)) {
    ctx.note("retention_chunkwise: Hopper");
    return cuda::retention_sm90_forward(ctx, in, initial, final, o);
  }
  ctx.note("retention_chunkwise: portable tiles");
  retention_generic_forward(ctx, in, initial, final, o);
}

/// The same by o = (Q K^T . D) V, with the initial state's part.
template <class T>
void retention_parallel(CudaContext& ctx, const DeviceRetention<T>& in, const float* initial,
                        float* final, DeviceRows<T> o) {
  cuda::check_op(in, o, "o", "retention_parallel");
  ctx.note("retention_parallel: portable tiles");
  retention_generic_parallel(ctx, in, initial, final, o);
}

/// The same token by token, up to eight of them in one pass over the states. For any number of tokens;
/// for the next token of every sequence, retention_recurrent_step.
template <class T>
void retention_recurrent(CudaContext& ctx, const DeviceRetention<T>& in, const float* initial,
                         float* final, DeviceRows<T> o) {
  cuda::check_op(in, o, "o", "retention_recurrent");
  ctx.note("retention_recurrent: step");
  const auto scope = ctx.workspace().scope();
  if (final == nullptr && in.sequences.length > cuda::kMaxStepTokens)  // passes go through memory
    final = ctx.workspace().take<float>(in.state_size());
  cuda::retention_step_passes(ctx, in, initial, final, o);
}

/// Gradients of <d_o, o> + <grad.dstate, final>, `initial` being what forward was given. d_o [R,H*Dv];
/// dq [R,H*Dk], dk [R,Hk*Dk] and dv [R,Hk*Dv] are assigned, and dlog_decay [R,H] where it is given.
template <class T>
void retention_chunkwise_backward(CudaContext& ctx, const DeviceRetention<T>& in,
                                  const float* initial, DeviceRows<const T> d_o,
                                  const DeviceRetentionGradient<T>& grad) {
  constexpr const char* kWhere = "retention_chunkwise_backward";
  cuda::check_op(in, d_o, "d_o", kWhere);
  ctx.make_current();
  cuda::check_rows(in, grad.dq, std::int64_t{in.heads} * in.key_dim, "dq", kWhere);
  cuda::check_rows(in, grad.dk, std::int64_t{in.kv_heads} * in.key_dim, "dk", kWhere);
  cuda::check_rows(in, grad.dv, std::int64_t{in.kv_heads} * in.value_dim, "dv", kWhere);
  if (grad.dlog_decay) cuda::check_rows(in, grad.dlog_decay, in.heads, "dlog_decay", kWhere);
  if (cuda::sm90_backward_serves(ctx, in, d_o, grad)) {
    ctx.note("retention_chunkwise_backward: Hopper");
    return cuda::retention_sm90_backward(ctx, in, initial, d_o, grad);
  }
  ctx.note("retention_chunkwise_backward: portable tiles");
  retention_generic_backward(ctx, in, initial, d_o, grad);
}

}  // namespace retnet
