// SPDX-License-Identifier: MIT
// Causal softmax attention over sequences with a past (Vaswani et al. 2017, Eq. 1), with groups of
// query heads that share a key head (Ainslie et al. 2023) and, if wanted, a sliding window W:
//
//   o_n   = sum over m of p_nm v_m,     p_nm = exp(scale q_n . k_m - lse_n),     n-W < m <= n
//   lse_n = ln sum over m of exp(scale q_n . k_m)
//
// Backward recomputes p from the saved lse (Dao 2023, Algorithm 2):
//
//   ds_nm = p_nm (do_n . v_m - do_n . o_n)
//   dq_n  = scale sum_m ds_nm k_m,   dk_m = scale sum_n ds_nm q_n,   dv_m = sum_n p_nm do_n
//
// Keys are numbered from the oldest of the past: row i of a sequence has number P + i.
#pragma once

#include <cmath>

#include "retnet/core/context.hpp"
#include "retnet/ops/detail/attention_tiles.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

template <class S>
S plain_dot(const S* a, const S* b, Index n) {
  S sum(0);
  for (Index i = 0; i < n; ++i) sum = S(sum + a[i] * b[i]);
  return sum;
}

/// p[m - first_key] = p_nm of row i of the query q [Dk]; returns lse_n.
template <class S>
S attention_weights(const AttentionHead<S>& head, const S* q, Index i, S* p) {
  using std::exp, std::log;
  const Index first = head.first_key(i), n = head.end_key(i) - first;
  for (Index m = 0; m < n; ++m)
    p[m] = S(head.scale * plain_dot(q, head.key(first + m), head.k.cols));
  S top = p[0], sum(0);
  for (Index m = 1; m < n; ++m) top = top < p[m] ? p[m] : top;
  for (Index m = 0; m < n; ++m) {
    p[m] = S(exp(S(p[m] - top)));
    sum = S(sum + p[m]);
  }
  for (Index m = 0; m < n; ++m) p[m] = S(p[m] / sum);
  return S(top + S(log(sum)));
}

}  // namespace detail

/// o [R,H*Dv], lse [R,H] or empty. Rows of no sequence are left alone. `chunk` says how many
/// queries kernels take at a time, and nothing else: 0 as many as suit, 1 token after token.
template <class S>
void attention(Reference& ctx, const AttentionInput<S>& in, Index, Window<S> o,
               Window<S> lse = {}) {
  ctx.note("attention: reference");
  const Index dk = in.key_dim(), dv = in.value_dim();
  for (Index s = 0; s < in.sequences->count(); ++s) {
    const Index row = (*in.sequences)[s].first_row;
    for (Index h = 0; h < in.heads; ++h) {
      const auto scope = ctx.workspace().scope();
      const detail::AttentionHead<S> head(in, s, h / in.group());
      S* p = ctx.workspace().template take<S>(head.past + head.k.rows);
      for (Index i = 0; i < head.k.rows; ++i) {
        const S log_sum = detail::attention_weights(head, in.q.row(row + i) + h * dk, i, p);
        S* out = o.row(row + i) + h * dv;
        std::fill_n(out, dv, S(0));
        const Index first = head.first_key(i);
        for (Index m = first; m < head.end_key(i); ++m)
          for (Index j = 0; j < dv; ++j) out[j] = S(out[j] + p[m - first] * head.value(m)[j]);
        if (!lse.empty()) lse(row + i, h) = log_sum;
      }
    }
  }
}

/// Gradients of the definition, term by term; o and lse are what forward gave, d_o [R,H*Dv].
template <class S>
void attention_backward(Reference& ctx, const AttentionInput<S>& in, Window<const S>,
                        Window<const S>, Window<const S> d_o, const AttentionGradient<S>& grad) {
  ctx.note("attention_backward: reference");
  const Index dk = in.key_dim(), dv = in.value_dim();
  for (Index s = 0; s < in.sequences->count(); ++s) {
    const Segment segment = (*in.sequences)[s];
    const auto zero = [&](Window<S> w) {
      for (Index i = 0; i < segment.length; ++i)
        std::fill_n(w.row(segment.first_row + i), w.cols, S(0));
    };
    zero(grad.dq);
    if (!grad.add_keys_values) zero(grad.dk), zero(grad.dv);
    for (Index h = 0; h < in.heads; ++h) {
      const auto scope = ctx.workspace().scope();
      const detail::AttentionHead<S> head(in, s, h / in.group());
      S* p = ctx.workspace().template take<S>(head.past + segment.length);
      S* dp = ctx.workspace().template take<S>(head.past + segment.length);
      const auto dkey =
          grad.dk.row_block(segment.first_row, segment.length).head(h / in.group(), dk);
      const auto dvalue =
          grad.dv.row_block(segment.first_row, segment.length).head(h / in.group(), dv);
      for (Index i = 0; i < segment.length; ++i) {
        const Index row = segment.first_row + i, first = head.first_key(i);
        const S* q = in.q.row(row) + h * dk;
        const S* dout = d_o.row(row) + h * dv;
        S* dq = grad.dq.row(row) + h * dk;
        detail::attention_weights(head, q, i, p);
        S mean(0);
        for (Index m = first; m < head.end_key(i); ++m) {
          dp[m - first] = detail::plain_dot(dout, head.value(m), dv);
          mean = S(mean + p[m - first] * dp[m - first]);
        }
        for (Index m = first; m < head.end_key(i); ++m) {
          const S weight = p[m - first], ds = S(head.scale * weight * S(dp[m - first] - mean));
          for (Index d = 0; d < dk; ++d) dq[d] = S(dq[d] + ds * head.key(m)[d]);
          if (m < head.past) continue;
          for (Index d = 0; d < dk; ++d)
            dkey(m - head.past, d) = S(dkey(m - head.past, d) + ds * q[d]);
          for (Index j = 0; j < dv; ++j)
            dvalue(m - head.past, j) = S(dvalue(m - head.past, j) + weight * dout[j]);
        }
      }
    }
  }
}

