// SPDX-License-Identifier: MIT
// Linear: y = x W^T + b, weights [out, in].
//
//   y[R,out] = x[R,in] W[out,in]^T + b[out]
//   dx = dy W        dW += dy^T x        db += sum over rows of dy
#pragma once

#include "retnet/simd/gemm.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

template <class S, class W>
void add_bias(const Window<const W>& bias, const Window<S>& y) {
  for (Index r = 0; r < y.rows; ++r)
    for (Index j = 0; j < y.cols; ++j) y(r, j) = S(y(r, j) + scalar_cast<S>(bias.data[j]));
}

// Four outputs at a time share the loads of x. One token reads every weight once: no packing.
template <class S, class W>
void dot_rows(const Window<const W>& w, Index first, Index last, const S* x, S* y) {
  using P = simd::Pack<S>;
  constexpr int kN = P::size;
  Index n = first;
  for (; n + 4 <= last; n += 4) {
    P acc[4] = {P::zero(), P::zero(), P::zero(), P::zero()};
    Index k = 0;
    for (; k + kN <= w.cols; k += kN) {
      const P xk = P::load(x + k);
      for (int i = 0; i < 4; ++i) acc[i] = fma(xk, simd::load_as<S, kN>(w.row(n + i) + k), acc[i]);
    }
    for (int i = 0; i < 4; ++i) {
      S tail(0);
      for (Index j = k; j < w.cols; ++j) tail += x[j] * scalar_cast<S>(w(n + i, j));
      y[n + i] = sum(acc[i]) + tail;
    }
  }
  for (; n < last; ++n) {
    P acc = P::zero();
    Index k = 0;
    for (; k + kN <= w.cols; k += kN)
      acc = fma(P::load(x + k), simd::load_as<S, kN>(w.row(n) + k), acc);
    S tail(0);
    for (; k < w.cols; ++k) tail += x[k] * scalar_cast<S>(w(n, k));
    y[n] = sum(acc) + tail;
  }
}

template <class S, class W>
void linear_single_token(Cpu& ctx, Window<const W> w, Window<const S> x, Window<S> y) {
  ctx.note("linear: single token");
  constexpr Index kOutputs = 64;
  const auto block = [&](Index task, Workspace&) {
    const Index first = task * kOutputs, last = std::min(w.rows, first + kOutputs);
    for (Index r = 0; r < x.rows; ++r) dot_rows(w, first, last, x.row(r), y.row(r));
  };
  const Index tasks = (w.rows + kOutputs - 1) / kOutputs;
  if (w.rows * w.cols * x.rows < (1 << 17)) {  // waking a thread would cost more than the product
    for (Index t = 0; t < tasks; ++t) block(t, ctx.workspace());
  } else {
    ctx.parallel_for(tasks, block);
  }
}

}  // namespace detail

/// Any context, any scalar. `single_token` marks a generation step (T = 1); the plain product
/// serves it as well.
template <class Context, class S, class W>
void linear(Context& ctx, Window<const W> weight, Window<const W> bias, Window<const S> x,
            Window<S> y, bool single_token = false) {
  RETNET_ASSERT(x.cols == weight.cols && y.cols == weight.rows && x.rows == y.rows);
  if constexpr (std::derived_from<Context, Cpu> && Vectorized<S>) {
    if (single_token) {
      detail::linear_single_token(ctx, weight, x, y);
      if (!bias.empty()) detail::add_bias(bias, y);
      return;
    }
  }
  gemm_nt(ctx, S(1), x, weight, S(0), y);
  if (!bias.empty()) detail::add_bias(bias, y);
}

/// dx = dy W + beta dx; dweight and dbias accumulate. Empty windows are skipped.
template <class Context, class S>
void linear_backward(Context& ctx, Window<const S> weight, Window<const S> x, Window<const S> dy,
                     Window<S> dweight, Window<S> dbias, Window<S> dx, S beta = S(0)) {
  if (!dx.empty()) gemm_nn(ctx, S(1), dy, weight, beta, dx);
  if (!dweight.empty()) gemm_tn(ctx, S(1), dy, x, S(1), dweight);
  if (dbias.empty()) return;
  for (Index r = 0; r < dy.rows; ++r)
    for (Index j = 0; j < dy.cols; ++j) dbias.data[j] = S(dbias.data[j] + dy(r, j));
}

}  // namespace retnet::inline RETNET_ABI
