// SPDX-License-Identifier: MIT
// y = x W^T + b for weights [out, in] as they lie in memory. A sum's order depends on K alone: the
// bits of a token know neither of the other tokens nor of the thread.
//
// Many tokens (linear): every weight is read as a scalar that meets a panel of tokens, so nothing is
// packed but the tokens. One token of each sequence (linear_step): rows of weights and tokens meet as
// vectors along K; the weights are streamed once, which is what bounds generation.
#pragma once

#include <algorithm>

#include "retnet/core/context.hpp"
#include "retnet/core/window.hpp"
#include "retnet/simd/tile.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI::simd {

template <class S>
struct LinearShape {
  static constexpr int kRows = kRegisters == 32 ? 8 : 6;  // outputs of a tile
  static constexpr Index kTokens = 2 * kLanes<S>;         // of a panel
  static constexpr Index kPanelBytes = Index{1} << 19;    // packed tokens that stay in L2
  static constexpr Index kOutputs = 12 * kRows;           // of a task
  static constexpr Index kChain =
      256;  // terms added one by one; longer sums lose float's precision
};

/// kRows weights of consecutive outputs, by rows of `step`: where they lie, or widened and filled up
/// with zeros in `wide` [kRows,K].
template <class S, class W>
struct WeightRows {
  const S* data = nullptr;
  Index step = 0;

  WeightRows(const Window<const W>& w, Index first, Index count, S* wide) {
    constexpr Index kR = LinearShape<S>::kRows;
    if constexpr (std::same_as<S, W>) {
      if (count == kR) {
        data = w.row(first);
        step = w.stride;
        return;
      }
    }
    data = wide;
    step = w.cols;
    for (Index r = 0; r < count; ++r) {
      const W* from = w.row(first + r);
      S* to = wide + r * w.cols;
      for_each_pack<S>(
          w.cols, [=](auto p, Index i) { load_as<S, decltype(p)::size>(from + i).store(to + i); });
    }
    std::fill(wide + count * w.cols, wide + kR * w.cols, S(0));
  }
};

/// A tile of outputs, kRows by V vectors of tokens.
template <int V, class S, class W>
void linear_tile(const WeightRows<S, W>& a, Index depth, const S* b, const S* add, Index tokens,
                 Index outputs, S* y, Index stride) {
  using Shape = LinearShape<S>;
  Tile<S, Shape::kRows, V> sum;
  for (Index k = 0; k < depth; k += Shape::kChain) {
    Tile<S, Shape::kRows, V> part;
    part.accumulate(std::min(Shape::kChain, depth - k), a.data + k, a.step, b + k * Shape::kTokens,
                    Shape::kTokens);
    sum.add(part);
  }
  sum.store_transposed(y, stride, tokens, outputs, add);
}

/// Outputs [first, last) of packed tokens.
template <class S, class W>
void linear_outputs(Workspace& scratch, const Window<const W>& w, const Window<const W>& bias,
                    Index first, Index last, const S* packed, const Window<S>& y) {
  using Shape = LinearShape<S>;
  constexpr Index kR = Shape::kRows, kT = Shape::kTokens;
  S* wide = scratch.take<S>(kR * w.cols);
  for (Index n = first; n < last; n += kR) {
    const Index outputs = std::min(kR, last - n);
    const WeightRows<S, W> a(w, n, outputs, wide);
    S add[kR] = {};
    for (Index r = 0; r < outputs && !bias.empty(); ++r) add[r] = scalar_cast<S>(bias.data[n + r]);
    for (Index m = 0; m < y.rows; m += kT) {
      const Index tokens = std::min(kT, y.rows - m);
      const auto tile = tokens > kLanes<S> ? linear_tile<2, S, W> : linear_tile<1, S, W>;
      tile(a, w.cols, packed + m * w.cols, add, tokens, outputs, y.row(m) + n, y.stride);
    }
  }
}

