// SPDX-License-Identifier: MIT
// The chunkwise form (Sun et al. 2023, Eq. 7): quadratic inside a chunk, recurrent between chunks.
// With G_i the log decay from the chunk's start to after its row i, and L its length:
//
//   O   = (Q K^T * D) V + (e^{G_i} Q) S              inner + cross
//   S' = e^{G_L} S + (e^{G_L - G_j} K)^T V           a ragged last chunk advances by its own length
//
// Backward in two passes, so that no state of a chunk is ever stored. With W = D and P = Q K^T:
//   forwards,  S:   dQ = ((dO V^T) * W) K + e^{G_i} (dO S^T)
//   backwards, dS:  dK = ((dO V^T) * W)^T Q + e^{G_L - G_j} (V dS^T)
//                   dV = (P * W)^T dO       + e^{G_L - G_j} (K dS)
//                   dS' = e^{G_L} dS + (e^{G_i} Q)^T dO
//   decay:          dL/dG_i = q_i . dq_i - k_i . dk_i, plus <dS_T, S_T> at the last row
#pragma once

#include "retnet/ops/retention.hpp"
#include "retnet/ops/retention_parallel.hpp"
#include "retnet/simd/gemm.hpp"
#include "retnet/simd/math.hpp"

namespace retnet::inline RETNET_ABI {

/// Plain loops over the equation, for the oracle and for scalars without kernels.
template <class S>
void retention_chunkwise(Reference& ctx, const RetentionInput<S>& in, Index chunk, S* state,
                         Window<S> o) {
  ctx.note("retention_chunkwise: reference");
  const auto scope = ctx.workspace().scope();
  if (state == nullptr) state = detail::zero_state(ctx.workspace(), in);
  // A chunk from a given state is the parallel form of its rows, one sequence at a time.
  for (Index s = 0; s < in.sequences->count(); ++s) {
    const Segment segment = (*in.sequences)[s];
    for (Index c = 0; c < segment.length; c += chunk) {
      const Index first = segment.first_row + c, length = std::min(chunk, segment.length - c);
      const Sequences one = Sequences::dense(1, length);
      RetentionInput<S> part = in;
      part.q = in.q.row_block(first, length);
      part.k = in.k.row_block(first, length);
      part.v = in.v.row_block(first, length);
      if (in.decay.gated()) part.decay.log_gate = in.decay.log_gate.row_block(first, length);
      part.sequences = &one;
      retention_parallel(ctx, part, state + s * in.heads * in.state_size(),
                         o.row_block(first, length));
    }
  }
}

namespace detail {

/// One head of one chunk: operands and the decays that go with them.
template <class S>
struct Chunk {
  static constexpr Index kTile = 64;  // rows of the score matrix that exist at one time

  Window<const S> q, k, v;  // [L,Dk], [L,Dk], [L,Dv]
  const double* g;          // [L] running log decay
  const S* powers;          // fixed decay: powers[L-1-d] = gamma^d; null when gated
  Workspace& scratch;

  Index length() const { return q.rows; }
  double total() const { return g[length() - 1]; }

  /// Multiplies scores [rows i0.., columns j0..] by D; entries above the diagonal become 0.
  void apply_decay(Index i0, Index j0, Window<S> p) const {
    for (Index r = 0; r < p.rows; ++r) {
      const Index i = i0 + r;
      const Index n = std::clamp<Index>(i - j0 + 1, 0, p.cols);
      S* row = p.row(r);
      if (powers != nullptr) {
        const S* w = powers + (length() - 1 - (i - j0));
        simd::for_each_pack<S>(n, [=](auto t, Index j) {
          using P = decltype(t);
          (P::load(row + j) * P::load(w + j)).store(row + j);
        });
      } else {
        alignas(kAlignment) S diff[kTile];
        for (Index j = 0; j < n; j += kTile) {
          const Index m = std::min(kTile, n - j);
          for (Index t = 0; t < m; ++t) diff[t] = S(g[i] - g[j0 + j + t]);
          simd::for_each_pack<S>(m, [=, d = diff](auto x, Index t) {
            using P = decltype(x);
            (P::load(row + j + t) * exp(P::load(d + t))).store(row + j + t);
          });
        }
      }
      std::fill(row + n, row + p.cols, S(0));
    }
  }

