// SPDX-License-Identifier: MIT
// What every form of retention is given, and the definition that they all compute.
//
//   S_n = a_n S_{n-1} + k_n^T v_n        o_n = q_n S_n          (Sun et al. 2023, Eq. 6)
//   a_n = gamma_h, or exp(log_gate[n,h])
//
// q is already rotated and scaled; normalisation is a policy of the layer. The forms:
//   retention_parallel    retention_parallel.hpp     O(T^2): the definition
//   retention_recurrent   retention_recurrent.hpp    O(1) a token
//   retention_chunkwise   retention_chunkwise.hpp    O(T)
// State [N,H,Dk,Dv] goes in and comes out; a null state is zero on the way in and dropped after.
#pragma once

#include <algorithm>

#include "retnet/core/sequences.hpp"
#include "retnet/ops/decay.hpp"

namespace retnet::inline RETNET_ABI {

template <class S>
struct RetentionInput {
  Window<const S> q;  // [R,H*Dk]
  Window<const S> k;  // [R,Hk*Dk]; query head h reads key head h / (H/Hk)
  Window<const S> v;  // [R,Hk*Dv]
  Index heads = 0;
  Index kv_heads = 0;
  Decay<S> decay;
  const Sequences* sequences = nullptr;  // N sequences

  Index key_dim() const { return q.cols / heads; }
  Index value_dim() const { return v.cols / kv_heads; }
  Index group() const { return heads / kv_heads; }
  Index state_size() const { return key_dim() * value_dim(); }  // of one head
  Window<const S> query(Segment s, Index h) const {
    return q.row_block(s.first_row, s.length).head(h, key_dim());
  }
  Window<const S> key(Segment s, Index h) const {
    return k.row_block(s.first_row, s.length).head(h / group(), key_dim());
  }
  Window<const S> value(Segment s, Index h) const {
    return v.row_block(s.first_row, s.length).head(h / group(), value_dim());
  }
};

/// Where gradients go. dq, dk, dv are assigned on the rows of the sequences; dstate
/// [N,H,Dk,Dv] holds the gradient of the final state on the way in and that of the initial state
/// on the way out. dstate and dlog_decay may be empty.
template <class S>
struct RetentionGradient {
  Window<S> dq, dk, dv;
  S* dstate = nullptr;
  Window<S> dlog_decay;  // [R,H], by token also for a fixed decay: sum it for d ln gamma
};

namespace detail {

/// A zero state from scratch memory, for callers that give none.
template <class S>
S* zero_state(Workspace& scratch, const RetentionInput<S>& in) {
  const Index size = in.sequences->count() * in.heads * in.state_size();
  S* state = scratch.take<S>(size);
  std::fill_n(state, size, S(0));
  return state;
}

/// dlog[i] holds dL/dG_i of the running sum G; on return it holds dL/d(log a_i).
template <class S>
void reverse_cumulative(Window<S> dlog, Index first, Index length, Index h) {
  S total(0);
  for (Index i = length - 1; i >= 0; --i) {
    total = S(total + dlog(first + i, h));
    dlog(first + i, h) = total;
  }
}

}  // namespace detail

}  // namespace retnet::inline RETNET_ABI