template <class S, class W>
void linear(Cpu& ctx, const Window<const W>& w, const Window<const W>& bias,
            const Window<const S>& x, const Window<S>& y) {
  using Shape = LinearShape<S>;
  constexpr Index kT = Shape::kTokens;
  const Index depth = w.cols;
  const Index fit = Shape::kPanelBytes / (depth * static_cast<Index>(sizeof(S))) / kT * kT;
  const Index block = std::max(kT, fit);
  for (Index m = 0; m < x.rows; m += block) {
    const auto scope = ctx.workspace().scope();
    const Index tokens = std::min(block, x.rows - m), panels = (tokens + kT - 1) / kT;
    S* packed = ctx.workspace().take<S>(panels * kT * depth);
    ctx.parallel_for(panels, [&](Index p, Workspace&) {
      pack_transposed<kT>(x.row(m + p * kT), x.stride, std::min(kT, tokens - p * kT), depth,
                          static_cast<const S*>(nullptr), packed + p * kT * depth);
    });
    const Window<S> out = y.row_block(m, tokens);
    ctx.parallel_for((w.rows + Shape::kOutputs - 1) / Shape::kOutputs,
                     [&](Index task, Workspace& scratch) {
                       const Index first = task * Shape::kOutputs;
                       linear_outputs(scratch, w, bias, first,
                                      std::min(w.rows, first + Shape::kOutputs), packed, out);
                     });
  }
}

/// A generation step takes kOutputs outputs at a time. The sums of kTokens tokens with kRows rows of
/// weights stay in registers, as many columns of the tokens in the first cache.
template <class S>
struct StepShape {
  static constexpr int kRows = 4;
  static constexpr int kTokens = kRegisters == 32 ? 4 : 2;
  static constexpr Index kOutputs = 16;
  static constexpr Index kBatch = 16;             // tokens that meet the weights at once
  static constexpr Index kCacheBytes = 16 << 10;  // of tokens
  static constexpr Index kTask = 64;              // outputs of a task

  /// Columns of a piece: the same for all pieces of K, a multiple of every vector and cache line.
  static Index piece(Index tokens, Index depth) {
    const Index most = kCacheBytes / (tokens * static_cast<Index>(sizeof(S)));
    const Index pieces = (depth + most - 1) / most;
    return (depth + 64 * pieces - 1) / (64 * pieces) * 64;
  }
};

/// Keeps g++ from repeating a load as an operand of every multiply-add (as in simd::Tile).
template <class P>
inline P in_register(P p) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  if constexpr (P::size > 1) asm("" : "+v"(p.v));
#endif
  return p;
}

/// sums[m][r] += the vectors of X tokens times those of R rows of weights, over whole vectors of
/// [0, depth). Meanwhile F rows from `next` are fetched one after the other: the hardware sees R
/// streams, too short each to learn where they go.
template <int X, int R, int F, class S, class W>
void add_products(Index depth, const W* w, Index w_step, const W* next, const Pack<S>* x,
                  Index x_step, bool first, Pack<S>* memory) {
  using P = Pack<S>;
  constexpr Index kN = P::size, kOut = StepShape<S>::kOutputs;
  constexpr Index kLine = std::max<Index>(kN, 64 / static_cast<Index>(sizeof(W)));
  P sums[X][R];
#pragma GCC unroll 32
  for (int i = 0; i < X * R; ++i)
    sums[i / R][i % R] = first ? P::zero() : memory[i / R * kOut + i % R];
  const auto add = [&](Index k) {
    P weight[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) weight[r] = in_register(load_as<S, int{kN}>(w + r * w_step + k));
#pragma GCC unroll 8
    for (int m = 0; m < X; ++m) {
      const P token = in_register(x[m]);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[m][r] = fma(token, weight[r], sums[m][r]);
    }
    x += x_step;
  };
  Index k = 0, ahead = 0;
  for (; k + kLine <= depth; k += kLine) {
#pragma GCC unroll 4
    for (int r = 0; r < F; ++r) __builtin_prefetch(next + ahead + r * kLine);
    ahead += F * kLine;
    if (ahead >= depth) {
      ahead -= depth;
      next += w_step;
    }
#pragma GCC unroll 8
    for (Index i = 0; i < kLine; i += kN) add(k + i);
  }
  for (; k + kN <= depth; k += kN) add(k);
#pragma GCC unroll 32
  for (int i = 0; i < X * R; ++i) memory[i / R * kOut + i % R] = sums[i / R][i % R];
}