  /// out[i] = e^{exponent(i)} x[i], exponent in double.
  template <class F>
  Window<S> scaled(Window<const S> x, F&& exponent) const {
    Window<S> out(scratch.take<S>(x.rows * x.cols), x.rows, x.cols);
    for (Index i = 0; i < x.rows; ++i)
      simd::scale(S(std::exp(exponent(i))), x.row(i), out.row(i), x.cols);
    return out;
  }
  Window<S> from_start(Window<const S> x) const {  // e^{G_i} x_i
    return scaled(x, [this](Index i) { return g[i]; });
  }
  Window<S> to_end(Window<const S> x) const {  // e^{G_L - G_i} x_i
    return scaled(x, [this](Index i) { return total() - g[i]; });
  }

  /// f(i0, j0, rows, cols) over the tiles on and below the diagonal.
  template <class F>
  void for_causal_tiles(F&& f) const {
    for (Index i = 0; i < length(); i += kTile) {
      const Index rows = std::min(kTile, length() - i);
      for (Index j = 0; j < i + rows; j += 4 * kTile)
        f(i, j, rows, std::min(4 * kTile, i + rows - j));
    }
  }

  Window<S> scores(Window<const S> a, Window<const S> b, Index i, Index j, Index rows,
                   Index cols) const {  // (a_i b_j^T) * D
    Window<S> p(scratch.take<S>(rows * cols), rows, cols);
    gemm_nt(scratch, S(1), a.row_block(i, rows), b.row_block(j, cols), S(0), p);
    apply_decay(i, j, p);
    return p;
  }

  /// S' = e^{G_L} S + (e^{G_L - G_j} K)^T V
  void advance(Window<S> state) const {
    const auto scope = scratch.scope();
    gemm_tn(scratch, S(1), to_end(k), v, S(std::exp(total())), state);
  }

  void forward(bool fresh, Window<S> state, Window<S> o) const {
    {
      const auto scope = scratch.scope();
      if (!fresh) gemm_nn(scratch, S(1), from_start(q), state, S(0), o);
    }
    for_causal_tiles([&](Index i, Index j, Index rows, Index cols) {
      const auto scope = scratch.scope();
      const auto p = scores(q, k, i, j, rows, cols);
      gemm_nn(scratch, S(1), p, v.row_block(j, cols), fresh && j == 0 ? S(0) : S(1),
              o.row_block(i, rows));
    });
  }

  void backward_queries(bool fresh, Window<const S> state, Window<const S> d_o, Window<S> dq) const {
    if (!fresh) {
      gemm_nt(scratch, S(1), d_o, state, S(0), dq);
      for (Index i = 0; i < length(); ++i)
        simd::scale(S(std::exp(g[i])), dq.row(i), dq.row(i), dq.cols);
    }
    for_causal_tiles([&](Index i, Index j, Index rows, Index cols) {
      const auto scope = scratch.scope();
      const auto dp = scores(d_o, v, i, j, rows, cols);
      gemm_nn(scratch, S(1), dp, k.row_block(j, cols), fresh && j == 0 ? S(0) : S(1),
              dq.row_block(i, rows));
    });
  }

