// SPDX-License-Identifier: MIT
// Attention on kernels: blocks of queries times tiles of keys, with the softmax carried along from
// tile to tile (Milakov & Gimelshein 2018, Algorithm 3; Dao et al. 2022), so that scores exist for
// one tile at a time. With the largest score t, the sum l and the output o so far:
//
//   t' = max(t, scores),   l' = e^{t-t'} l + sum of e^{s-t'},   o' = e^{t-t'} o + e^{s-t'} V
#pragma once

#include <limits>

#include "retnet/ops/detail/attention_block.hpp"
#include "retnet/simd/math.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

template <class S>
S max_of(const S* x, Index n) {
  using P = simd::Pack<S>;
  constexpr int kN = P::size;
  S lanes[kN], top = x[0];
  Index i = 0;
  if (n >= kN) {
    P best = P::load(x);
    for (i = kN; i + kN <= n; i += kN) best = max(best, P::load(x + i));
    best.store(lanes);
    for (const S lane : lanes) top = top < lane ? lane : top;
  }
  for (; i < n; ++i) top = top < x[i] ? x[i] : top;
  return top;
}

/// x = e^{x - top}; returns the sum.
template <class S>
S exp_and_sum(S top, S* x, Index n) {
  return simd::sum_packs<S>(n, [=](auto p, Index i) {
    using P = decltype(p);
    const P e = exp(P::load(x + i) - P::broadcast(top));
    e.store(x + i);
    return e;
  });
}

/// What the softmax of one row knows so far.
template <class S>
struct RunningSoftmax {
  S top = -std::numeric_limits<S>::infinity();
  S sum = S(0);

  /// Scores become weights relative to the new top; the old ones are worth the returned factor.
  S add(S* scores, Index n) {
    if (n == 0) return S(1);
    const S before = top, largest = max_of(scores, n);
    top = before < largest ? largest : before;
    const S factor = before == top ? S(1) : std::exp(before - top);
    sum = factor * sum + exp_and_sum(top, scores, n);
    return factor;
  }
  S log_sum() const { return top + std::log(sum); }
};

/// o [T,G*Dv] and lse [T,G] (or empty) of the block.
template <class S>
void attention_block(const QueryBlock<S>& block, Window<S> o, Window<S> lse) {
  Workspace& scratch = block.scratch;
  const Window<S> q = block.fold(block.head.q, block.head.scale),
                  acc = block.take(block.head.v.cols);
  auto* rows = scratch.take<RunningSoftmax<S>>(q.rows);
  std::fill_n(acc.data, acc.rows * acc.cols, S(0));
  std::fill_n(rows, q.rows, RunningSoftmax<S>{});
  for_key_tiles(block.head, block.first_key(), block.end_key(), [&](const KeyTile<S>& tile) {
    const auto scope = scratch.scope();
    const Window<S> p = block.products(q, tile.k);
    for (Index r = 0; r < p.rows; ++r) {
      const auto [begin, end] = block.seen(tile, r);
      S* row = p.row(r);
      const S factor = rows[r].add(row + begin, end - begin);
      std::fill(row, row + begin, S(0));
      std::fill(row + end, row + p.cols, S(0));
      if (factor != S(1)) simd::scale(factor, acc.row(r), acc.row(r), acc.cols);
    }
    block.add_seen(tile, p, tile.v, acc);
  });
  block.unfold(
      acc, [&](Index r) { return S(1) / rows[r].sum; }, o);
  if (lse.empty()) return;
  for (Index r = 0; r < q.rows; ++r)
    lse(block.first + r / block.group(), r % block.group()) = rows[r].log_sum();
}

/// p[m] = q . k_m. As many keys at a time as a vector has lanes: their sums turn in registers.
template <class S>
void dot_keys(const S* q, Window<const S> k, S* p) {
  using P = simd::Pack<S>;
  constexpr int kN = P::size;
  Index m = 0;
  for (; m + kN <= k.rows; m += kN) {
    P sums[kN];
    for (P& sum : sums) sum = P::zero();
    Index d = 0;
    for (; d + kN <= k.cols; d += kN) {
      const P qd = P::load(q + d);
#pragma GCC unroll 16
      for (int i = 0; i < kN; ++i) sums[i] = fma(qd, P::load(k.row(m + i) + d), sums[i]);
    }
    transpose(sums);
#pragma GCC unroll 16
    for (int i = 1; i < kN; ++i) sums[0] = sums[0] + sums[i];
    sums[0].store(p + m);
    for (; d < k.cols; ++d)
      for (int i = 0; i < kN; ++i) p[m + i] += q[d] * k(m + i, d);
  }
  for (; m < k.rows; ++m) p[m] = simd::dot(q, k.row(m), k.cols);
}