/// Lane i of the result is sum(rows[i]), its lanes added in the same order.
template <int B, class T, int N>
Pack<T, N> sum_each(Pack<T, N> (&rows)[N]) {
  if constexpr (B > 0) {
#pragma GCC unroll 8
    for (int i = 0; i < B; ++i) {
      exchange_lanes<B>(rows[i], rows[i + B], std::make_integer_sequence<int, N>{});
      rows[i] = rows[i] + rows[i + B];
    }
    return sum_each<B / 2>(rows);
  }
  return rows[0];
}

/// The first `count` lanes, then zeros.
template <class S, class From>
Pack<S> load_some(const From* p, Index count) {
  S lanes[kLanes<S>] = {};
  for (Index i = 0; i < count; ++i) lanes[i] = scalar_cast<S>(p[i]);
  return Pack<S>::load(lanes);
}

/// sums[m][r] = the products of all tokens with rows [n, n + outputs) of weights, over the whole
/// vectors of K. One vector for each, whatever the number of tokens, so its order is that of one
/// token alone.
template <class S, class W>
void step_products(const Window<const W>& w, Index n, Index outputs, const Pack<S>* x, Index tokens,
                   Index whole, Pack<S>* sums) {
  using Shape = StepShape<S>;
  constexpr Index kOut = Shape::kOutputs, kN = Pack<S>::size;
  const Index piece = Shape::piece(tokens, whole);
  // What is fetched lies some rows further in this walk: about as many bytes, at any number of
  // tokens, as arrive within the time that memory takes to answer.
  const Index tiles = tokens * static_cast<Index>(sizeof(S)) / (Shape::kRows * Index{sizeof(W)});
  const Index further = Shape::kRows * std::clamp<Index>(tiles, 1, kOut / Shape::kRows);
  const auto ahead = [&](Index row, Index k) {
    Index first = n;
    row += further;
    if (row >= kOut) row -= kOut, k += piece;
    if (k >= whole) k = 0, first += kOut;
    return first + row + Shape::kRows <= w.rows ? w.row(first + row) + k : w.row(n);
  };
  for (Index k = 0; k < whole; k += piece) {
    const Index depth = std::min(piece, whole - k);
    const auto add_rows = [&]<int R>(Index r) {
      const W* from = w.row(n + r) + k;
      const W* next = ahead(r, k);
      Index m = 0, fetched = 0;
      const auto add_tokens = [&]<int X, int F>() {
        add_products<X, R, F>(depth, from, w.stride, next, x + k / kN * tokens + m, tokens, k == 0,
                              sums + m * kOut + r);
        m += X;
        fetched += F;
        next = fetched < R ? next + F * w.stride : from;
      };
      // The fetching is spread over the groups of tokens, so that memory never rests.
      constexpr int kX = Shape::kTokens;
      const auto add_groups = [&]<int F>() {
        while (m + kX <= tokens) add_tokens.template operator()<kX, F>();
        if constexpr (kX > 2)
          if (m + 2 <= tokens) add_tokens.template operator()<2, F>();
        if (m < tokens) add_tokens.template operator()<1, F>();
      };
      const Index groups = tokens / kX + tokens % kX / 2 + tokens % 2;
      if (groups == 1)
        add_groups.template operator()<R>();
      else if (groups < R)
        add_groups.template operator()<(R + 1) / 2>();
      else
        add_groups.template operator()<1>();
    };
    Index r = 0;
    for (; r + Shape::kRows <= outputs; r += Shape::kRows)
      add_rows.template operator()<Shape::kRows>(r);
    for (; r < outputs; ++r) add_rows.template operator()<1>(r);
  }
}

