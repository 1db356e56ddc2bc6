// SPDX-License-Identifier: MIT
// Normalisation of groups of columns: block norms have one group, the head norm one group a head.
//
//   rms:    xhat = x / sqrt(mean(x^2) + eps)             (Zhang & Sennrich 2019, Eq. 4)
//   layer:  xhat = (x - mean) / sqrt(var + eps)          (Ba et al. 2016, Eq. 4)
//   y = xhat w + b
//   dx = r (d - [layer] mean(d) - xhat mean(d xhat)),    d = dy w,  r = 1 / sqrt(...)
//
// w and b are empty, or as wide as one group (shared by the groups), or as wide as the row.
#pragma once

#include <cmath>

#include "retnet/core/context.hpp"
#include "retnet/core/window.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI {

enum class NormKind { none, rms, layer };

namespace detail {

template <class S>
struct NormStats {
  S mean;
  S inverse;  // 1 / sqrt(mean square or variance + eps)
};

template <class S>
NormStats<S> norm_stats(NormKind kind, double eps, const S* x, Index n) {
  using std::sqrt;
  const S count = S(static_cast<double>(n));
  S mean(0);
  if (kind == NormKind::layer) {
    mean =
        S(simd::sum_packs<S>(n, [=](auto p, Index i) { return decltype(p)::load(x + i); }) / count);
  }
  const S squares = simd::sum_packs<S>(n, [=](auto p, Index i) {
    using P = decltype(p);
    const P d = P::load(x + i) - P::broadcast(mean);
    return d * d;
  });
  return {mean, S(S(1) / S(sqrt(S(squares / count + S(eps)))))};
}

// Weights widened once per call, so that the inner loops see one type.
template <class S, class W>
const S* widen(Workspace& scratch, const Window<const W>& w) {
  if (w.empty()) return nullptr;
  if constexpr (std::same_as<S, W>) {
    return w.data;
  } else {
    S* out = scratch.take<S>(w.cols);
    for (Index i = 0; i < w.cols; ++i) out[i] = scalar_cast<S>(w.data[i]);
    return out;
  }
}

// From the weights of one group to those of the next; 0 when the groups share them.
template <class W>
Index group_step(const Window<W>& w, Index width) {
  return w.cols > width ? width : 0;
}

}  // namespace detail

/// y = norm(x) over each of `groups` equal parts of a row; y may be x.
template <class Context, class S, class W>
void norm(Context& ctx, NormKind kind, double eps, Index groups, Window<const W> weight,
          Window<const W> bias, Window<const S> x, Window<S> y) {
  const auto scope = ctx.workspace().scope();
  const S* w = detail::widen<S>(ctx.workspace(), weight);
  const S* b = detail::widen<S>(ctx.workspace(), bias);
  const Index width = x.cols / groups;
  const Index w_step = detail::group_step(weight, width), b_step = detail::group_step(bias, width);
  for_row_blocks(ctx, x.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      for (Index g = 0; g < groups; ++g) {
        const S* in = x.row(r) + g * width;
        S* out = y.row(r) + g * width;
        const auto stats = detail::norm_stats(kind, eps, in, width);
        simd::for_each_pack<S>(width, [&](auto p, Index i) {
          using P = decltype(p);
          P v = (P::load(in + i) - P::broadcast(stats.mean)) * P::broadcast(stats.inverse);
          if (w != nullptr) v = v * P::load(w + g * w_step + i);
          if (b != nullptr) v = v + P::load(b + g * b_step + i);
          v.store(out + i);
        });
      }
    }
  });
}

/// dx = gradient + beta dx; dweight and dbias accumulate. dx may be dy when beta is 0.
template <class Context, class S>
void norm_backward(Context& ctx, NormKind kind, double eps, Index groups, Window<const S> weight,
                   Window<const S> x, Window<const S> dy, Window<S> dweight, Window<S> dbias,
                   Window<S> dx, S beta = S(0)) {
  const Index width = x.cols / groups;
  const Index w_step = detail::group_step(weight, width);
  const Index dw_step = detail::group_step(dweight, width);
  const Index db_step = detail::group_step(dbias, width);
  const S* w = weight.data;
  const auto scope = ctx.workspace().scope();
  const Index blocks = (x.rows + kRowBlock - 1) / kRowBlock;
  const Index n_w = dweight.cols, n_b = dbias.cols;
  const Index partial_size = n_w + n_b;
  S* partial = ctx.workspace().template take<S>(blocks * partial_size + 1);
  std::fill_n(partial, blocks * partial_size, S(0));
  for_row_blocks(ctx, x.rows, [&](Index first, Index last) {
    S* dw = partial + first / kRowBlock * partial_size;
    S* db = dw + n_w;
    for (Index r = first; r < last; ++r) {
      for (Index g = 0; g < groups; ++g) {
        const S* in = x.row(r) + g * width;
        const S* d_out = dy.row(r) + g * width;
        S* d_in = dx.row(r) + g * width;
        const auto stats = detail::norm_stats(kind, eps, in, width);
        const auto xhat = [&](auto p, Index i) {
          using P = decltype(p);
          return (P::load(in + i) - P::broadcast(stats.mean)) * P::broadcast(stats.inverse);
        };
        const auto d = [&](auto p, Index i) {
          using P = decltype(p);
          const P v = P::load(d_out + i);
          return w != nullptr ? v * P::load(w + g * w_step + i) : v;
        };
        const S count = S(static_cast<double>(width));
        const S along =
            S(simd::sum_packs<S>(width, [&](auto p, Index i) { return d(p, i) * xhat(p, i); }) /
              count);
        const S mean = kind == NormKind::layer ? S(simd::sum_packs<S>(width, d) / count) : S(0);
        simd::for_each_pack<S>(width, [&](auto p, Index i) {
          using P = decltype(p);
          const P h = xhat(p, i), dyi = P::load(d_out + i);
          P v = P::broadcast(stats.inverse) *
                (d(p, i) - P::broadcast(mean) - h * P::broadcast(along));
          if (beta != S(0)) v = fma(P::broadcast(beta), P::load(d_in + i), v);
          if (n_w > 0) fma(dyi, h, P::load(dw + g * dw_step + i)).store(dw + g * dw_step + i);
          if (n_b > 0) (P::load(db + g * db_step + i) + dyi).store(db + g * db_step + i);
          v.store(d_in + i);
        });
      }
    }
  });
  for (Index b = 0; b < blocks; ++b) {  // in order: the sum does not depend on the threads
    for (Index i = 0; i < n_w; ++i)
      dweight.data[i] = S(dweight.data[i] + partial[b * partial_size + i]);
    for (Index i = 0; i < n_b; ++i)
      dbias.data[i] = S(dbias.data[i] + partial[b * partial_size + n_w + i]);
  }
}

}  // namespace retnet::inline RETNET_ABI
