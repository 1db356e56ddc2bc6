// SPDX-License-Identifier: MIT
// What Attention, CrossAttention and SharedKeyValue do alike.
#pragma once

#include <initializer_list>
#include <utility>

#include "retnet/layers/key_value_state.hpp"
#include "retnet/layers/pass.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// Windows [rows, cols], one after the other in `memory`, or in scratch if that is null. One of no
/// columns is empty.
template <class Context, class S>
void lay_out(Context& ctx, Buffer<S>* memory, Index rows,
             std::initializer_list<std::pair<Window<S>*, Index>> windows) {
  constexpr Index kStep = 16;
  const auto size = [&](Index cols) { return (rows * cols + kStep - 1) / kStep * kStep; };
  Index total = 0;
  for (const auto& [window, cols] : windows) total += size(cols);
  if (memory != nullptr) memory->resize(total);
  S* place = memory != nullptr ? memory->data() : ctx.workspace().template take<S>(total);
  for (const auto& [window, cols] : windows) {
    *window = cols > 0 ? Window<S>(place, rows, cols) : Window<S>();
    place += size(cols);
  }
}

/// Of the first row of each sequence; a null or empty state is at 0.
template <class Context, class S>
const std::int64_t* positions_of(Context& ctx, const Sequences& sequences,
                                 const KeyValueState<S>* state) {
  if (state != nullptr && !state->empty()) return state->positions().data();
  auto* zeros = ctx.workspace().template take<std::int64_t>(sequences.count());
  std::fill_n(zeros, sequences.count(), 0);
  return zeros;
}

template <class Context, class S>
const AttentionPast<S>* pasts_of(Context& ctx, const KeyValueState<S>* state) {
  if (state == nullptr || state->empty()) return nullptr;
  auto* pasts = ctx.workspace().template take<AttentionPast<S>>(state->sequences());
  for (Index i = 0; i < state->sequences(); ++i) pasts[i] = state->past(i);
  return pasts;
}

/// How many queries at a time: the only thing in which the forms differ.
inline Index queries_of(Form form) {
  return form.kind == Form::Kind::recurrent   ? 1
         : form.kind == Form::Kind::chunkwise ? form.chunk
                                              : 0;
}

/// [R,H*D] as [R*H,D]: the heads as rows, for the norm of each.
template <class S>
Window<S> heads_as_rows(Window<S> x, Index width) {
  RETNET_ASSERT(x.stride == x.cols);
  return {x.data, x.rows * x.cols / width, width};
}

template <class S>
void zero(Window<S> x) {
  std::fill_n(x.data, x.rows * x.cols, S(0));
}

}  // namespace retnet::inline RETNET_ABI::detail
