// SPDX-License-Identifier: MIT
// The decay of each head, in double and log space: in bfloat16 already 1 - 2^-9 is 1.
//
//   gamma_h = 1 - 2^(-5-h)                                      pow2      (Sun et al. 2023, Eq. 8)
//   gamma_h = 1 - exp(linspace(ln 1/32, ln 1/512, H))           linspace  (section 3.1)
//   log a_t = log sigmoid(x_t W) / 16                           gated     (YOCO, Sun et al. 2024)
//   s_n = sum_{m<=n} gamma^(n-m) = (1 - gamma^(n+1)) / (1 - gamma)
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "retnet/core/context.hpp"
#include "retnet/core/window.hpp"

namespace retnet::inline RETNET_ABI {

/// pow2: 1 - 2^(-5-h).
inline std::vector<double> log_gamma_pow2(Index heads) {
  std::vector<double> out;
  for (Index h = 0; h < heads; ++h)
    out.push_back(std::log1p(-std::exp2(-5.0 - static_cast<double>(h))));
  return out;
}

/// linspace: 1 - gamma evenly spaced in the logarithm from 1/32 to 1/512.
inline std::vector<double> log_gamma_linspace(Index heads) {
  std::vector<double> out;
  const double from = std::log(1.0 / 32), to = std::log(1.0 / 512);
  for (Index h = 0; h < heads; ++h) {
    const double t = heads > 1 ? static_cast<double>(h) / static_cast<double>(heads - 1) : 0.0;
    out.push_back(std::log1p(-std::exp(from + t * (to - from))));
  }
  return out;
}

/// s_n of the row n (counted from 0): the sum of a row of the decay matrix D.
inline double decay_row_sum(double log_gamma, std::int64_t n) {
  const auto terms = static_cast<double>(n + 1);
  if (log_gamma == 0.0) return terms;
  return std::expm1(terms * log_gamma) / std::expm1(log_gamma);
}

/// What a retention op knows about forgetting: one number a head, or one a token and head.
template <class S>
struct Decay {
  std::span<const double> log_gamma;  // [H], <= 0; unused when gated
  Window<const S> log_gate;           // [R,H], <= 0; empty: fixed decay

  bool gated() const { return !log_gate.empty(); }
};

namespace detail {

/// Sums of log decays are kept in double, or in the scalar itself when it is no number of C++.
template <class S>
using LogSum = std::conditional_t<std::is_floating_point_v<S>, double, S>;

/// out[i] = log of the decay from before row `first` to after row first + i, of head h.
template <class S>
void cumulative_log_decay(const Decay<S>& decay, Index h, Index first, Index length,
                          LogSum<S>* out) {
  if (!decay.gated()) {
    const double g = decay.log_gamma[static_cast<std::size_t>(h)];
    for (Index i = 0; i < length; ++i) out[i] = LogSum<S>(static_cast<double>(i + 1) * g);
    return;
  }
  LogSum<S> total(0.0);
  for (Index i = 0; i < length; ++i) {
    total = LogSum<S>(total + LogSum<S>(decay.log_gate(first + i, h)));
    out[i] = total;
  }
}

template <class S>
S exp_of(const LogSum<S>& x) {
  using std::exp;
  return S(exp(x));
}

template <class S>
S log_one_plus(S x) {
  if constexpr (std::is_floating_point_v<S>) {
    return std::log1p(x);
  } else {
    using std::log;
    return S(log(S(S(1) + x)));
  }
}

}  // namespace detail

/// log_gate = log sigmoid(z) / divisor, the data-dependent decay; z = x W [R,H].
template <class Context, class S>
void log_sigmoid_gate(Context& ctx, double divisor, Window<const S> z, Window<S> log_gate) {
  for_row_blocks(ctx, z.rows, [&](Index first, Index last) {
    using std::exp;
    for (Index r = first; r < last; ++r) {
      for (Index h = 0; h < z.cols; ++h) {
        const S x = z(r, h);
        const S low = x < S(0) ? x : S(0);  // log sigmoid(x) = min(x, 0) - log(1 + e^-|x|)
        const S magnitude = x < S(0) ? S(S(0) - x) : x;
        const S tail = detail::log_one_plus(S(exp(S(S(0) - magnitude))));
        log_gate(r, h) = S(S(low - tail) / S(divisor));
      }
    }
  });
}

/// dz from d log_gate; dz may be d log_gate. d log sigmoid(x) / dx = sigmoid(-x).
template <class Context, class S>
void log_sigmoid_gate_backward(Context& ctx, double divisor, Window<const S> z,
                               Window<const S> dlog_gate, Window<S> dz) {
  for_row_blocks(ctx, z.rows, [&](Index first, Index last) {
    using std::exp;
    for (Index r = first; r < last; ++r)
      for (Index h = 0; h < z.cols; ++h)
        dz(r, h) = S(dlog_gate(r, h) / S(S(divisor) * S(S(1) + S(exp(z(r, h))))));
  });
}

}  // namespace retnet::inline RETNET_ABI
