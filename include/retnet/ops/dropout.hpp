// SPDX-License-Identifier: MIT
// Dropout: y = x m / (1 - rate), m in {0, 1}. The mask is a function of (key, element), so backward
// draws it again instead of keeping it.
#pragma once

#include "retnet/core/context.hpp"
#include "retnet/core/rng.hpp"
#include "retnet/core/window.hpp"

namespace retnet::inline RETNET_ABI {

/// Names one mask: a training step, a layer and a place in it. Rate 0 switches dropout off.
struct DropoutKey {
  Seed seed;
  std::uint64_t step = 0;

  std::uint64_t stream(Index layer, Index site) const {
    return step << 24 | static_cast<std::uint64_t>(layer) << 8 | static_cast<std::uint64_t>(site);
  }
};

/// In place. Applied to the gradient it is its own backward.
template <class Context, class S>
void dropout(Context& ctx, double rate, Seed seed, std::uint64_t stream, Window<S> x) {
  if (rate <= 0.0) return;
  const S keep = S(1.0 / (1.0 - rate));
  const auto threshold = static_cast<std::uint32_t>(rate * 0x1.0p32);
  const Index groups = (x.cols + 3) / 4;
  for_row_blocks(ctx, x.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      for (Index g = 0; g < groups; ++g) {
        const auto words = philox(seed, stream, static_cast<std::uint64_t>(r * groups + g));
        for (Index j = 4 * g; j < std::min(x.cols, 4 * g + 4); ++j) {
          const bool kept = words[static_cast<std::size_t>(j - 4 * g)] >= threshold;
          x(r, j) = kept ? S(x(r, j) * keep) : S(0);
        }
      }
    }
  });
}

}  // namespace retnet::inline RETNET_ABI