  void backward_keys_values(Window<S> dstate, Window<const S> d_o, Window<S> dk,
                            Window<S> dv) const {
    const auto scope = scratch.scope();
    gemm_nn(scratch, S(1), to_end(k), dstate, S(0), dv);
    gemm_nt(scratch, S(1), to_end(v), dstate, S(0), dk);
    for_causal_tiles([&](Index i, Index j, Index rows, Index cols) {
      const auto inner = scratch.scope();
      const auto p = scores(q, k, i, j, rows, cols);
      gemm_tn(scratch, S(1), p, d_o.row_block(i, rows), S(1), dv.row_block(j, cols));
      const auto dp = scores(d_o, v, i, j, rows, cols);
      gemm_tn(scratch, S(1), dp, q.row_block(i, rows), S(1), dk.row_block(j, cols));
    });
    gemm_tn(scratch, S(1), from_start(q), d_o, S(std::exp(total())), dstate);
  }
};

/// The chunks of one head of one sequence, forwards and backwards.
template <class S>
class ChunkedHead {
 public:
  ChunkedHead(const RetentionInput<S>& in, Segment segment, Index h, Index chunk, Workspace& scratch)
      : in_(in), segment_(segment), h_(h), chunk_(std::min(chunk, segment.length)), scratch_(scratch) {
    g_ = scratch.take<double>(chunk_);
    if (in.decay.gated()) return;
    powers_ = scratch.take<S>(chunk_);
    const double log_gamma = in.decay.log_gamma[static_cast<std::size_t>(h)];
    cumulative_log_decay(in.decay, h, Index{0}, chunk_, g_);
    for (Index d = 0; d < chunk_; ++d)
      powers_[chunk_ - 1 - d] = S(std::exp(static_cast<double>(d) * log_gamma));
  }

  Index count() const { return (segment_.length + chunk_ - 1) / chunk_; }
  Index first(Index c) const { return segment_.first_row + c * chunk_; }
  Index length(Index c) const { return std::min(chunk_, segment_.length - c * chunk_); }

  Chunk<S> operator[](Index c) const {
    const Segment rows{first(c), length(c)};
    if (powers_ == nullptr) cumulative_log_decay(in_.decay, h_, rows.first_row, rows.length, g_);
    // powers of a shorter chunk: the same table, entered later
    const S* powers = powers_ ? powers_ + (chunk_ - rows.length) : nullptr;
    return {in_.query(rows, h_), in_.key(rows, h_), in_.value(rows, h_), g_, powers, scratch_};
  }

