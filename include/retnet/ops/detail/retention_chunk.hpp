// SPDX-License-Identifier: MIT
// The gradients of one head, those of the decay among them: inside one chunk, and the chunks in a
// row. The equations are those of retention_chunkwise.hpp.
#pragma once

#include "retnet/ops/retention.hpp"
#include "retnet/simd/gemm.hpp"
#include "retnet/simd/math.hpp"

namespace retnet::inline RETNET_ABI {

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

  Window<S> products(Window<const S> a, Window<const S> b, Index i, Index j, Index rows,
                     Index cols) const {  // a_i b_j^T
    Window<S> p(scratch.take<S>(rows * cols), rows, cols);
    gemm_nt(scratch, S(1), a.row_block(i, rows), b.row_block(j, cols), S(0), p);
    return p;
  }
  Window<S> scores(Window<const S> a, Window<const S> b, Index i, Index j, Index rows,
                   Index cols) const {  // (a_i b_j^T) * D
    const Window<S> p = products(a, b, i, j, rows, cols);
    apply_decay(i, j, p);
    return p;
  }
  // The weight e^{G_L - G_j} of row j in the state after the chunk. Its other end is the last row if
  // the sequence ends here, else a row of a later chunk, which counts it with q . dq.
  void add_state_decay_gradient(bool last, Window<const S> dk, Window<S> dlog) const {
    const Index end = length() - 1;
    for (Index j = 0; j < (last ? end : length()); ++j) {
      const S pull = simd::dot(k.row(j), dk.row(j), dk.cols);
      dlog(j, 0) -= pull;
      if (last) dlog(end, 0) += pull;
    }
  }
  // The weight D_nm = e^{G_n - G_m} of each pair n > m pulls at both ends.
  void add_decay_gradient(Index i, Index j, Window<const S> p, Window<const S> dp,
                          Window<S> dlog) const {
    for (Index r = 0; r < p.rows; ++r)
      for (Index c = 0; c < std::min(p.cols, i + r - j); ++c) {
        const S pull = p(r, c) * dp(r, c);
        dlog(i + r, 0) += pull;
        dlog(j + c, 0) -= pull;
      }
  }

  /// S' = e^{G_L} S + (e^{G_L - G_j} K)^T V
  void advance(Window<S> state) const {
    const auto scope = scratch.scope();
    gemm_tn(scratch, S(1), to_end(k), v, S(std::exp(total())), state);
  }

  /// dlog [L,1] collects dL/dG and may be empty. It is summed from what decays alone: the pair of a
  /// token with itself would enter as two equal numbers of opposite sign, and leave their rounding.
  void backward_queries(bool fresh, Window<const S> state, Window<const S> d_o, Window<S> dq,
                        Window<S> dlog) const {
    if (!fresh) {
      gemm_nt(scratch, S(1), d_o, state, S(0), dq);
      for (Index i = 0; i < length(); ++i)
        simd::scale(S(std::exp(g[i])), dq.row(i), dq.row(i), dq.cols);
    }
    for (Index i = 0; i < dlog.rows; ++i)
      dlog(i, 0) = fresh ? S(0) : simd::dot(q.row(i), dq.row(i), dq.cols);
    for_causal_tiles([&](Index i, Index j, Index rows, Index cols) {
      const auto scope = scratch.scope();
      const auto dp = scores(d_o, v, i, j, rows, cols);
      gemm_nn(scratch, S(1), dp, k.row_block(j, cols), fresh && j == 0 ? S(0) : S(1),
              dq.row_block(i, rows));
    });
  }

  void backward_keys_values(Window<S> dstate, Window<const S> d_o, Window<S> dk, Window<S> dv,
                            Window<S> dlog, bool last) const {
    const auto scope = scratch.scope();
    gemm_nn(scratch, S(1), to_end(k), dstate, S(0), dv);
    gemm_nt(scratch, S(1), to_end(v), dstate, S(0), dk);
    if (!dlog.empty()) add_state_decay_gradient(last, dk, dlog);
    for_causal_tiles([&](Index i, Index j, Index rows, Index cols) {
      const auto inner = scratch.scope();
      const auto p = scores(q, k, i, j, rows, cols);
      gemm_tn(scratch, S(1), p, d_o.row_block(i, rows), S(1), dv.row_block(j, cols));
      const auto dp = products(d_o, v, i, j, rows, cols);
      if (!dlog.empty()) add_decay_gradient(i, j, p, dp, dlog);
      apply_decay(i, j, dp);
      gemm_tn(scratch, S(1), dp, q.row_block(i, rows), S(1), dk.row_block(j, cols));
    });
    gemm_tn(scratch, S(1), from_start(q), d_o, S(std::exp(total())), dstate);
  }
};

/// The chunks of one head of one sequence, forwards and backwards.
template <class S>
class ChunkedHead {
 public:
  ChunkedHead(const RetentionInput<S>& in, Segment segment, Index h, Index chunk,
              Workspace& scratch)
      : in_(in),
        segment_(segment),
        h_(h),
        chunk_(std::min(chunk, segment.length)),
        scratch_(scratch) {
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

}  // namespace detail

}  // namespace retnet::inline RETNET_ABI
