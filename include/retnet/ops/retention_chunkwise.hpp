// SPDX-License-Identifier: MIT
// The chunkwise form (Sun et al. 2023, Eq. 7): quadratic inside a chunk, recurrent between chunks.
// With G_i the log decay from the chunk's start to after its row i, and L its length:
//
//   O   = (Q K^T * D) V + (e^{G_i} Q) S              inner + cross
//   S' = e^{G_L} S + (e^{G_L - G_j} K)^T V           a ragged last chunk advances by its own length
//
// Backward in two passes, so that no state of a chunk is ever stored. With W = D and P = Q K^T:
//   forwards,  S:   dQ = ((dO V^T) * W) K + e^{G_i} (dO S^T)
//   backwards, dS:  dK = ((dO V^T) * W)^T Q + e^{G_L - G_j} (V dS^T)
//                   dV = (P * W)^T dO       + e^{G_L - G_j} (K dS)
//                   dS' = e^{G_L} dS + (e^{G_i} Q)^T dO
//   decay:          dL/dG_i = q_i . dq_i - k_i . dk_i, plus <dS_T, S_T> at the last row; summed
//                   without what does not decay: the pairs (i, i), the last row in S_T
#pragma once

#include "retnet/ops/detail/retention_chunk.hpp"
#include "retnet/ops/retention.hpp"
#include "retnet/ops/retention_parallel.hpp"