/// Up to kOutputs outputs of up to kBatch tokens.
template <class S, class W>
void step_outputs(const Window<const W>& w, const Window<const W>& bias, Index n, Index outputs,
                  const Pack<S>* x, const Window<S>& y, Pack<S>* sums) {
  using P = Pack<S>;
  constexpr Index kN = P::size, kOut = StepShape<S>::kOutputs;
  const Index tokens = y.rows, whole = w.cols / kN * kN, rest = w.cols - whole;
  if (whole > 0)
    step_products(w, n, outputs, x, tokens, whole, sums);
  else
    std::fill_n(sums, tokens * kOut, P::zero());
  for (Index r = 0; r < outputs && rest > 0; ++r) {
    const P weight = load_some<S>(w.row(n + r) + whole, rest);
    for (Index m = 0; m < tokens; ++m) {
      P& sum = sums[m * kOut + r];
      sum = fma(x[whole / kN * tokens + m], weight, sum);
    }
  }
  for (Index r = 0; r < outputs; r += kN) {
    const Index count = std::min(kN, outputs - r);
    const P add = bias.empty() ? P::zero() : load_some<S>(bias.data + n + r, count);
    for (Index m = 0; m < tokens; ++m) {
      P rows[kN];
#pragma GCC unroll 16
      for (int i = 0; i < kN; ++i) rows[i] = sums[m * kOut + r + i];
      const P result = sum_each<int{kN} / 2>(rows) + add;
      if (count == kN)
        result.store(y.row(m) + n + r);
      else
        std::memcpy(y.row(m) + n + r, &result.v, static_cast<std::size_t>(count) * sizeof(S));
    }
  }
}

/// Vectors of tokens along K, those of kBatch tokens side by side, the last one filled with zeros.
template <class S>
const Pack<S>* pack_tokens(const Window<const S>& x, Workspace& scratch) {
  using P = Pack<S>;
  constexpr Index kN = P::size, kBatch = StepShape<S>::kBatch;
  const Index packs = (x.cols + kN - 1) / kN;
  P* out = scratch.take<P>(x.rows * packs);
  for (Index first = 0; first < x.rows; first += kBatch) {
    const Index tokens = std::min(kBatch, x.rows - first);
    for (Index m = 0; m < tokens; ++m) {
      const S* row = x.row(first + m);
      P* to = out + first * packs + m;
      for (Index k = 0; k < x.cols; k += kN, to += tokens)
        *to = k + kN <= x.cols ? P::load(row + k) : load_some<S>(row + k, x.cols - k);
    }
  }
  return out;
}

/// A generation step: few tokens, weights streamed once.
template <class S, class W>
void linear_step(Cpu& ctx, const Window<const W>& w, const Window<const W>& bias,
                 const Window<const S>& x, const Window<S>& y) {
  using Shape = StepShape<S>;
  const auto scope = ctx.workspace().scope();
  const Pack<S>* packed = pack_tokens(x, ctx.workspace());
  const Index packs = (x.cols + Pack<S>::size - 1) / Pack<S>::size;
  const auto block = [&](Index task, Workspace& scratch) {
    auto* sums = scratch.take<Pack<S>>(Shape::kBatch * Shape::kOutputs);
    const Index last = std::min(w.rows, (task + 1) * Shape::kTask);
    for (Index n = task * Shape::kTask; n < last; n += Shape::kOutputs)
      for (Index m = 0; m < x.rows; m += Shape::kBatch)
        step_outputs(w, bias, n, std::min(Shape::kOutputs, last - n), packed + m * packs,
                     y.row_block(m, std::min(Shape::kBatch, x.rows - m)), sums);
  };
  const Index tasks = (w.rows + Shape::kTask - 1) / Shape::kTask;
  if (w.rows * w.cols * x.rows < (1 << 17)) {  // waking a thread would cost more than the product
    for (Index t = 0; t < tasks; ++t) {
      const auto task_scope = ctx.workspace().scope();
      block(t, ctx.workspace());
    }
  } else {
    ctx.parallel_for(tasks, block);
  }
}

}  // namespace retnet::inline RETNET_ABI::simd
