// SPDX-License-Identifier: MIT
// Clipping by the global norm (Pascanu et al. 2013, Algorithm 1).
#pragma once

#include <cmath>
#include <span>

#include "retnet/core/context.hpp"

namespace retnet::inline RETNET_ABI {

/// The Euclidean norm, summed in double in an order that does not depend on the threads.
template <class Context, class S>
double global_norm(Context& ctx, std::span<const S> values) {
  const auto scope = ctx.workspace().scope();
  constexpr Index kBlock = 4096;
  const auto size = static_cast<Index>(values.size());
  const Index blocks = (size + kBlock - 1) / kBlock;
  double* sums = ctx.workspace().template take<double>(blocks);
  for_tasks(ctx, blocks, [&](Index b, Workspace&) {
    double sum = 0.0;
    for (Index i = b * kBlock; i < std::min(size, (b + 1) * kBlock); ++i) {
      const auto v = static_cast<double>(values[static_cast<std::size_t>(i)]);
      sum += v * v;
    }
    sums[b] = sum;
  });
  double total = 0.0;
  for (Index b = 0; b < blocks; ++b) total += sums[b];
  return std::sqrt(total);
}

/// Scales values down to `limit` if their norm is larger; returns the norm before. A norm that is
/// not finite is returned and nothing is changed.
template <class Context, class S>
double clip_by_global_norm(Context& ctx, std::span<S> values, double limit) {
  const double norm = global_norm(ctx, std::span<const S>(values));
  if (!std::isfinite(norm) || norm <= limit) return norm;
  const S factor = S(limit / norm);
  for (S& v : values) v *= factor;
  return norm;
}

}  // namespace retnet::inline RETNET_ABI