namespace retnet::inline RETNET_ABI {

/// Plain loops over the equation, for the oracle and for scalars without kernels.
template <class S>
void retention_chunkwise(Reference& ctx, const RetentionInput<S>& in, Index chunk, S* state,
                         Window<S> o) {
  ctx.note("retention_chunkwise: reference");
  const auto scope = ctx.workspace().scope();
  if (state == nullptr) state = detail::zero_state(ctx.workspace(), in);
  // A chunk from a given state is the parallel form of its rows, one sequence at a time.
  for (Index s = 0; s < in.sequences->count(); ++s) {
    const Segment segment = (*in.sequences)[s];
    for (Index c = 0; c < segment.length; c += chunk) {
      const Index first = segment.first_row + c, length = std::min(chunk, segment.length - c);
      const Sequences one = Sequences::dense(1, length);
      RetentionInput<S> part = in;
      part.q = in.q.row_block(first, length);
      part.k = in.k.row_block(first, length);
      part.v = in.v.row_block(first, length);
      if (in.decay.gated()) part.decay.log_gate = in.decay.log_gate.row_block(first, length);
      part.sequences = &one;
      retention_parallel(ctx, part, state + s * in.heads * in.state_size(),
                         o.row_block(first, length));
    }
  }
}

namespace detail {

template <class S>
void chunkwise_head_backward(const RetentionInput<S>& in, Index s, Index h, Index chunk,
                             const S* initial, Window<const S> d_o,
                             const RetentionGradient<S>& grad, Workspace& scratch) {
  const Segment segment = (*in.sequences)[s];
  const Index dk = in.key_dim(), dv = in.value_dim(), size = dk * dv, kv = h / in.group();
  const Index at = (s * in.heads + h) * size;
  const ChunkedHead<S> head(in, segment, h, chunk, scratch);
  const Window<S> state(scratch.take<S>(size), dk, dv), dstate(scratch.take<S>(size), dk, dv);
  const Window<S> dkey(scratch.take<S>(std::min(chunk, segment.length) * dk), 0, dk);
  const Window<S> dvalue(scratch.take<S>(std::min(chunk, segment.length) * dv), 0, dv);
  const auto rows = [](auto window, Index c_rows) {
    window.rows = c_rows;
    return window;
  };
  initial ? std::copy_n(initial + at, size, state.data) : std::fill_n(state.data, size, S(0));
  grad.dstate ? std::copy_n(grad.dstate + at, size, dstate.data)
              : std::fill_n(dstate.data, size, S(0));

  const auto dlog = [&](Index c) {  // [L,1] of chunk c
    return grad.dlog_decay.empty() ? Window<S>()
                                   : grad.dlog_decay.block(head.first(c), h, head.length(c), 1);
  };

  for (Index c = 0; c < head.count(); ++c) {
    const auto block = head[c];
    const auto dq = grad.dq.row_block(head.first(c), block.length()).head(h, dk);
    block.backward_queries(initial == nullptr && c == 0, state,
                           d_o.row_block(head.first(c), block.length()).head(h, dv), dq, dlog(c));
    if (c + 1 < head.count()) {
      block.advance(state);
    } else if (!grad.dlog_decay.empty()) {  // e^{G_L} <dS_T, S>, S the state before the last chunk
      dlog(c)(block.length() - 1, 0) +=
          S(std::exp(block.total())) * simd::dot(state.data, dstate.data, size);
    }
  }

  for (Index c = head.count() - 1; c >= 0; --c) {
    const auto block = head[c];
    const Index n = block.length();
    const auto dkc = rows(dkey, n), dvc = rows(dvalue, n);
    block.backward_keys_values(dstate, d_o.row_block(head.first(c), n).head(h, dv), dkc, dvc,
                               dlog(c), c + 1 == head.count());
    for (Index i = 0; i < n; ++i) {
      S* dk_row = grad.dk.row(head.first(c) + i) + kv * dk;
      S* dv_row = grad.dv.row(head.first(c) + i) + kv * dv;
      if (h % in.group() == 0) {  // the first query head of the group assigns, the others add
        std::copy_n(dkc.row(i), dk, dk_row);
        std::copy_n(dvc.row(i), dv, dv_row);
      } else {
        simd::add(dkc.row(i), dk_row, dk);
        simd::add(dvc.row(i), dv_row, dv);
      }
    }
  }
  if (grad.dstate) std::copy_n(dstate.data, size, grad.dstate + at);
  if (!grad.dlog_decay.empty())
    reverse_cumulative(grad.dlog_decay, segment.first_row, segment.length, h);
}

}  // namespace detail

template <Vectorized S>
void retention_chunkwise(Cpu& ctx, const RetentionInput<S>& in, Index chunk, S* state,
                         Window<S> o) {
  ctx.note("retention_chunkwise: packed tiles");
  const Index dk = in.key_dim(), dv = in.value_dim();
  ctx.parallel_for(in.sequences->count() * in.heads, [&](Index task, Workspace& scratch) {
    const Index s = task / in.heads, h = task % in.heads;
    const detail::ChunkedHead<S> head(in, (*in.sequences)[s], h, chunk, scratch);
    Window<S> st(state ? state + task * dk * dv : nullptr, dk, dv);
    if (!state && head.count() > 1) {
      st.data = scratch.take<S>(dk * dv);
      std::fill_n(st.data, dk * dv, S(0));
    }
    for (Index c = 0; c < head.count(); ++c) {
      const auto block = head[c];
      block.forward(!state && c == 0, st, o.row_block(head.first(c), block.length()).head(h, dv));
      if (state || c + 1 < head.count()) block.advance(st);
    }
  });
}

/// The gradients of the same function as retention_parallel_backward, in O(T) and without stored
/// states. `state` is the initial state that forward was given.
template <Vectorized S>
void retention_chunkwise_backward(Cpu& ctx, const RetentionInput<S>& in, Index chunk,
                                  const S* state, Window<const S> d_o,
                                  const RetentionGradient<S>& grad) {
  ctx.note("retention_chunkwise_backward: packed tiles");
  ctx.parallel_for(in.sequences->count() * in.kv_heads, [&](Index task, Workspace& scratch) {
    const Index s = task / in.kv_heads, kv = task % in.kv_heads;
    for (Index h = kv * in.group(); h < (kv + 1) * in.group(); ++h) {  // one group adds in order
      const auto scope = scratch.scope();
      detail::chunkwise_head_backward(in, s, h, chunk, state, d_o, grad, scratch);
    }
  });
}

/// Without kernels the gradient of either form is the definition's.
template <class S>
void retention_chunkwise_backward(Reference& ctx, const RetentionInput<S>& in, Index,
                                  const S* state, Window<const S> d_o,
                                  const RetentionGradient<S>& grad) {
  retention_parallel_backward(ctx, in, state, d_o, grad);
}

/// On kernels the parallel form is one chunk of causal tiles: O(T^2) work, no T x T memory.
template <Vectorized S>
void retention_parallel(Cpu& ctx, const RetentionInput<S>& in, S* state, Window<S> o) {
  retention_chunkwise(ctx, in, in.sequences->longest(), state, o);
}
template <Vectorized S>
void retention_parallel_backward(Cpu& ctx, const RetentionInput<S>& in, const S* state,
                                 Window<const S> d_o, const RetentionGradient<S>& grad) {
  retention_chunkwise_backward(ctx, in, in.sequences->longest(), state, d_o, grad);
}

}  // namespace retnet::inline RETNET_ABI
