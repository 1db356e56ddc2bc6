// SPDX-License-Identifier: MIT
// The recurrent form with deferred writes: the state [Dk,Dv] of a head is read at every token but
// written once in W of them. Between, the keys and values of the last tokens stand beside it, with G
// the log decay from the state to after each of them:
//
//   o_n = e^{G_n} q_n S + sum_{j pending} e^{G_n - G_j} (q_n . k_j) v_j
//   every W tokens:  S <- e^{G_n} S + sum_j e^{G_n - G_j} k_j^T v_j
//
// The same function as retention_recurrent, with 1 + 1/W of the state's bytes a token instead of 2.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "retnet/ops/retention.hpp"
#include "retnet/simd/math.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI {

/// Tokens that are not in the states yet, of N sequences and H heads; all memory is the caller's.
template <class S>
struct PendingTokens {
  Index window = 0;             // W
  S* keys = nullptr;            // [N,H,W,Dk]
  S* values = nullptr;          // [N,H,W,Dv]
  double* log_decay = nullptr;  // [N,H,W]: G
  std::span<Index> counts;      // [N], each below W
};

namespace detail {

/// The pending tokens of one head.
template <class S>
struct PendingHead {
  Index window, dk, dv;
  S* keys;
  S* values;
  double* log_decay;

  PendingHead(const PendingTokens<S>& all, Index task, Index key_dim, Index value_dim)
      : window(all.window),
        dk(key_dim),
        dv(value_dim),
        keys(all.keys + task * window * dk),
        values(all.values + task * window * dv),
        log_decay(all.log_decay + task * window) {}

  void append(Index at, const S* k, const S* v, double log_step) {
    constexpr double kForgotten = -1e4;  // e^ of it is 0; differences of G stay numbers
    std::copy_n(k, dk, keys + at * dk);
    std::copy_n(v, dv, values + at * dv);
    log_decay[at] = (at > 0 ? log_decay[at - 1] : 0.0) + std::max(log_step, kForgotten);
  }

  /// o of the query that stands with the last of `count` tokens; `after` is the state that is read
  /// next.
  void read(Index count, const S* q, const S* state, const S* after, S* o) const {
    std::fill_n(o, dv, S(0));
    Index d = 0;
    for (; d + kRows <= dk; d += kRows) {
      const S* rows = state + d * dv;
      add_rows<kRows>(q + d, rows, d + 2 * kRows <= dk ? rows + kRows * dv : after, o);
    }
    for (; d < dk; ++d) add_rows<1>(q + d, state + d * dv, after, o);
    simd::scale(S(std::exp(log_decay[count - 1])), o, o, dv);
    for_decays(count, [&](Index j, S decay) {
      simd::axpy(decay * simd::dot(q, keys + j * dk, dk), values + j * dv, o, dv);
    });
  }

  /// The state after `count` tokens, which are then no longer needed.
  void settle(Index count, S* state) const {
    if (count == 0) return;
    for_decays(count,
               [&](Index j, S decay) { simd::scale(decay, keys + j * dk, keys + j * dk, dk); });
    const S keep = S(std::exp(log_decay[count - 1]));
    Index d = 0;
    for (; d + kRows <= dk; d += kRows) settle_rows<kRows>(count, keep, keys + d, state + d * dv);
    for (; d < dk; ++d) settle_rows<1>(count, keep, keys + d, state + d * dv);
  }

 private:
  static constexpr int kRows = 8;  // of the state at a time: o and v are read once for them

  /// f(j, decay from token j to the last one).
  template <class F>
  void for_decays(Index count, F&& f) const {
    constexpr Index kAtOnce = 16;
    const double now = log_decay[count - 1];
    for (Index first = 0; first < count; first += kAtOnce) {
      double decay[kAtOnce];
      const Index n = std::min(kAtOnce, count - first);
      simd::for_each_pack<double>(n, [&](auto p, Index j) {
        using P = decltype(p);
        exp(P::broadcast(now) - P::load(log_decay + first + j)).store(decay + j);
      });
      for (Index j = 0; j < n; ++j) f(first + j, S(decay[j]));
    }
  }

