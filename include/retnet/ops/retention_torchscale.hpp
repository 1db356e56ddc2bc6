// SPDX-License-Identifier: MIT
// The scaling of the torchscale implementation, where each form divides by something else. It is
// here to reproduce checkpoints of that family; its own forms differ by up to 7e-2. To train, or to
// change the form in the middle of a sequence, use the row-sum normalisation.
//
//   parallel   P = (Q K^T * D) / sqrt(s_n);  a_n = clamp(sum_m |P_nm|, 1, 5e4), not differentiated;
//              o = P V / a
//   chunkwise  with rho_i the row sums inside a chunk of B rows:
//              P = (Q K^T * D) / sqrt(rho_i);  a_i = max(1, sum |P_i|)
//              R_c = gamma^B R_{c-1} + K^T (V gamma^{B-1-j}) / rho_{B-1}
//              b_c = max(1, max_j sum_d |R_c[d,j]|)
//              o = (P V + gamma^{i+1} rho_{B-1} / sqrt(rho_i) q_i R_{c-1}) / max(a_i, b_{c-1})
//   recurrent  o = q S / sqrt(s_n): the row-sum normalisation
//
// Before 2023-09-29 (v1) a_n of the parallel form was max(|sum_m P_nm|, 1), and sqrt(rho_{B-1}) stood
// in both places where rho_{B-1} stands above.
//
// Plain loops for every context; fixed decay only; sequences start at position 0.
#pragma once

#include <cmath>

#include "retnet/ops/retention.hpp"

