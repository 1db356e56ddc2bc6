// SPDX-License-Identifier: MIT
// Linear: y = x W^T + b, weights [out, in].
//
//   y[R,out] = x[R,in] W[out,in]^T + b[out]
//   dx = dy W        dW += dy^T x        db += sum over rows of dy
#pragma once

#include "retnet/simd/gemm.hpp"
#include "retnet/simd/linear.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

template <class S, class W>
void add_bias(const Window<const W>& bias, const Window<S>& y) {
  for (Index r = 0; r < y.rows; ++r)
    for (Index j = 0; j < y.cols; ++j) y(r, j) = S(y(r, j) + scalar_cast<S>(bias.data[j]));
}

}  // namespace detail

/// Any context, any scalar. `single_token` marks a generation step (T = 1); the plain product
/// serves it as well.
template <class Context, class S, class W>
void linear(Context& ctx, Window<const W> weight, Window<const W> bias, Window<const S> x,
            Window<S> y, bool single_token = false) {
  RETNET_ASSERT(x.cols == weight.cols && y.cols == weight.rows && x.rows == y.rows);
  if (y.rows == 0) return;
  if constexpr (std::derived_from<Context, Cpu> && Vectorized<S>) {
    ctx.note(single_token ? "linear: single token" : "linear: panels of tokens");
    return single_token ? simd::linear_step(ctx, weight, bias, x, y)
                        : simd::linear(ctx, weight, bias, x, y);
  } else {
    gemm_nt(ctx, S(1), x, weight, S(0), y);
    if (!bias.empty()) detail::add_bias(bias, y);
  }
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
