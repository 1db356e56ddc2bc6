// SPDX-License-Identifier: MIT
// The parallel form, as the paper writes it (Sun et al. 2023, Eq. 5). The oracle of all others.
//
//   O = (Q K^T * D) V,   D_nm = a_{m+1} ... a_n for n >= m, else 0
//   with an initial state: o_n += a_0 ... a_n q_n S_0
//
// Causality is by index: an infinite exponent would leak the future where gamma is 1.
#pragma once

#include "retnet/ops/retention.hpp"

namespace retnet::inline RETNET_ABI {

template <class S>
void retention_parallel(Reference& ctx, const RetentionInput<S>& in, S* state, Window<S> o) {
  ctx.note("retention_parallel: reference");
  const Index dk = in.key_dim(), dv = in.value_dim();
  for (Index s = 0; s < in.sequences->count(); ++s) {
    const Segment segment = (*in.sequences)[s];
    const Index length = segment.length;
    for (Index h = 0; h < in.heads; ++h) {
      const auto scope = ctx.workspace().scope();
      using Log = detail::LogSum<S>;
      Log* g = ctx.workspace().template take<Log>(length);
      detail::cumulative_log_decay(in.decay, h, segment.first_row, length, g);
      const auto q = in.query(segment, h), k = in.key(segment, h), v = in.value(segment, h);
      const auto out = o.row_block(segment.first_row, length).head(h, dv);
      Window<S> s0(state ? state + (s * in.heads + h) * dk * dv : nullptr, dk, dv);
      for (Index n = 0; n < length; ++n) {
        for (Index j = 0; j < dv; ++j) out(n, j) = S(0);
        for (Index m = 0; m <= n; ++m) {
          S score(0);
          for (Index d = 0; d < dk; ++d) score = S(score + q(n, d) * k(m, d));
          const S weight = S(score * detail::exp_of<S>(Log(g[n] - g[m])));
          for (Index j = 0; j < dv; ++j) out(n, j) = S(out(n, j) + weight * v(m, j));
        }
        if (!state) continue;
        for (Index d = 0; d < dk; ++d) {
          const S weight = S(q(n, d) * detail::exp_of<S>(g[n]));
          for (Index j = 0; j < dv; ++j) out(n, j) = S(out(n, j) + weight * s0(d, j));
        }
      }
      if (!state) continue;
      const Log all = g[length - 1];
      for (Index i = 0; i < dk * dv; ++i) s0.data[i] = S(s0.data[i] * detail::exp_of<S>(all));
      for (Index m = 0; m < length; ++m)
        for (Index d = 0; d < dk; ++d) {
          const S weight = S(k(m, d) * detail::exp_of<S>(Log(all - g[m])));
          for (Index j = 0; j < dv; ++j) s0(d, j) = S(s0(d, j) + weight * v(m, j));
        }
    }
  }
}

/// Gradients of the definition, term by term. `state` is the initial state that forward was given.
template <class S>
void retention_parallel_backward(Reference& ctx, const RetentionInput<S>& in, const S* state,
                                 Window<const S> d_o, const RetentionGradient<S>& grad) {
  ctx.note("retention_parallel_backward: reference");
  using Log = detail::LogSum<S>;
  const Index dk = in.key_dim(), dv = in.value_dim();
  const auto dot = [](const S* a, const S* b, Index n) {
    S sum(0);
    for (Index i = 0; i < n; ++i) sum = S(sum + a[i] * b[i]);
    return sum;
  };
  for (Index s = 0; s < in.sequences->count(); ++s) {
    const Segment segment = (*in.sequences)[s];
    const Index length = segment.length, row = segment.first_row;
    const auto zero = [&](Window<S> w) {
      for (Index r = row; r < row + length; ++r) std::fill_n(w.row(r), w.cols, S(0));
    };
    zero(grad.dq), zero(grad.dk), zero(grad.dv);
    for (Index h = 0; h < in.heads; ++h) {
      const auto scope = ctx.workspace().scope();
      Log* g = ctx.workspace().template take<Log>(length);
      S* dg = ctx.workspace().template take<S>(length);
      S* dfinal = ctx.workspace().template take<S>(dk * dv);
      std::fill_n(dg, length, S(0));
      detail::cumulative_log_decay(in.decay, h, row, length, g);
      const auto q = in.query(segment, h), k = in.key(segment, h), v = in.value(segment, h);
      const auto dout = d_o.row_block(row, length).head(h, dv);
      const auto dq = grad.dq.row_block(row, length).head(h, dk);
      const auto dkey = grad.dk.row_block(row, length).head(h / in.group(), dk);
      const auto dvalue = grad.dv.row_block(row, length).head(h / in.group(), dv);
      for (Index n = 0; n < length; ++n) {
        for (Index m = 0; m <= n; ++m) {
          const S w = detail::exp_of<S>(Log(g[n] - g[m]));
          const S score = S(w * dot(q.row(n), k.row(m), dk));
          const S dscore = S(w * dot(dout.row(n), v.row(m), dv));
          for (Index j = 0; j < dv; ++j) dvalue(m, j) = S(dvalue(m, j) + score * dout(n, j));
          for (Index d = 0; d < dk; ++d) {
            dq(n, d) = S(dq(n, d) + dscore * k(m, d));
            dkey(m, d) = S(dkey(m, d) + dscore * q(n, d));
          }
          if (m == n) continue;  // D_nn is 1 whatever the decay
          const S dweight = S(dscore * dot(q.row(n), k.row(m), dk));
          dg[n] = S(dg[n] + dweight);
          dg[m] = S(dg[m] - dweight);
        }
      }
      const Index at = (s * in.heads + h) * dk * dv;
      if (grad.dstate) {
        std::copy_n(grad.dstate + at, dk * dv, dfinal);
        const Log all = g[length - 1];
        for (Index m = 0; m < length; ++m) {
          const S w = detail::exp_of<S>(Log(all - g[m]));
          for (Index d = 0; d < dk; ++d) {
            const S along = S(w * dot(dfinal + d * dv, v.row(m), dv));
            dkey(m, d) = S(dkey(m, d) + along);
            if (m + 1 < length) {  // the last row enters the state undecayed
              dg[m] = S(dg[m] - along * k(m, d));
              dg[length - 1] = S(dg[length - 1] + along * k(m, d));
            }
            for (Index j = 0; j < dv; ++j)
              dvalue(m, j) = S(dvalue(m, j) + w * k(m, d) * dfinal[d * dv + j]);
          }
        }
        const S w = detail::exp_of<S>(all);
        for (Index i = 0; i < dk * dv; ++i) {
          grad.dstate[at + i] = S(w * dfinal[i]);
          if (state) dg[length - 1] = S(dg[length - 1] + w * dfinal[i] * state[at + i]);
        }
      }
      for (Index n = 0; n < length && (state || grad.dstate); ++n) {
        const S w = detail::exp_of<S>(g[n]);
        for (Index d = 0; d < dk; ++d) {
          if (state) {
            const S along = S(w * dot(state + at + d * dv, dout.row(n), dv));
            dq(n, d) = S(dq(n, d) + along);
            dg[n] = S(dg[n] + along * q(n, d));
          }
          if (grad.dstate)
            for (Index j = 0; j < dv; ++j)
              grad.dstate[at + d * dv + j] =
                  S(grad.dstate[at + d * dv + j] + w * q(n, d) * dout(n, j));
        }
      }
      if (grad.dlog_decay.empty()) continue;
      for (Index n = 0; n < length; ++n) grad.dlog_decay(row + n, h) = dg[n];
      detail::reverse_cumulative(grad.dlog_decay, row, length, h);
    }
  }
}

}  // namespace retnet::inline RETNET_ABI