namespace retnet::inline RETNET_ABI {

enum class TorchscaleVersion { v1, v2 };

namespace detail {

template <class S>
S absolute(S x) {
  return x < S(0) ? S(S(0) - x) : x;
}

template <class S>
struct ScoreSums {
  S signed_sum;
  S absolute_sum;
};

// p[m] = sum_d q[n,d] k[m,d] gamma^(n-m) / sqrt(s_n) for m <= n; returns the sums of p and of |p|.
template <class S>
ScoreSums<S> torchscale_scores(Window<const S> q, Window<const S> k, Index n, double log_gamma,
                               S* p) {
  const double norm = std::sqrt(decay_row_sum(log_gamma, n));
  ScoreSums<S> total{S(0), S(0)};
  for (Index m = 0; m <= n; ++m) {
    S score(0);
    for (Index d = 0; d < q.cols; ++d) score = S(score + q(n, d) * k(m, d));
    p[m] = S(score * S(std::exp(static_cast<double>(n - m) * log_gamma) / norm));
    total.signed_sum = S(total.signed_sum + p[m]);
    total.absolute_sum = S(total.absolute_sum + absolute(p[m]));
  }
  return total;
}

// a_n of the parallel form.
template <class S>
S score_norm(TorchscaleVersion version, const ScoreSums<S>& total) {
  const S low(1.0), high(5e4);
  if (version == TorchscaleVersion::v1) {
    const S size = absolute(total.signed_sum);
    return size < low ? low : size;
  }
  const S size = total.absolute_sum;
  return size < low ? low : (high < size ? high : size);
}

}  // namespace detail

template <class Context, class S>
void retention_torchscale_parallel(Context& ctx, TorchscaleVersion version,
                                   const RetentionInput<S>& in, Window<S> o) {
  ctx.note("retention_torchscale: parallel");
  for_tasks(ctx, in.sequences->count() * in.heads, [&](Index task, Workspace& scratch) {
    const Index h = task % in.heads, dv = in.value_dim();
    const Segment segment = (*in.sequences)[task / in.heads];
    const auto q = in.query(segment, h), k = in.key(segment, h), v = in.value(segment, h);
    const auto out = o.row_block(segment.first_row, segment.length).head(h, dv);
    S* p = scratch.take<S>(segment.length);
    for (Index n = 0; n < segment.length; ++n) {
      const S a = detail::score_norm(
          version,
          detail::torchscale_scores(q, k, n, in.decay.log_gamma[static_cast<std::size_t>(h)], p));
      for (Index j = 0; j < dv; ++j) {
        S sum(0);
        for (Index m = 0; m <= n; ++m) sum = S(sum + p[m] * v(m, j));
        out(n, j) = S(sum / a);
      }
    }
  });
}

/// Gradients of the parallel form, the score norm held constant as the original does.
template <class Context, class S>
void retention_torchscale_parallel_backward(Context& ctx, TorchscaleVersion version,
                                            const RetentionInput<S>& in, Window<const S> d_o,
                                            const RetentionGradient<S>& grad) {
  const Index dk = in.key_dim(), dv = in.value_dim();
  for_tasks(ctx, in.sequences->count() * in.kv_heads, [&](Index task, Workspace& scratch) {
    const Index kv = task % in.kv_heads;
    const Segment segment = (*in.sequences)[task / in.kv_heads];
    S* p = scratch.take<S>(segment.length);
    const auto dkey = grad.dk.row_block(segment.first_row, segment.length).head(kv, dk);
    const auto dvalue = grad.dv.row_block(segment.first_row, segment.length).head(kv, dv);
    for (Index r = 0; r < segment.length; ++r) {
      std::fill_n(dkey.row(r), dk, S(0));
      std::fill_n(dvalue.row(r), dv, S(0));
    }
    for (Index h = kv * in.group(); h < (kv + 1) * in.group(); ++h) {
      const auto q = in.query(segment, h), k = in.key(segment, h), v = in.value(segment, h);
      const auto dout = d_o.row_block(segment.first_row, segment.length).head(h, dv);
      const auto dq = grad.dq.row_block(segment.first_row, segment.length).head(h, dk);
      const double log_gamma = in.decay.log_gamma[static_cast<std::size_t>(h)];
      for (Index n = 0; n < segment.length; ++n) {
        const S a =
            detail::score_norm(version, detail::torchscale_scores(q, k, n, log_gamma, p));
        const double norm = std::sqrt(decay_row_sum(log_gamma, n));
        std::fill_n(dq.row(n), dk, S(0));
        for (Index m = 0; m <= n; ++m) {
          S along(0);
          for (Index j = 0; j < dv; ++j) {
            dvalue(m, j) = S(dvalue(m, j) + S(p[m] / a) * dout(n, j));
            along = S(along + dout(n, j) * v(m, j));
          }
          const S weight = S(std::exp(static_cast<double>(n - m) * log_gamma) / norm);
          const S dscore = S(S(along / a) * weight);
          for (Index d = 0; d < dk; ++d) {
            dq(n, d) = S(dq(n, d) + dscore * k(m, d));
            dkey(m, d) = S(dkey(m, d) + dscore * q(n, d));
          }
        }
      }
    }
  });
}

template <class Context, class S>
void retention_torchscale_chunkwise(Context& ctx, TorchscaleVersion version,
                                    const RetentionInput<S>& in, Index chunk, Window<S> o) {
  ctx.note("retention_torchscale: chunkwise");
  const Index dk = in.key_dim(), dv = in.value_dim();
  for_tasks(ctx, in.sequences->count() * in.heads, [&](Index task, Workspace& scratch) {
    const Index h = task % in.heads;
    const Segment segment = (*in.sequences)[task / in.heads];
    const double log_gamma = in.decay.log_gamma[static_cast<std::size_t>(h)];
    const double row_sum = decay_row_sum(log_gamma, chunk - 1);
    const double rho_last = version == TorchscaleVersion::v1 ? std::sqrt(row_sum) : row_sum;
    S* p = scratch.take<S>(chunk);
    const Window<S> state(scratch.take<S>(dk * dv), dk, dv);
    std::fill_n(state.data, dk * dv, S(0));
    S b(1);
    for (Index c = 0; c < segment.length; c += chunk) {
      const Segment rows{segment.first_row + c, std::min(chunk, segment.length - c)};
      const auto q = in.query(rows, h), k = in.key(rows, h), v = in.value(rows, h);
      const auto out = o.row_block(rows.first_row, rows.length).head(h, dv);
      for (Index i = 0; i < rows.length; ++i) {
        S a = detail::torchscale_scores(q, k, i, log_gamma, p).absolute_sum;
        a = a < S(1) ? S(1) : a;
        const S all = a < b ? b : a;
        const S cross = S(std::exp(static_cast<double>(i + 1) * log_gamma) * rho_last /
                          std::sqrt(decay_row_sum(log_gamma, i)));
        for (Index j = 0; j < dv; ++j) {
          S sum(0), carried(0);
          for (Index m = 0; m <= i; ++m) sum = S(sum + p[m] * v(m, j));
          for (Index d = 0; d < dk; ++d) carried = S(carried + q(i, d) * state(d, j));
          out(i, j) = S(S(sum + cross * carried) / all);
        }
      }
      const S carry = S(std::exp(static_cast<double>(chunk) * log_gamma));
      b = S(1);
      for (Index j = 0; j < dv; ++j) {
        S column(0);
        for (Index d = 0; d < dk; ++d) {
          S update(0);
          for (Index m = 0; m < rows.length; ++m)
            update = S(update + S(k(m, d) * v(m, j)) *
                                    S(std::exp(static_cast<double>(chunk - 1 - m) * log_gamma)));
          state(d, j) = S(carry * state(d, j) + update / S(rho_last));
          column = S(column + detail::absolute(state(d, j)));
        }
        b = b < column ? column : b;
      }
    }
  });
}

}  // namespace retnet::inline RETNET_ABI