namespace detail {

template <class S>
Index queries_at_once(const AttentionInput<S>& in, Index chunk) {
  const Index most = std::max<Index>(1, kQueryRows / in.group());
  return chunk > 0 ? std::min(chunk, most) : most;
}

}  // namespace detail

template <Vectorized S>
void attention(Cpu& ctx, const AttentionInput<S>& in, Index chunk, Window<S> o,
               Window<S> lse = {}) {
  const Sequences& sequences = *in.sequences;
  const Index step = std::min(detail::queries_at_once(in, chunk), sequences.longest());
  ctx.note(step == 1 ? "attention: token by token" : "attention: packed tiles");
  const Index heads = sequences.count() * in.kv_heads;
  const Index blocks = (sequences.longest() + step - 1) / step;
  const auto task = [&](Index number, Workspace& scratch) {
    const Index s = number % heads / in.kv_heads, kv = number % in.kv_heads;
    const Segment rows = sequences[s];
    const Index first = (blocks - 1 - number / heads) * step;  // the long rows at first
    if (first >= rows.length) return;
    const auto scope = scratch.scope();
    const detail::AttentionHead<S> head(in, s, kv);
    const detail::QueryBlock<S> block{head, first, std::min(step, rows.length - first), scratch};
    const auto part = [&](Window<S> w, Index width) {
      return w.empty() ? w : w.row_block(rows.first_row, rows.length).head(kv, width);
    };
    const auto run = block.rows == 1 ? detail::attention_row<S> : detail::attention_block<S>;
    run(block, part(o, in.group() * in.value_dim()), part(lse, in.group()));
  };
  Index keys = 0;
  for (Index s = 0; s < sequences.count(); ++s)
    keys += sequences[s].length * (sequences[s].length + (in.past ? in.past[s].length : 0));
  if (keys * in.heads * (in.key_dim() + in.value_dim()) < (1 << 16)) {
    for (Index t = 0; t < heads * blocks; ++t) task(t, ctx.workspace());  // cheaper than waking one
  } else {
    ctx.parallel_for(heads * blocks, task);
  }
}

template <Vectorized S>
void attention_backward(Cpu& ctx, const AttentionInput<S>& in, Window<const S> o,
                        Window<const S> lse, Window<const S> d_o,
                        const AttentionGradient<S>& grad) {
  ctx.note("attention_backward: packed tiles");
  const Index step = detail::queries_at_once(in, 0), group = in.group();
  const Index key_dim = in.key_dim(), value_dim = in.value_dim();
  ctx.parallel_for(in.sequences->count() * in.kv_heads, [&](Index task, Workspace& scratch) {
    const Index s = task / in.kv_heads, kv = task % in.kv_heads;
    const Segment rows = (*in.sequences)[s];
    const detail::AttentionHead<S> head(in, s, kv);
    const auto part = [&](auto w, Index width) {
      return w.row_block(rows.first_row, rows.length).head(kv, width);
    };
    const auto dk = part(grad.dk, key_dim), dv = part(grad.dv, value_dim);
    if (!grad.add_keys_values) simd::scale_rows(S(0), dk), simd::scale_rows(S(0), dv);
    for (Index i = 0; i < rows.length; i += step) {  // in order: one sum whatever the threads
      const detail::QueryBlock<S> block{head, i, std::min(step, rows.length - i), scratch};
      detail::attention_block_backward(block, part(o, group * value_dim), part(lse, group),
                                       part(d_o, group * value_dim), part(grad.dq, group * key_dim),
                                       dk, dv);
    }
  });
}

}  // namespace retnet::inline RETNET_ABI
