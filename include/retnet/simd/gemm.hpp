// SPDX-License-Identifier: MIT
// The one funnel for matrix products: C = alpha A B + beta C over strided operands.
//
// Fast path (float, double): BLIS loop order; B packed in panels of NR columns, A in panels of MR
// rows, an MR x NR block of C in registers. Every element of C is one chain of multiply-adds per
// block of kDepth, in ascending k: its bits depend on K alone, not on M, N, tile or thread.
#pragma once

#include <algorithm>

#include "retnet/core/context.hpp"
#include "retnet/core/window.hpp"
#include "retnet/simd/tile.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI {

namespace simd {

/// An operand by strides, so that a transpose is a swap.
template <class T>
struct Operand {
  const T* data;
  Index row_stride;
  Index col_stride;
  const T* at(Index r, Index c) const { return data + r * row_stride + c * col_stride; }
};

template <class T>
Operand<std::remove_const_t<T>> plain(const Window<T>& w) {
  return {w.data, w.stride, 1};
}
template <class T>
Operand<std::remove_const_t<T>> transposed(const Window<T>& w) {
  return {w.data, 1, w.stride};
}

template <class S>
struct GemmTile {
  // Accumulators MR*2, two B vectors and one broadcast must fit the register file.
  static constexpr int kRows = kRegisters == 32 ? 12 : 6;
  static constexpr int kCols = 2 * kLanes<S>;
  static constexpr Index kDepth = 256;      // a B panel of kDepth x kCols stays in L1
  static constexpr Index kBlockRows = 120;  // an A block of kBlockRows x kDepth stays in L2
  static constexpr Index kBlockCols = 4096;
};

/// Copies a strip: out[k * kWidth + i] = source[i * si + k * sk], zeros for i >= strip.
template <int kWidth, class S, class T>
inline void pack_panel(const T* source, Index si, Index sk, Index strip, Index depth, S* out) {
  constexpr int kN = kLanes<S>;
  if (strip == kWidth && si == 1) {
    for (Index k = 0; k < depth; ++k)
      for (int i = 0; i < kWidth; ++i) out[k * kWidth + i] = scalar_cast<S>(source[k * sk + i]);
    return;
  }
  Index i = 0;
  if constexpr (kN > 1) {
    constexpr int kSide = kWidth < kN ? kWidth : kN;
    if (sk == 1) {  // rows of the source become columns: squares turn in registers
      for (; i + kSide <= strip; i += kSide) {
        Index k = 0;
        for (; k + kN <= depth; k += kN) {
          Pack<S, kN> square[kN];
#pragma GCC unroll 16
          for (int r = 0; r < kN; ++r)
            square[r] = r < kSide ? load_as<S, kN>(source + (i + r) * si + k) : Pack<S, kN>::zero();
          transpose(square);
#pragma GCC unroll 16
          for (int r = 0; r < kN; ++r)
            std::memcpy(out + (k + r) * kWidth + i, &square[r], kSide * sizeof(S));
        }
        for (; k < depth; ++k)
          for (int r = 0; r < kSide; ++r)
            out[k * kWidth + i + r] = scalar_cast<S>(source[(i + r) * si + k]);
      }
    }
  }
  for (; i < strip; ++i)
    for (Index k = 0; k < depth; ++k) out[k * kWidth + i] = scalar_cast<S>(source[i * si + k * sk]);
  for (; i < kWidth; ++i)
    for (Index k = 0; k < depth; ++k) out[k * kWidth + i] = S(0);
}

/// C[kRows, kCols] = alpha * A B + beta * C from packed panels; beta = 0 never reads C.
template <class S>
inline void micro_kernel(Index depth, const S* a, const S* b, S alpha, S beta, S* c, Index stride) {
  using P = Pack<S>;
  constexpr int kRows = GemmTile<S>::kRows, kCols = GemmTile<S>::kCols;
  Tile<S, kRows, 2> tile;
  tile.template accumulate<1, kRows, kCols>(depth, a, b);
  const P scale = P::broadcast(alpha), keep = P::broadcast(beta);
  tile.for_each([&](int r, int v, P sum) {
    S* p = c + r * stride + v * P::size;
    P x = scale * sum;
    if (beta != S(0)) x = fma(keep, P::load(p), x);
    x.store(p);
  });
}

/// One block of rows of C against packed B; edge tiles pass through a small buffer.
template <class S>
inline void multiply_block(Index rows, Index cols, Index depth, const S* a, const S* b, S alpha,
                           S beta, S* c, Index stride) {
  constexpr Index kR = GemmTile<S>::kRows, kC = GemmTile<S>::kCols;
  alignas(kAlignment) S edge[kR * kC];
  for (Index j = 0; j < cols; j += kC) {
    for (Index i = 0; i < rows; i += kR) {
      const S* pa = a + i * depth;
      const S* pb = b + j * depth;
      S* pc = c + i * stride + j;
      const Index m = std::min(kR, rows - i), n = std::min(kC, cols - j);
      if (m == kR && n == kC) {
        micro_kernel(depth, pa, pb, alpha, beta, pc, stride);
        continue;
      }
      if (beta != S(0))
        for (Index r = 0; r < m; ++r) std::copy_n(pc + r * stride, n, edge + r * kC);
      micro_kernel(depth, pa, pb, alpha, beta, edge, kC);
      for (Index r = 0; r < m; ++r) std::copy_n(edge + r * kC, n, pc + r * stride);
    }
  }
}

/// Packs B[0..K, col..col+cols) into panels, the blocks of kDepth one after the other.
template <class S, class TB>
inline void pack_columns(const Operand<TB>& b, Index K, Index col, Index width, Index padded,
                         Index panel, S* out) {
  constexpr Index kC = GemmTile<S>::kCols;
  const Index j = panel * kC;
  for (Index k = 0; k < K; k += GemmTile<S>::kDepth) {
    const Index depth = std::min(GemmTile<S>::kDepth, K - k);
    pack_panel<int{kC}>(b.at(k, col + j), b.col_stride, b.row_stride, std::min(kC, width - j),
                        depth, out + k * padded + j * depth);
  }
}

/// Rows [row, row+rows) of C from packed B.
template <class S, class TA>
inline void multiply_rows(Workspace& scratch, const Operand<TA>& a, Index row, Index rows, Index K,
                          const S* packed_b, Index padded, Index first, Index cols, S alpha, S beta,
                          S* c, Index stride) {
  constexpr Index kR = GemmTile<S>::kRows;
  const auto scope = scratch.scope();
  const Index padded_rows = (rows + kR - 1) / kR * kR;
  S* packed_a = scratch.take<S>(padded_rows * std::min(K, GemmTile<S>::kDepth));
  for (Index k = 0; k < K; k += GemmTile<S>::kDepth) {
    const Index depth = std::min(GemmTile<S>::kDepth, K - k);
    for (Index i = 0; i < rows; i += kR)
      pack_panel<int{kR}>(a.at(row + i, k), a.row_stride, a.col_stride, std::min(kR, rows - i),
                          depth, packed_a + i * depth);
    multiply_block(rows, cols, depth, packed_a, packed_b + k * padded + first * depth, alpha,
                   k == 0 ? beta : S(1), c + row * stride + first, stride);
  }
}

template <class S>
inline void scale_rows(S beta, const Window<S>& c) {
  for (Index r = 0; r < c.rows; ++r)
    for (Index j = 0; j < c.cols; ++j) c(r, j) = beta == S(0) ? S(0) : S(beta * c(r, j));
}

/// On one thread, inside a task.
template <class S, class TA, class TB>
void gemm(Workspace& scratch, S alpha, Operand<TA> a, Operand<TB> b, Index K, S beta, Window<S> c) {
  using Tile = GemmTile<S>;
  if (K == 0) return scale_rows(beta, c);
  for (Index col = 0; col < c.cols; col += Tile::kBlockCols) {
    const auto scope = scratch.scope();
    const Index width = std::min(Tile::kBlockCols, c.cols - col);
    const Index panels = (width + Tile::kCols - 1) / Tile::kCols;
    const Index padded = panels * Tile::kCols;
    S* packed_b = scratch.take<S>(padded * K);
    for (Index p = 0; p < panels; ++p) pack_columns(b, K, col, width, padded, p, packed_b);
    for (Index row = 0; row < c.rows; row += Tile::kBlockRows)
      multiply_rows(scratch, a, row, std::min(Tile::kBlockRows, c.rows - row), K, packed_b, padded,
                    Index{0}, width, alpha, beta, c.data + col, c.stride);
  }
}

/// On all threads of the context: B is packed together, then blocks of C are tasks.
template <class S, class TA, class TB>
void gemm(Cpu& ctx, S alpha, Operand<TA> a, Operand<TB> b, Index K, S beta, Window<S> c) {
  using Tile = GemmTile<S>;
  if (ctx.threads() == 1 || c.rows * c.cols * K < 32 * 32 * 32)
    return gemm(ctx.workspace(), alpha, a, b, K, beta, c);
  for (Index col = 0; col < c.cols; col += Tile::kBlockCols) {
    const auto scope = ctx.workspace().scope();
    const Index width = std::min(Tile::kBlockCols, c.cols - col);
    const Index panels = (width + Tile::kCols - 1) / Tile::kCols;
    const Index padded = panels * Tile::kCols;
    S* packed_b = ctx.workspace().take<S>(padded * K);
    const Index group = std::max<Index>(1, panels / (4 * ctx.threads()));
    ctx.parallel_for((panels + group - 1) / group, [&](Index g, Workspace&) {
      for (Index p = g * group; p < std::min(panels, (g + 1) * group); ++p)
        pack_columns(b, K, col, width, padded, p, packed_b);
    });
    // Few rows: split the columns as well, so that every thread has a share.
    const Index row_tasks = (c.rows + Tile::kBlockRows - 1) / Tile::kBlockRows;
    const Index splits = std::clamp<Index>(2 * ctx.threads() / row_tasks, 1, panels);
    const Index per_split = (panels + splits - 1) / splits * Tile::kCols;
    const Index col_tasks = (width + per_split - 1) / per_split;
    ctx.parallel_for(row_tasks * col_tasks, [&](Index task, Workspace& scratch) {
      const Index row = task / col_tasks * Tile::kBlockRows, first = task % col_tasks * per_split;
      multiply_rows(scratch, a, row, std::min(Tile::kBlockRows, c.rows - row), K, packed_b, padded,
                    first, std::min(per_split, width - first), alpha, beta, c.data + col, c.stride);
    });
  }
}

/// The oracle, and the path of scalars without kernels.
template <class S, class TA, class TB>
void gemm_loops(S alpha, Operand<TA> a, Operand<TB> b, Index K, S beta, Window<S> c) {
  for (Index i = 0; i < c.rows; ++i) {
    for (Index j = 0; j < c.cols; ++j) {
      S sum(0);
      for (Index k = 0; k < K; ++k)
        sum = S(sum + scalar_cast<S>(*a.at(i, k)) * scalar_cast<S>(*b.at(k, j)));
      c(i, j) = beta == S(0) ? S(alpha * sum) : S(alpha * sum + beta * c(i, j));
    }
  }
}

template <class S, class TA, class TB>
void gemm(Reference&, S alpha, Operand<TA> a, Operand<TB> b, Index K, S beta, Window<S> c) {
  gemm_loops(alpha, a, b, K, beta, c);
}

template <class Context, class S, class TA, class TB>
void product(Context& ctx, S alpha, Operand<TA> a, Operand<TB> b, Index K, S beta, Window<S> c) {
  if (c.rows == 0 || c.cols == 0) return;
  if constexpr (Vectorized<S>) {
    gemm(ctx, alpha, a, b, K, beta, c);
  } else {
    gemm_loops(alpha, a, b, K, beta, c);
  }
}

}  // namespace simd