  // o += q S over R rows of the state; the R rows at `next` are fetched in the order of memory.
  template <int R>
  void add_rows(const S* q, const S* rows, const S* next, S* o) const {
    simd::for_each_pack<S>(dv, [&](auto p, Index j) {
      using P = decltype(p);
      P out = P::load(o + j);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        __builtin_prefetch(next + R * j + r * P::size);
        out = fma(P::broadcast(q[r]), P::load(rows + r * dv + j), out);
      }
      out.store(o + j);
    });
  }

  // R rows of the state after `count` tokens, given the keys from the first of these rows on.
  template <int R>
  void settle_rows(Index count, S keep, const S* k, S* rows) const {
    simd::for_each_pack<S>(dv, [&](auto p, Index i) {
      using P = decltype(p);
      P sum[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r] = P::broadcast(keep) * P::load(rows + r * dv + i);
      for (Index j = 0; j < count; ++j) {
        const P v = P::load(values + j * dv + i);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = fma(P::broadcast(k[j * dk + r]), v, sum[r]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r].store(rows + r * dv + i);
    });
  }
};

}  // namespace detail

/// states [N,H,Dk,Dv]; the tokens of `in` follow the pending ones.
template <Vectorized S>
void retention_deferred(Cpu& ctx, const RetentionInput<S>& in, const PendingTokens<S>& pending,
                        S* states, Window<S> o) {
  ctx.note("retention_recurrent: deferred writes");
  const Index dk = in.key_dim(), dv = in.value_dim(), tasks = in.sequences->count() * in.heads;
  const auto head_of = [&](Index task, Workspace&) {
    const Index s = task / in.heads, h = task % in.heads;
    const Segment segment = (*in.sequences)[s];
    const auto q = in.query(segment, h), k = in.key(segment, h), v = in.value(segment, h);
    const auto out = o.row_block(segment.first_row, segment.length).head(h, dv);
    S* state = states + task * dk * dv;
    detail::PendingHead<S> head(pending, task, dk, dv);
    Index count = pending.counts[static_cast<std::size_t>(s)];
    for (Index n = 0; n < segment.length; ++n) {
      const double step = in.decay.gated()
                              ? static_cast<double>(in.decay.log_gate(segment.first_row + n, h))
                              : in.decay.log_gamma[static_cast<std::size_t>(h)];
      head.append(count++, k.row(n), v.row(n), step);
      const bool leaving = n + 1 == segment.length && task + 1 < tasks;
      head.read(count, q.row(n), state, leaving ? state + dk * dv : state, out.row(n));
      if (count < pending.window) continue;
      head.settle(count, state);
      count = 0;
    }
  };
  if (tasks * dk * dv * in.sequences->longest() < (1 << 16)) {  // cheaper than waking a thread
    for (Index t = 0; t < tasks; ++t) head_of(t, ctx.workspace());
  } else {
    ctx.parallel_for(tasks, head_of);
  }
  for (Index s = 0; s < in.sequences->count(); ++s) {
    Index& count = pending.counts[static_cast<std::size_t>(s)];
    count = (count + (*in.sequences)[s].length) % pending.window;
  }
}

/// The states with all pending tokens in them.
template <class S>
void settle_pending(const PendingTokens<S>& pending, Index heads, Index dk, Index dv, S* states) {
  for (std::size_t s = 0; s < pending.counts.size(); ++s) {
    for (Index h = 0; h < heads; ++h) {
      const Index task = static_cast<Index>(s) * heads + h;
      detail::PendingHead<S>(pending, task, dk, dv)
          .settle(pending.counts[s], states + task * dk * dv);
    }
    pending.counts[s] = 0;
  }
}

}  // namespace retnet::inline RETNET_ABI
