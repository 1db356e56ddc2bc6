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
#include "retnet/ops/detail/retention_fused.hpp"
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

// Of the gradients that are summed tile by tile.
inline constexpr Index kGradientChunk = 64;

/// The decays of one head, of tokens in order or backwards in time.
template <class S>
DecaySteps<S> decay_steps(const RetentionInput<S>& in, Segment segment, Index h, bool reversed) {
  if (in.decay.gated())
    return {0.0, in.decay.log_gate.block(segment.first_row, h, segment.length, 1), reversed};
  return {in.decay.log_gamma[static_cast<std::size_t>(h)], {}, reversed};
}

/// The gradients of one head, each a retention of other operands (detail/retention_fused.hpp).
template <class S>
void fused_head_backward(const RetentionInput<S>& in, Index s, Index h, const S* initial,
                         Window<const S> d_o, const RetentionGradient<S>& grad,
                         Workspace& scratch) {
  const Segment segment = (*in.sequences)[s];
  const Index dk = in.key_dim(), dv = in.value_dim(), kv = h / in.group();
  const Index at = (s * in.heads + h) * dk * dv;
  const auto part = [&](auto window, Index head, Index width) {
    return window.row_block(segment.first_row, segment.length).head(head, width);
  };
  const auto q = in.query(segment, h), k = in.key(segment, h), v = in.value(segment, h);
  const auto dout = part(d_o, h, dv);
  const auto run = [&](bool reversed, const auto& a, const auto& b, const auto& c, Window<S> out,
                       bool add, StateRef<S> state) {
    const auto scope = scratch.scope();
    FusedRetention<S>({.q = token_rows(a, reversed),
                       .k = token_rows(b, reversed),
                       .v = token_rows(c, reversed),
                       .o = token_rows(out, reversed),
                       .add = add,
                       .length = segment.length,
                       .key_dim = a.cols,
                       .value_dim = c.cols,
                       .decay = decay_steps(in, segment, h, reversed),
                       .state = state},
                      scratch)
        .run();
  };
  const bool add = h % in.group() != 0;  // the first query head of a group assigns
  S* dstate = grad.dstate ? grad.dstate + at : nullptr;
  run(false, dout, v, k, part(grad.dq, h, dk), false,
      {initial ? initial + at : nullptr, nullptr, 1, dv});
  run(true, v, dout, q, part(grad.dk, kv, dk), add, {dstate, nullptr, 1, dv});
  run(true, k, q, dout, part(grad.dv, kv, dv), add, {dstate, dstate, dv, 1});
}

}  // namespace detail

/// On kernels the chunk is the kernel's own (detail/retention_fused.hpp), whatever the caller's: the
/// bits are those of the function, not of a way to cut it.
template <Vectorized S>
void retention_chunkwise(Cpu& ctx, const RetentionInput<S>& in, Index, S* state, Window<S> o) {
  ctx.note("retention_chunkwise: fused blocks");
  const Index dk = in.key_dim(), dv = in.value_dim();
  ctx.parallel_for(in.sequences->count() * in.heads, [&](Index task, Workspace& scratch) {
    const Index h = task % in.heads;
    const Segment segment = (*in.sequences)[task / in.heads];
    S* st = state ? state + task * dk * dv : nullptr;
    detail::FusedRetention<S>(
        {.q = detail::token_rows(in.query(segment, h), false),
         .k = detail::token_rows(in.key(segment, h), false),
         .v = detail::token_rows(in.value(segment, h), false),
         .o = detail::token_rows(o.row_block(segment.first_row, segment.length).head(h, dv), false),
         .length = segment.length,
         .key_dim = dk,
         .value_dim = dv,
         .decay = detail::decay_steps(in, segment, h, false),
         .state = {st, st, dv, 1}},
        scratch)
        .run();
  });
}

/// The gradients of the same function as retention_parallel_backward, in O(T) and without stored
/// states. `state` is the initial state that forward was given.
template <Vectorized S>
void retention_chunkwise_backward(Cpu& ctx, const RetentionInput<S>& in, Index, const S* state,
                                  Window<const S> d_o,
                                  const RetentionGradient<S>& grad) {
  const bool tiles = !grad.dlog_decay.empty();
  ctx.note(tiles ? "retention_chunkwise_backward: packed tiles"
                 : "retention_chunkwise_backward: fused blocks");
  ctx.parallel_for(in.sequences->count() * in.kv_heads, [&](Index task, Workspace& scratch) {
    const Index s = task / in.kv_heads, kv = task % in.kv_heads;
    for (Index h = kv * in.group(); h < (kv + 1) * in.group(); ++h) {  // one group adds in order
      const auto scope = scratch.scope();
      if (tiles) {
        detail::chunkwise_head_backward(in, s, h, detail::kGradientChunk, state, d_o, grad, scratch);
      } else {
        detail::fused_head_backward(in, s, h, state, d_o, grad, scratch);
      }
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

/// On kernels a whole sequence is blocks as well, with no T x T work or memory: the definition in
/// O(T^2) is that of Reference.
template <Vectorized S>
void retention_parallel(Cpu& ctx, const RetentionInput<S>& in, S* state, Window<S> o) {
  retention_chunkwise(ctx, in, detail::kGradientChunk, state, o);
}
template <Vectorized S>
void retention_parallel_backward(Cpu& ctx, const RetentionInput<S>& in, const S* state,
                                 Window<const S> d_o, const RetentionGradient<S>& grad) {
  retention_chunkwise_backward(ctx, in, detail::kGradientChunk, state, d_o, grad);
}

}  // namespace retnet::inline RETNET_ABI