/// C[M,N] = alpha A[M,K] B[K,N] + beta C. The context is Reference, Cpu, or a task's Workspace.
template <class Context, class S, class TA, class TB>
void gemm_nn(Context& ctx, S alpha, Window<TA> a, Window<TB> b, S beta, Window<S> c) {
  RETNET_ASSERT(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows);
  simd::product(ctx, alpha, simd::plain(a), simd::plain(b), a.cols, beta, c);
}

/// C[M,N] = alpha A[M,K] B[N,K]^T + beta C.
template <class Context, class S, class TA, class TB>
void gemm_nt(Context& ctx, S alpha, Window<TA> a, Window<TB> b, S beta, Window<S> c) {
  RETNET_ASSERT(a.rows == c.rows && b.rows == c.cols && a.cols == b.cols);
  simd::product(ctx, alpha, simd::plain(a), simd::transposed(b), a.cols, beta, c);
}

/// C[M,N] = alpha A[K,M]^T B[K,N] + beta C.
template <class Context, class S, class TA, class TB>
void gemm_tn(Context& ctx, S alpha, Window<TA> a, Window<TB> b, S beta, Window<S> c) {
  RETNET_ASSERT(a.cols == c.rows && b.cols == c.cols && a.rows == b.rows);
  simd::product(ctx, alpha, simd::transposed(a), simd::plain(b), a.rows, beta, c);
}

}  // namespace retnet::inline RETNET_ABI