/// out += sum over m of p[m] v_m. Four rows at a time share the traffic of out.
template <class S>
void add_weighted_rows(const S* p, Window<const S> v, S* out) {
  Index m = 0;
  for (; m + 4 <= v.rows; m += 4)
    simd::for_each_pack<S>(v.cols, [&](auto t, Index j) {
      using P = decltype(t);
      P sum = P::load(out + j);
      for (Index i = 0; i < 4; ++i)
        sum = fma(P::broadcast(p[m + i]), P::load(v.row(m + i) + j), sum);
      sum.store(out + j);
    });
  for (; m < v.rows; ++m) simd::axpy(p[m], v.row(m), out, v.cols);
}

/// One token: dot products over the cache, which is read once; scores of all keys at one time.
template <class S>
void attention_row(const QueryBlock<S>& block, Window<S> o, Window<S> lse) {
  const Index first = block.first_key(), keys = block.end_key() - first, dv = block.head.v.cols;
  const Window<S> q = block.fold(block.head.q, block.head.scale), p = block.take(keys);
  for_key_tiles(block.head, first, block.end_key(), [&](const KeyTile<S>& tile) {
    for (Index g = 0; g < q.rows; ++g) dot_keys(q.row(g), tile.k, p.row(g) + (tile.first - first));
  });
  S* out = o.row(block.first);
  std::fill_n(out, o.cols, S(0));
  for (Index g = 0; g < q.rows; ++g) {
    RunningSoftmax<S> softmax;
    softmax.add(p.row(g), keys);
    simd::scale(S(1) / softmax.sum, p.row(g), p.row(g), keys);
    if (!lse.empty()) lse(block.first, g) = softmax.log_sum();
  }
  for_key_tiles(block.head, first, block.end_key(), [&](const KeyTile<S>& tile) {
    for (Index g = 0; g < q.rows; ++g)
      add_weighted_rows(p.row(g) + (tile.first - first), tile.v, out + g * dv);
  });
}

/// dq [T,G*Dk] of the block is assigned; dk [T,Dk] and dv [T,Dv] are added to.
template <class S>
void attention_block_backward(const QueryBlock<S>& block, Window<const S> o, Window<const S> lse,
                              Window<const S> d_o, Window<S> dq, Window<S> dk, Window<S> dv) {
  Workspace& scratch = block.scratch;
  const auto scope = scratch.scope();
  const auto& head = block.head;
  const Window<S> q = block.fold(head.q, head.scale), dout = block.fold(d_o, S(1));
  const Window<S> acc = block.take(head.k.cols);
  std::fill_n(acc.data, acc.rows * acc.cols, S(0));
  S* mean = scratch.take<S>(q.rows);  // do . o = sum_m p_nm (do . v_m)
  for (Index r = 0; r < q.rows; ++r)
    mean[r] = simd::dot(dout.row(r),
                        o.row(block.first + r / block.group()) + r % block.group() * head.v.cols,
                        head.v.cols);
  for_key_tiles(head, block.first_key(), block.end_key(), [&](const KeyTile<S>& tile) {
    const auto inner = scratch.scope();
    const Window<S> p = block.products(q, tile.k), ds = block.products(dout, tile.v);
    for (Index r = 0; r < p.rows; ++r) {
      const auto [begin, end] = block.seen(tile, r);
      S *pr = p.row(r) + begin, *dr = ds.row(r) + begin;
      const S log_sum = lse(block.first + r / block.group(), r % block.group());
      simd::for_each_pack<S>(end - begin, [=, centre = mean[r]](auto t, Index i) {
        using P = decltype(t);
        const P e = exp(P::load(pr + i) - P::broadcast(log_sum));
        e.store(pr + i);
        (e * (P::load(dr + i) - P::broadcast(centre))).store(dr + i);
      });
      for (const Window<S>& w : {p, ds}) {
        std::fill(w.row(r), w.row(r) + begin, S(0));
        std::fill(w.row(r) + end, w.row(r) + w.cols, S(0));
      }
    }
    block.add_seen(tile, ds, tile.k, acc);
    if (tile.first < head.past) return;
    const Index row = tile.first - head.past;
    gemm_tn(scratch, S(1), p, dout, S(1), dv.row_block(row, tile.k.rows));
    gemm_tn(scratch, S(1), ds, q, S(1), dk.row_block(row, tile.k.rows));
  });
  block.unfold(
      acc, [&](Index) { return head.scale; }, dq);
}

}  // namespace detail

}  // namespace retnet::inline RETNET_ABI
