// SPDX-License-Identifier: MIT
// Retention of one head of one sequence, fused: per block of rows, with a_i = e^{G_i - G_0} (G the
// running log decay in the block, G_0 that of its first row) and the state kept as S~ = e^{G_0} S,
//
//   Q~_i = a_i q_i        V~_j = v_j / a_j
//   O    = tril(Q~ K^T) V~ + Q~ S~            one pass: rows of V~, then rows of S~
//   S'   = e^{G_L - G_0} (S~ + K^T V~)
//
// so that no decay matrix is ever built. The block is the kernel's own and not the caller's chunk; it
// ends early where it would decay by more than e^-8, and 1/a_j would lose the small terms.
//
// O goes by panels of columns: the panel of S~ stays in the first cache while the rows of the block
// pass over it, and is updated while it is there.
//
// The gradients are retention as well, of other operands:
//   dQ = retention(dO, V, K) from S^T
//   dV = retention(K, Q, dO) from dS, and dK = retention(V, dO, Q) from dS^T, backwards in time
#pragma once

#include "retnet/ops/retention.hpp"
#include "retnet/simd/tile.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI::detail {

template <class S>
struct FusedShape {
  static constexpr bool kWide = simd::kRegisters == 32;
  static constexpr int kRows = kWide ? 8 : 6;
  static constexpr int kVectors = 2;
  static constexpr Index kColumns = kVectors * simd::kLanes<S>;  // of a panel
  static constexpr Index kBlock = kWide ? 64 : 48;               // rows of a block
  // Scores: tall and narrow tiles leave less above the diagonal.
  static constexpr int kScoreRows = kWide ? 16 : 6;
  static constexpr int kScoreVectors = kWide ? 1 : 2;
  static constexpr double kLargestDecay = 8.0;
  static_assert(kBlock % kRows == 0 && kBlock % kScoreRows == 0 && kBlock % kColumns == 0);
};

/// Consecutive tokens of one operand; a negative step goes backwards in time.
template <class T>
struct TokenRows {
  T* first = nullptr;
  Index step = 0;
  T* at(Index i) const { return first + i * step; }
};
template <class T>
TokenRows<T> token_rows(const Window<T>& rows, bool reversed) {
  if (reversed) return {rows.row(rows.rows - 1), -rows.stride};
  return {rows.data, rows.stride};
}

/// A state [Dk,Dv] or, by its steps, the transpose of one. No `in`: zero; no `out`: dropped.
template <class S>
struct StateRef {
  const S* in = nullptr;
  S* out = nullptr;
  Index row_step = 0, column_step = 0;
};

/// ln of the decay before a token is added, and after the last one. Backwards in time a token brings
/// the decay of the token behind it.
template <class S>
struct DecaySteps {
  double fixed = 0.0;
  Window<const S> gate;  // [T,1]; empty: fixed
  bool reversed = false;

  double of_token(Index t) const { return gate.empty() ? fixed : static_cast<double>(gate(t, 0)); }
  double before(Index i, Index length) const {
    if (!reversed) return of_token(i);
    return i == 0 ? 0.0 : of_token(length - i);
  }
  double after_last() const { return reversed ? of_token(0) : 0.0; }
};

/// o [T,Dv] = or += retention of q, k [T,Dk] and v [T,Dv].
template <class S>
struct FusedOperands {
  TokenRows<const S> q, k, v;
  TokenRows<S> o;
  bool add = false;
  Index length = 0, key_dim = 0, value_dim = 0;
  DecaySteps<S> decay;
  StateRef<S> state;
};

template <class S>
class FusedRetention {
  using Shape = FusedShape<S>;
  static constexpr Index kBlock = Shape::kBlock, kColumns = Shape::kColumns, kRows = Shape::kRows;
  static constexpr Index kLanes = simd::kLanes<S>;

 public:
  FusedRetention(const FusedOperands<S>& operands, Workspace& scratch)
      : x_(operands),
        padded_keys_((x_.key_dim + kRows - 1) / kRows * kRows),
        panels_((x_.value_dim + kColumns - 1) / kColumns),
        q_(scratch.take<S>(x_.key_dim * kBlock)),
        k_(scratch.take<S>(padded_keys_ * kBlock)),
        v_(scratch.take<S>(kBlock * kColumns)),
        p_(scratch.take<S>(kBlock * kBlock)),
        state_(scratch.take<S>(panels_ * padded_keys_ * kColumns)) {
    std::fill_n(k_ + x_.key_dim * kBlock, (padded_keys_ - x_.key_dim) * kBlock, S(0));
  }

  void run() {
    Block now = block_at(0);
    load_state(S(std::exp(now.start)));
    for (;;) {
      const Index end = now.first + now.length;
      const bool last = end == x_.length;
      const Block next = last ? Block{} : block_at(end);
      const S carry = S(std::exp(now.total + (last ? x_.decay.after_last() : next.start)));
      simd::pack_transposed<kBlock>(x_.q.at(now.first), x_.q.step, now.length, x_.key_dim, now.up,
                                    q_);
      simd::pack_transposed<kBlock>(x_.k.at(now.first), x_.k.step, now.length, x_.key_dim,
                                    static_cast<const S*>(nullptr), k_);
      scores(now.length);
      for (Index panel = 0; panel < panels_; ++panel) {
        const bool finite = simd::pack_columns<kColumns>(
            x_.v.at(now.first) + panel * kColumns, x_.v.step, now.length, kBlock, width(panel),
            now.down, v_);
        outputs(now, finite, panel);
        if (!last || x_.state.out != nullptr) advance(now.length, carry, panel);
      }
      if (last) break;
      now = next;
    }
    store_state();
  }

