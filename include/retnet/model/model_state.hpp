// SPDX-License-Identifier: MIT
// What a model remembers of N sequences: one entry for each block, of the type its mixer names.
#pragma once

#include <vector>

#include "retnet/layers/retention_state.hpp"

namespace retnet::inline RETNET_ABI {

template <class S>
class ModelState {
 public:
  std::vector<RetentionState<S>> layers;

  bool empty() const { return layers.empty(); }
  Index sequences() const { return layers.empty() ? 0 : layers.front().sequences(); }
  /// Tokens seen by sequence i.
  std::int64_t position(Index i = 0) const {
    return layers.front().positions()[static_cast<std::size_t>(i)];
  }
  std::size_t bytes() const {
    std::size_t n = 0;
    for (const auto& s : layers) n += s.bytes();
    return n;
  }
  void reset() {
    for (auto& s : layers) s.reset();
  }
  void reset(Index i) {
    for (auto& s : layers) s.reset(i);
  }
  ModelState select(std::span<const Index> order) const {
    ModelState out;
    for (const auto& s : layers) out.layers.push_back(s.select(order));
    return out;
  }
};

}  // namespace retnet::inline RETNET_ABI
