// SPDX-License-Identifier: MIT
// Embedding: y[r] = scale E[token[r]];  dE[token[r]] += scale dy[r].
#pragma once

#include <cstdint>

#include "retnet/core/context.hpp"
#include "retnet/core/window.hpp"

namespace retnet::inline RETNET_ABI {

template <class Context, class S, class W>
void embedding(Context& ctx, double scale, const std::int32_t* tokens, Window<const W> table,
               Window<S> y) {
  const S factor = S(scale);
  for_row_blocks(ctx, y.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const W* e = table.row(tokens[r]);
      for (Index j = 0; j < y.cols; ++j) y(r, j) = S(factor * scalar_cast<S>(e[j]));
    }
  });
}

/// dtable accumulates. Columns are the tasks: two rows may hold the same token.
template <class Context, class S>
void embedding_backward(Context& ctx, double scale, const std::int32_t* tokens, Window<const S> dy,
                        Window<S> dtable) {
  const S factor = S(scale);
  for_row_blocks(ctx, dy.cols, [&](Index first, Index last) {
    for (Index r = 0; r < dy.rows; ++r) {
      S* d = dtable.row(tokens[r]);
      for (Index j = first; j < last; ++j) d[j] = S(d[j] + factor * dy(r, j));
    }
  });
}

}  // namespace retnet::inline RETNET_ABI