 private:
  struct Block {
    Index first = 0, length = 0;
    double start = 0.0, total = 0.0;  // ln of the decay before its first row; from there to the last
    S up[kBlock], down[kBlock];       // a_i, 1/a_i
  };

  Block block_at(Index first) const {
    Block b;
    b.first = first;
    b.start = x_.decay.before(first, x_.length);
    const Index most = std::min(kBlock, x_.length - first);
    for (Index i = 0; i < most; ++i) {
      const double g = i == 0 ? 0.0 : x_.decay.before(first + i, x_.length);
      if (i > 0 && b.total + g < -Shape::kLargestDecay) break;
      b.total += g;
      b.up[i] = S(std::exp(b.total));
      b.down[i] = S(std::exp(-b.total));
      ++b.length;
    }
    return b;
  }

  S* panel_of_state(Index panel) const { return state_ + panel * padded_keys_ * kColumns; }
  Index width(Index panel) const { return std::min(kColumns, x_.value_dim - panel * kColumns); }

  void load_state(S decay) {
    std::fill_n(state_, panels_ * padded_keys_ * kColumns, S(0));
    const auto& st = x_.state;
    if (st.in == nullptr) return;
    for (Index panel = 0; panel < panels_; ++panel)
      for (Index d = 0; d < x_.key_dim; ++d) {
        const S* from = st.in + d * st.row_step + panel * kColumns * st.column_step;
        S* to = panel_of_state(panel) + d * kColumns;
        for (Index c = 0; c < width(panel); ++c) to[c] = decay * from[c * st.column_step];
      }
  }
  void store_state() const {
    const auto& st = x_.state;
    if (st.out == nullptr) return;
    for (Index panel = 0; panel < panels_; ++panel)
      for (Index d = 0; d < x_.key_dim; ++d) {
        const S* from = panel_of_state(panel) + d * kColumns;
        S* to = st.out + d * st.row_step + panel * kColumns * st.column_step;
        for (Index c = 0; c < width(panel); ++c) to[c * st.column_step] = from[c];
      }
  }

  // p = tril(Q~ K^T)
  void scores(Index length) {
    constexpr int kR = Shape::kScoreRows, kV = Shape::kScoreVectors;
    for (Index i = 0; i < length; i += kR) {
      Index j = 0;
      for (; j < std::min(i + kR, length); j += kV * kLanes) {
        simd::Tile<S, kR, kV> tile;
        tile.template accumulate<1, kBlock, kBlock>(x_.key_dim, q_ + i, k_ + j);
        tile.for_each([&](int r, int v, auto sum) {
          sum.store(p_ + (i + r) * kBlock + j + v * kLanes);
        });
      }
      for (Index r = i; r < i + kR; ++r)
        if (r + 1 < j) std::fill(p_ + r * kBlock + r + 1, p_ + r * kBlock + j, S(0));
    }
  }

  // A zero of p times a value that is no number would let the future into the past: then each row
  // stops where it stands.
  void outputs(const Block& b, bool finite, Index panel) const {
    if (finite) {
      for (Index i = 0; i < b.length; i += kRows)
        output_rows<kRows>(b, i, std::min(i + kRows, b.length), panel);
    } else {
      for (Index i = 0; i < b.length; ++i) output_rows<1>(b, i, i + 1, panel);
    }
  }

  // Rows [i, i + R) of the block: p V~ over the tokens up to `seen`, then Q~ S~.
  template <int R>
  void output_rows(const Block& b, Index i, Index seen, Index panel) const {
    const Index depth = b.first == 0 && x_.state.in == nullptr ? 0 : x_.key_dim;
    simd::Tile<S, R, Shape::kVectors> tile;
    tile.template accumulate<kBlock, 1, kColumns>(seen, p_ + i * kBlock, v_);
    tile.template accumulate<1, kBlock, kColumns>(depth, q_ + i, panel_of_state(panel));
    S* out = x_.o.at(b.first + i) + panel * kColumns;
    if (!x_.add && width(panel) == kColumns && i + R <= b.length) {
      tile.for_each([&](int r, int v, auto sum) { sum.store(out + r * x_.o.step + v * kLanes); });
      return;
    }
    alignas(kAlignment) S edge[R * kColumns];
    tile.for_each([&](int r, int v, auto sum) { sum.store(edge + r * kColumns + v * kLanes); });
    for (Index r = 0; r < std::min<Index>(R, b.length - i); ++r)
      for (Index c = 0; c < width(panel); ++c) {
        S& o = out[r * x_.o.step + c];
        o = x_.add ? o + edge[r * kColumns + c] : edge[r * kColumns + c];
      }
  }

  // S~ = carry (S~ + K^T V~), where carry reaches to the first row of the next block.
  void advance(Index length, S carry, Index panel) const {
    using P = simd::Pack<S>;
    const P scale = P::broadcast(carry);
    for (Index d = 0; d < padded_keys_; d += kRows) {
      simd::Tile<S, kRows, Shape::kVectors> tile;
      tile.template accumulate<kBlock, 1, kColumns>(length, k_ + d * kBlock, v_);
      S* s = panel_of_state(panel) + d * kColumns;
      tile.for_each([&](int r, int v, auto sum) {
        S* at = s + r * kColumns + v * kLanes;
        (scale * (P::load(at) + sum)).store(at);
      });
    }
  }

  FusedOperands<S> x_;
  Index padded_keys_, panels_;
  S* q_;      // Q~ transposed, [Dk,kBlock]
  S* k_;      // K transposed, [padded Dk,kBlock]
  S* v_;      // one panel of V~, [kBlock,kColumns]
  S* p_;      // [kBlock,kBlock]
  S* state_;  // panels of S~, [panels,padded Dk,kColumns]
};

}  // namespace retnet::inline RETNET_ABI::detail
