// SPDX-License-Identifier: MIT
// The recurrent form: one pass over the state for each token (Sun et al. 2023, Eq. 6).
//
//   S <- a S + k^T v,   o = q S,   both in the same loop over the rows of S
#pragma once

#include "retnet/ops/retention.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

template <class S>
S step_decay(const Decay<S>& decay, Index row, Index h) {
  if (decay.gated()) return exp_of<S>(LogSum<S>(decay.log_gate(row, h)));
  return S(std::exp(decay.log_gamma[static_cast<std::size_t>(h)]));
}

/// One token on R rows of the state of a head. Meanwhile the R rows after them are fetched in the
/// order of memory: R rows are streams too short for the hardware to follow.
template <int R, class S>
void recurrent_rows(S decay, Index dv, const S* q, const S* k, const S* v, S* s, const S* next,
                    S* o) {
  S qs[R], ks[R];  // copies, since the state may lie anywhere
  std::copy_n(q, R, qs);
  std::copy_n(k, R, ks);
  simd::for_each_pack<S>(dv, [&](auto p, Index j) {
    using P = decltype(p);
    const P a = P::broadcast(decay), vj = P::load(v + j);
    P out = P::load(o + j);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      __builtin_prefetch(next + R * j + i * P::size, 1);
      const P row = fma(a, P::load(s + i * dv + j), P::broadcast(ks[i]) * vj);
      row.store(s + i * dv + j);
      out = fma(P::broadcast(qs[i]), row, out);
    }
    out.store(o + j);
  });
}

/// One token of one head; `after` is the state that the next head begins with.
template <class S>
void recurrent_step(S decay, Index dk, Index dv, const S* q, const S* k, const S* v, S* state,
                    const S* after, S* o) {
  constexpr int kR = 4;  // rows at a time: o is read and written once for them
  std::fill_n(o, dv, S(0));
  Index d = 0;
  for (; d + kR <= dk; d += kR) {
    S* s = state + d * dv;
    recurrent_rows<kR>(decay, dv, q + d, k + d, v, s, d + 2 * kR <= dk ? s + kR * dv : after, o);
  }
  for (; d < dk; ++d) recurrent_rows<1>(decay, dv, q + d, k + d, v, state + d * dv, after, o);
}

}  // namespace detail

template <class S>
void retention_recurrent(Reference& ctx, const RetentionInput<S>& in, S* state, Window<S> o) {
  ctx.note("retention_recurrent: reference");
  const auto scope = ctx.workspace().scope();
  if (state == nullptr) state = detail::zero_state(ctx.workspace(), in);
  const Index dk = in.key_dim(), dv = in.value_dim();
  for (Index s = 0; s < in.sequences->count(); ++s) {
    const Segment segment = (*in.sequences)[s];
    for (Index h = 0; h < in.heads; ++h) {
      const auto q = in.query(segment, h), k = in.key(segment, h), v = in.value(segment, h);
      const auto out = o.row_block(segment.first_row, segment.length).head(h, dv);
      const Window<S> st(state + (s * in.heads + h) * dk * dv, dk, dv);
      for (Index n = 0; n < segment.length; ++n) {
        const S a = detail::step_decay(in.decay, segment.first_row + n, h);
        for (Index j = 0; j < dv; ++j) {
          S sum(0);
          for (Index d = 0; d < dk; ++d) {
            st(d, j) = S(a * st(d, j) + k(n, d) * v(n, j));
            sum = S(sum + q(n, d) * st(d, j));
          }
          out(n, j) = sum;
        }
      }
    }
  }
}

template <Vectorized S>
void retention_recurrent(Cpu& ctx, const RetentionInput<S>& in, S* state, Window<S> o) {
  ctx.note("retention_recurrent: fused");
  const auto scope = ctx.workspace().scope();
  if (state == nullptr) state = detail::zero_state(ctx.workspace(), in);
  const Index dk = in.key_dim(), dv = in.value_dim(), tasks = in.sequences->count() * in.heads;
  const auto head = [&](Index task, Workspace&) {
    const Index s = task / in.heads, h = task % in.heads;
    const Segment segment = (*in.sequences)[s];
    const auto q = in.query(segment, h), k = in.key(segment, h), v = in.value(segment, h);
    const auto out = o.row_block(segment.first_row, segment.length).head(h, dv);
    S* own = state + task * dk * dv;
    for (Index n = 0; n < segment.length; ++n)
      detail::recurrent_step(detail::step_decay(in.decay, segment.first_row + n, h), dk, dv,
                             q.row(n), k.row(n), v.row(n), own,
                             n + 1 == segment.length && task + 1 < tasks ? own + dk * dv : own,
                             out.row(n));
  };
  if (tasks * dk * dv * in.sequences->longest() < (1 << 16)) {  // cheaper than waking a thread
    for (Index t = 0; t < tasks; ++t) head(t, ctx.workspace());
  } else {
    ctx.parallel_for(tasks, head);
  }
}

}  // namespace retnet::inline RETNET_ABI