 private:
  const RetentionInput<S>& in_;
  Segment segment_;
  Index h_;
  Index chunk_;
  Workspace& scratch_;
  double* g_ = nullptr;
  S* powers_ = nullptr;
};

template <class S>
void chunkwise_head_backward(const RetentionInput<S>& in, Index s, Index h, Index chunk,
                             const S* initial, Window<const S> d_o, const RetentionGradient<S>& grad,
                             Workspace& scratch) {
  const Segment segment = (*in.sequences)[s];
  const Index dk = in.key_dim(), dv = in.value_dim(), size = dk * dv, kv = h / in.group();
  const Index at = (s * in.heads + h) * size;
  const ChunkedHead<S> head(in, segment, h, chunk, scratch);
  const Window<S> state(scratch.take<S>(size), dk, dv), dstate(scratch.take<S>(size), dk, dv);
  const Window<S> dkey(scratch.take<S>(std::min(chunk, segment.length) * dk), 0, dk);
  const Window<S> dvalue(scratch.take<S>(std::min(chunk, segment.length) * dv), 0, dv);
  const auto rows = [](auto window, Index c_rows) { window.rows = c_rows; return window; };
  initial ? std::copy_n(initial + at, size, state.data) : std::fill_n(state.data, size, S(0));
  grad.dstate ? std::copy_n(grad.dstate + at, size, dstate.data) : std::fill_n(dstate.data, size, S(0));

  for (Index c = 0; c < head.count(); ++c) {
    const auto block = head[c];
    const auto dq = grad.dq.row_block(head.first(c), block.length()).head(h, dk);
    block.backward_queries(initial == nullptr && c == 0, state,
                           d_o.row_block(head.first(c), block.length()).head(h, dv), dq);
    if (c + 1 < head.count() || !grad.dlog_decay.empty()) block.advance(state);
  }
  if (!grad.dlog_decay.empty())
    grad.dlog_decay(segment.first_row + segment.length - 1, h) = simd::dot(state.data, dstate.data, size);

  for (Index c = head.count() - 1; c >= 0; --c) {
    const auto block = head[c];
    const Index n = block.length();
    const auto dkc = rows(dkey, n), dvc = rows(dvalue, n);
    block.backward_keys_values(dstate, d_o.row_block(head.first(c), n).head(h, dv), dkc, dvc);
    for (Index i = 0; i < n; ++i) {
      const Index r = head.first(c) + i;
      S* dk_row = grad.dk.row(r) + kv * dk;
      S* dv_row = grad.dv.row(r) + kv * dv;
      if (h % in.group() == 0) {  // the first query head of the group assigns, the others add
        std::copy_n(dkc.row(i), dk, dk_row);
        std::copy_n(dvc.row(i), dv, dv_row);
      } else {
        simd::add(dkc.row(i), dk_row, dk);
        simd::add(dvc.row(i), dv_row, dv);
      }
      if (grad.dlog_decay.empty()) continue;
      const S along = simd::dot(block.q.row(i), grad.dq.row(r) + h * dk, dk) -
                      simd::dot(block.k.row(i), dkc.row(i), dk);
      const bool last = c + 1 == head.count() && i + 1 == n;
      grad.dlog_decay(r, h) = last ? grad.dlog_decay(r, h) + along : along;
    }
  }
  if (grad.dstate) std::copy_n(dstate.data, size, grad.dstate + at);
  if (!grad.dlog_decay.empty())
    reverse_cumulative(grad.dlog_decay, segment.first_row, segment.length, h);
}

}  // namespace detail

template <Vectorized S>
void retention_chunkwise(Cpu& ctx, const RetentionInput<S>& in, Index chunk, S* state, Window<S> o) {
  ctx.note("retention_chunkwise: packed tiles");
  const Index dk = in.key_dim(), dv = in.value_dim();
  ctx.parallel_for(in.sequences->count() * in.heads, [&](Index task, Workspace& scratch) {
    const Index s = task / in.heads, h = task % in.heads;
    const detail::ChunkedHead<S> head(in, (*in.sequences)[s], h, chunk, scratch);
    Window<S> st(state ? state + task * dk * dv : nullptr, dk, dv);
    if (!state && head.count() > 1) {
      st.data = scratch.take<S>(dk * dv);
      std::fill_n(st.data, dk * dv, S(0));
    }
    for (Index c = 0; c < head.count(); ++c) {
      const auto block = head[c];
      block.forward(!state && c == 0, st, o.row_block(head.first(c), block.length()).head(h, dv));
      if (state || c + 1 < head.count()) block.advance(st);
    }
  });
}

/// The gradients of the same function as retention_parallel_backward, in O(T) and without stored
/// states. `state` is the initial state that forward was given.
template <Vectorized S>
void retention_chunkwise_backward(Cpu& ctx, const RetentionInput<S>& in, Index chunk, const S* state,
                                  Window<const S> d_o, const RetentionGradient<S>& grad) {
  ctx.note("retention_chunkwise_backward: packed tiles");
  ctx.parallel_for(in.sequences->count() * in.kv_heads, [&](Index task, Workspace& scratch) {
    const Index s = task / in.kv_heads, kv = task % in.kv_heads;
    for (Index h = kv * in.group(); h < (kv + 1) * in.group(); ++h) {  // one group adds in order
      const auto scope = scratch.scope();
      detail::chunkwise_head_backward(in, s, h, chunk, state, d_o, grad, scratch);
    }
  });
}

/// Without kernels the gradient of either form is the definition's.
template <class S>
void retention_chunkwise_backward(Reference& ctx, const RetentionInput<S>& in, Index, const S* state,
                                  Window<const S> d_o, const RetentionGradient<S>& grad) {
  retention_parallel_backward(ctx, in, state, d_o, grad);
}

/// On kernels the parallel form is one chunk of causal tiles: O(T^2) work, no T x T memory.
template <Vectorized S>
void retention_parallel(Cpu& ctx, const RetentionInput<S>& in, S* state, Window<S> o) {
  retention_chunkwise(ctx, in, in.sequences->longest(), state, o);
}
template <Vectorized S>
void retention_parallel_backward(Cpu& ctx, const RetentionInput<S>& in, const S* state,
                                 Window<const S> d_o, const RetentionGradient<S>& grad) {
  retention_chunkwise_backward(ctx, in, in.sequences->longest(), state, d_o, grad);
}

}  // namespace retnet::inline RETNET_ABI
