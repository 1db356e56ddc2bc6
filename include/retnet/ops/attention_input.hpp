// SPDX-License-Identifier: MIT
// What softmax attention is given: rows, a past, and where gradients go.
#pragma once

#include <algorithm>

#include "retnet/core/sequences.hpp"
#include "retnet/core/window.hpp"

namespace retnet::inline RETNET_ABI {

/// Keys and values of the P tokens before the rows given. They lie in a ring: token m, counted from
/// the oldest, in row (first + m) % capacity.
template <class S>
struct AttentionPast {
  Window<const S> keys;    // [capacity,Hk*Dk]
  Window<const S> values;  // [capacity,Hk*Dv]
  Index first = 0;
  Index length = 0;  // P
};

template <class S>
struct AttentionInput {
  Window<const S> q;  // [R,H*Dk]
  Window<const S> k;  // [R,Hk*Dk]; query head h reads key head h / (H/Hk)
  Window<const S> v;  // [R,Hk*Dv]
  Index heads = 0;
  Index kv_heads = 0;
  const Sequences* sequences = nullptr;    // N sequences
  double scale = 1.0;                      // of the scores
  Index window = 0;                        // tokens that a query sees, its own included; 0: all
  const AttentionPast<S>* past = nullptr;  // [N]; null: no sequence has one

  Index key_dim() const { return q.cols / heads; }
  Index value_dim() const { return v.cols / kv_heads; }
  Index group() const { return heads / kv_heads; }
};

/// Where gradients go, on the rows of the sequences: dq is assigned; dk and dv are assigned, or
/// added to if several layers share the keys. The past is a constant.
template <class S>
struct AttentionGradient {
  Window<S> dq, dk, dv;
  bool add_keys_values = false;
};

namespace detail {

/// One key head of one sequence, with the group of query heads that read it.
template <class S>
struct AttentionHead {
  Window<const S> q;     // [T,G*Dk]
  Window<const S> k, v;  // [T,Dk], [T,Dv]
  Window<const S> past_k, past_v;
  Index past_first = 0;
  Index past = 0;
  Index window;
  S scale;

  AttentionHead(const AttentionInput<S>& in, Index s, Index kv)
      : window(in.window), scale(S(in.scale)) {
    const Segment rows = (*in.sequences)[s];
    q = in.q.row_block(rows.first_row, rows.length).head(kv, in.group() * in.key_dim());
    k = in.k.row_block(rows.first_row, rows.length).head(kv, in.key_dim());
    v = in.v.row_block(rows.first_row, rows.length).head(kv, in.value_dim());
    if (in.past == nullptr || in.past[s].length == 0) return;
    past_k = in.past[s].keys.head(kv, in.key_dim());
    past_v = in.past[s].values.head(kv, in.value_dim());
    past_first = in.past[s].first;
    past = in.past[s].length;
  }

  Index group() const { return q.cols / k.cols; }
  /// Row i sees the keys [first_key(i), end_key(i)).
  Index first_key(Index i) const {
    return window > 0 ? std::max<Index>(0, end_key(i) - window) : 0;
  }
  Index end_key(Index i) const { return past + i + 1; }
  const S* key(Index m) const {
    return m < past ? past_k.row((past_first + m) % past_k.rows) : k.row(m - past);
  }
  const S* value(Index m) const {
    return m < past ? past_v.row((past_first + m) % past_v.rows) : v.row(m - past);
  }
};

}  // namespace detail

}  // namespace retnet::inline RETNET_ABI
