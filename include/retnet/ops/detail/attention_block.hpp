// SPDX-License-Identifier: MIT
// Blocks of queries and tiles of keys: who sees whom, and the products between them. The query
// heads of a group are the rows of one matrix, so that a tile of keys serves all of them.
#pragma once

#include <cmath>

#include "retnet/ops/attention_input.hpp"
#include "retnet/simd/gemm.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

inline constexpr Index kQueryRows = 120;  // of one block: a block of the matrix product
inline constexpr Index kTileKeys = 256;

/// Keys [first, first + k.rows) of one head, in one piece of memory.
template <class S>
struct KeyTile {
  Index first;
  Window<const S> k, v;
};

/// f(tile) over the keys [lo, hi). Past and rows given never share a tile, nor do both ends of a
/// ring.
template <class S, class F>
void for_key_tiles(const AttentionHead<S>& head, Index lo, Index hi, F&& f) {
  const auto piece = [&](Index begin, Index end, Window<const S> k, Window<const S> v, Index row) {
    for (Index j = std::max(lo, begin); j < std::min(hi, end); j += kTileKeys) {
      const Index n = std::min({kTileKeys, hi - j, end - j}), at = row + j - begin;
      f(KeyTile<S>{j, k.row_block(at, n), v.row_block(at, n)});
    }
  };
  const Index wrap = std::min(head.past, head.past_k.rows - head.past_first);
  piece(0, wrap, head.past_k, head.past_v, head.past_first);
  piece(wrap, head.past, head.past_k, head.past_v, 0);
  piece(head.past, head.past + head.k.rows, head.k, head.v, 0);
}

/// Queries [first, first + rows) of the group: row i * G + g of the matrices of this block.
template <class S>
struct QueryBlock {
  const AttentionHead<S>& head;
  Index first;
  Index rows;
  Workspace& scratch;

  Index group() const { return head.group(); }
  Index size() const { return rows * group(); }
  Index first_key() const { return head.first_key(first); }
  Index end_key() const { return head.end_key(first + rows - 1); }

  Window<S> take(Index cols) const { return {scratch.take<S>(size() * cols), size(), cols}; }
  /// factor * x for the rows of the block, x [T,G*width].
  Window<S> fold(Window<const S> x, S factor) const {
    const Index width = x.cols / group();
    const Window<S> out = take(width);
    for (Index r = 0; r < size(); ++r)
      simd::scale(factor, x.row(first + r / group()) + r % group() * width, out.row(r), width);
    return out;
  }
  /// The way back: y = factor(r) * x of row r.
  template <class F>
  void unfold(Window<const S> x, F&& factor, Window<S> y) const {
    for (Index r = 0; r < size(); ++r)
      simd::scale(factor(r), x.row(r), y.row(first + r / group()) + r % group() * x.cols, x.cols);
  }

  /// Row r sees the columns [begin, end) of the tile.
  struct Seen {
    Index begin, end;
  };
  Seen seen(const KeyTile<S>& tile, Index r) const {
    const Index i = first + r / group();
    const Index begin = std::clamp<Index>(head.first_key(i) - tile.first, 0, tile.k.rows);
    return {begin, std::clamp<Index>(head.end_key(i) - tile.first, begin, tile.k.rows)};
  }
  bool sees_all(const KeyTile<S>& tile) const {
    return tile.first + tile.k.rows <= head.end_key(first) &&
           head.first_key(first + rows - 1) <= tile.first;
  }

  Window<S> products(Window<const S> a, Window<const S> b) const {  // a_r . b_m
    const Window<S> p = take(b.rows);
    gemm_nt(scratch, S(1), a, b, S(0), p);
    return p;
  }
  void add_seen(const KeyTile<S>& tile, Window<const S> p, Window<const S> v, Window<S> out) const;
};

template <class S>
bool all_finite(Window<const S> x) {
  S zero(0);
  for (Index r = 0; r < x.rows; ++r)
    zero += simd::sum_packs<S>(x.cols, [&](auto p, Index i) {
      using P = decltype(p);
      return P::load(x.row(r) + i) * P::zero();
    });
  return zero == S(0);
}

/// out += P V, V [n,D] the rows of the tile's keys. Where a row sees nothing P is 0, and 0 * NaN
/// would let a broken number of the future into the past: broken numbers stay out of the product
/// and are added to the rows that see them.
template <class S>
void QueryBlock<S>::add_seen(const KeyTile<S>& tile, Window<const S> p, Window<const S> v,
                             Window<S> out) const {
  if (sees_all(tile) || all_finite(v)) return gemm_nn(scratch, S(1), p, v, S(1), out);
  const auto scope = scratch.scope();
  const Window<S> whole(scratch.take<S>(v.rows * v.cols), v.rows, v.cols);
  for (Index m = 0; m < v.rows; ++m)
    for (Index j = 0; j < v.cols; ++j) whole(m, j) = std::isfinite(v(m, j)) ? v(m, j) : S(0);
  gemm_nn(scratch, S(1), p, whole, S(1), out);
  for (Index r = 0; r < size(); ++r) {
    const Seen range = seen(tile, r);
    for (Index m = range.begin; m < range.end; ++m)
      for (Index j = 0; j < v.cols; ++j)
        if (!std::isfinite(v(m, j))) out(r, j) += p(r, m) * v(m, j);
  }
}

}  // namespace detail

}  // namespace retnet::inline RETNET_ABI
