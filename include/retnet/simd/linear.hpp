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
  static constexpr Index kChain = 256;  // terms added one by one; longer sums lose float's precision
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
      for_each_pack<S>(w.cols, [=](auto p, Index i) {
        load_as<S, decltype(p)::size>(from + i).store(to + i);
      });
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

/// sums[m][r] += the vectors of X tokens times those of R rows of weights, over whole vectors of
/// [0, depth).
template <int X, int R, class S, class W>
void add_products(Index depth, const W* w, Index w_step, const S* x, Index x_step, Pack<S>* memory) {
  using P = Pack<S>;
  constexpr Index kN = P::size;
  P sums[X][R];
#pragma GCC unroll 16
  for (int i = 0; i < X * R; ++i) sums[i / R][i % R] = memory[i];
  for (Index k = 0; k + kN <= depth; k += kN) {
    P weight[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) weight[r] = load_as<S, int{kN}>(w + r * w_step + k);
#pragma GCC unroll 4
    for (int m = 0; m < X; ++m) {
      const P token = P::load(x + m * x_step + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[m][r] = fma(token, weight[r], sums[m][r]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < X * R; ++i) memory[i] = sums[i / R][i % R];
}

/// R outputs of all tokens. One vector of sums for each, whatever the number of tokens, so its order
/// is that of one token alone; K goes in pieces whose tokens stay in the first cache.
template <int R, class S, class W>
void dot_outputs(Workspace& scratch, const Window<const W>& w, Index n, const Window<const S>& x,
                 const Window<S>& y) {
  using P = Pack<S>;
  constexpr Index kN = P::size, kCacheBytes = 24 << 10;
  const auto scope = scratch.scope();
  P* sums = scratch.take<P>(x.rows * R);
  std::fill_n(sums, x.rows * R, P::zero());
  const Index whole = w.cols / kN * kN;
  const Index fit = kCacheBytes / (x.rows * static_cast<Index>(sizeof(S))) / kN * kN;
  for (Index k = 0, piece = std::max(fit, 8 * kN); k < whole; k += piece) {
    const Index depth = std::min(piece, whole - k);
    const auto add = [&]<int X>(Index m) {
      add_products<X, R>(depth, w.row(n) + k, w.stride, x.row(m) + k, x.stride, sums + m * R);
    };
    Index m = 0;
    for (; m + 4 <= x.rows; m += 4) add.template operator()<4>(m);
    if (x.rows - m >= 2) add.template operator()<2>(m), m += 2;
    if (x.rows > m) add.template operator()<1>(m);
  }
  for (Index m = 0; m < x.rows; ++m)
    for (Index r = 0; r < R; ++r) {
      S tail(0);
      for (Index k = whole; k < w.cols; ++k) tail += x(m, k) * scalar_cast<S>(w(n + r, k));
      y(m, n + r) = sum(sums[m * R + r]) + tail;
    }
}

/// A generation step: few tokens, weights streamed once.
template <class S, class W>
void linear_step(Cpu& ctx, const Window<const W>& w, const Window<const W>& bias,
                 const Window<const S>& x, const Window<S>& y) {
  constexpr Index kOutputs = 64, kAtOnce = 4;
  const auto block = [&](Index task, Workspace& scratch) {
    const Index first = task * kOutputs, last = std::min(w.rows, first + kOutputs);
    Index n = first;
    for (; n + kAtOnce <= last; n += kAtOnce) dot_outputs<int{kAtOnce}>(scratch, w, n, x, y);
    for (; n < last; ++n) dot_outputs<1>(scratch, w, n, x, y);
    for (Index m = 0; m < x.rows && !bias.empty(); ++m)
      for (n = first; n < last; ++n) y(m, n) += scalar_cast<S>(bias.data[n]);
  };
  const Index tasks = (w.rows + kOutputs - 1) / kOutputs;
  if (w.rows * w.cols * x.rows < (1 << 17)) {  // waking a thread would cost more than the product
    for (Index t = 0; t < tasks; ++t) block(t, ctx.workspace());
  } else {
    ctx.parallel_for(tasks, block);
  }
}

}  // namespace retnet::inline RETNET_ABI::simd
