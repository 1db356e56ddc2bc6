// SPDX-License-Identifier: MIT
// What a model remembers of N sequences: one entry for each block, of the type its mixer names.
#pragma once

#include <variant>
#include <vector>

#include "retnet/layers/key_value_state.hpp"
#include "retnet/layers/retention_state.hpp"

namespace retnet::inline RETNET_ABI {

/// The state of one block.
template <class S>
class LayerState : public std::variant<RetentionState<S>, KeyValueState<S>> {
 public:
  using Variant = std::variant<RetentionState<S>, KeyValueState<S>>;
  using Variant::Variant;

  /// Throws std::bad_variant_access if the block's mixer is something else.
  RetentionState<S>& retention() { return std::get<RetentionState<S>>(*this); }
  const RetentionState<S>& retention() const { return std::get<RetentionState<S>>(*this); }
  KeyValueState<S>& keys_and_values() { return std::get<KeyValueState<S>>(*this); }
  const KeyValueState<S>& keys_and_values() const { return std::get<KeyValueState<S>>(*this); }

  Index sequences() const {
    return visit([](const auto& s) { return s.sequences(); });
  }
  /// Tokens seen by sequence i.
  std::int64_t position(Index i) const {
    return visit([i](const auto& s) { return s.positions()[static_cast<std::size_t>(i)]; });
  }
  std::size_t bytes() const {
    return visit([](const auto& s) { return s.bytes(); });
  }
  void reset() {
    std::visit([](auto& s) { s.reset(); }, static_cast<Variant&>(*this));
  }
  void reset(Index i) {
    std::visit([i](auto& s) { s.reset(i); }, static_cast<Variant&>(*this));
  }
  LayerState select(std::span<const Index> order) const {
    return visit([&](const auto& s) { return LayerState(s.select(order)); });
  }

 private:
  template <class F>
  auto visit(F&& f) const {
    return std::visit(f, static_cast<const Variant&>(*this));
  }
};

template <class S>
class ModelState {
 public:
  std::vector<LayerState<S>> layers;
  KeyValueState<S> cross;  // of a cross-decoder; empty without one

  bool empty() const { return layers.empty(); }
  Index sequences() const { return layers.empty() ? 0 : layers.front().sequences(); }
  /// Tokens seen by sequence i.
  std::int64_t position(Index i = 0) const { return layers.front().position(i); }
  /// Constant for retention; keys and values grow with the tokens seen.
  std::size_t bytes() const {
    std::size_t n = cross.bytes();
    for (const auto& s : layers) n += s.bytes();
    return n;
  }
  /// RetentionState::defer for every layer of retention: generation with less memory traffic.
  void defer(Index tokens = 16) {
    for (auto& s : layers)
      if (auto* state = std::get_if<RetentionState<S>>(&s)) state->defer(tokens);
  }
  void reset() {
    for (auto& s : layers) s.reset();
    cross.reset();
  }
  void reset(Index i) {
    for (auto& s : layers) s.reset(i);
    if (!cross.empty()) cross.reset(i);
  }
  ModelState select(std::span<const Index> order) const {
    ModelState out;
    for (const auto& s : layers) out.layers.push_back(s.select(order));
    if (!cross.empty()) out.cross = cross.select(order);
    return out;
  }
};

}  // namespace retnet::inline RETNET_ABI
