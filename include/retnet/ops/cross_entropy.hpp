// SPDX-License-Identifier: MIT
// Cross-entropy of the next token, mean over the rows that have a target.
//
//   L     = 1/N sum_r (log sum_v exp(z_rv) - z_r,target)
//   dz_rv = (softmax(z_r)_v - [v = target]) / N
#pragma once

#include <cmath>
#include <cstdint>

#include "retnet/core/context.hpp"
#include "retnet/core/window.hpp"
#include "retnet/simd/math.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI {

/// Rows with this target are left out: padding, document borders.
inline constexpr std::int32_t kIgnore = -1;

struct LossSum {
  double sum = 0.0;  // nats
  Index rows = 0;    // rows with a target
  double mean() const { return rows > 0 ? sum / static_cast<double>(rows) : 0.0; }
};

/// The summed loss in nats. When `gradient_scale` is not 0, logits become
/// gradient_scale (softmax - onehot), rows without a target zero.
template <class Context, class S>
LossSum cross_entropy(Context& ctx, const std::int32_t* targets, Window<S> logits,
                      double gradient_scale = 0.0) {
  const auto scope = ctx.workspace().scope();
  double* losses = ctx.workspace().template take<double>(logits.rows);
  for_row_blocks(ctx, logits.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      S* z = logits.row(r);
      const Index n = logits.cols;
      losses[r] = 0.0;
      if (targets[r] == kIgnore) {
        if (gradient_scale != 0.0) std::fill_n(z, n, S(0));
        continue;
      }
      S highest = z[0];
      for (Index j = 1; j < n; ++j) highest = highest < z[j] ? z[j] : highest;
      const S target = z[targets[r]];
      const S total = simd::sum_packs<S>(n, [&](auto p, Index i) {
        using P = decltype(p);
        const P e = exp(P::load(z + i) - P::broadcast(highest));
        if (gradient_scale != 0.0) e.store(z + i);
        return e;
      });
      losses[r] = std::log(static_cast<double>(total)) + static_cast<double>(highest - target);
      if (gradient_scale == 0.0) continue;
      simd::scale(S(S(gradient_scale) / total), z, z, n);
      z[targets[r]] = S(z[targets[r]] - S(gradient_scale));
    }
  });
  LossSum loss;
  for (Index r = 0; r < logits.rows; ++r) {
    loss.sum += losses[r];
    loss.rows += targets[r] != kIgnore;
  }
  return loss;
}

}  // namespace retnet::inline RETNET_ABI
