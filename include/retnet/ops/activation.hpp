// SPDX-License-Identifier: MIT
// Activations, and the gated product that the swish gate of retention and the GLU share.
//
//   swish(x) = x sigmoid(x)         gelu(x) = x Phi(x), Phi the normal distribution function
//   gelu_tanh(x) = x sigmoid(2z), z = sqrt(2/pi) (x + 0.044715 x^3)  (Hendrycks & Gimpel 2016)
//   gate:  y = act(g) * u           dg = dy u act'(g)        du = dy act(g)
#pragma once

#include <cmath>
#include <numbers>

#include "retnet/core/context.hpp"
#include "retnet/core/window.hpp"
#include "retnet/simd/math.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI {

enum class Activation { identity, relu, gelu, swish, sigmoid, gelu_tanh };

namespace detail {

/// The value and the derivative of the activation at each lane.
template <class P>
struct Activated {
  P value;
  P slope;
};

template <class S, int N>
Activated<simd::Pack<S, N>> activate(Activation kind, simd::Pack<S, N> x) {
  using P = simd::Pack<S, N>;
  const P one = P::broadcast(S(1));
  switch (kind) {
    case Activation::identity: return {x, one};
    case Activation::relu: {
      const P value = max(x, P::zero());
      return {value, simd::map_lanes(x, [](S s) { return S(0) < s ? S(1) : S(0); })};
    }
    case Activation::sigmoid: {
      const P s = sigmoid(x);
      return {s, s * (one - s)};
    }
    case Activation::swish: {
      const P s = sigmoid(x);
      const P y = x * s;
      return {y, fma(y, one - s, s)};
    }
    case Activation::gelu: {
      const P cdf = normal_cdf(x);
      const P density = P::broadcast(S(0.5 * std::numbers::inv_sqrtpi * std::numbers::sqrt2)) *
                        exp(P::broadcast(S(-0.5)) * x * x);
      return {x * cdf, fma(x, density, cdf)};
    }
    case Activation::gelu_tanh: {
      const double root = std::numbers::inv_sqrtpi * std::numbers::sqrt2;  // sqrt(2 / pi)
      const P linear = P::broadcast(S(2.0 * root)), cubic = P::broadcast(S(2.0 * root * 0.044715));
      const P square = x * x;
      const P s = sigmoid(x * fma(cubic, square, linear));
      const P slope = fma(P::broadcast(S(3.0)) * cubic, square, linear);  // of 2z
      return {x * s, fma(x * s * (one - s), slope, s)};
    }
  }
  return {x, one};
}

}  // namespace detail

/// y = act(x)
template <class Context, class S>
void activation(Context& ctx, Activation kind, Window<const S> x, Window<S> y) {
  for_row_blocks(ctx, x.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      simd::for_each_pack<S>(x.cols, [&](auto p, Index i) {
        using P = decltype(p);
        detail::activate(kind, P::load(x.row(r) + i)).value.store(y.row(r) + i);
      });
  });
}

/// dx = dy act'(x); dx may be dy.
template <class Context, class S>
void activation_backward(Context& ctx, Activation kind, Window<const S> x, Window<const S> dy,
                         Window<S> dx) {
  for_row_blocks(ctx, x.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      simd::for_each_pack<S>(x.cols, [&](auto p, Index i) {
        using P = decltype(p);
        const P slope = detail::activate(kind, P::load(x.row(r) + i)).slope;
        (P::load(dy.row(r) + i) * slope).store(dx.row(r) + i);
      });
  });
}

/// y = act(g) * u; y may be u.
template <class Context, class S>
void gate(Context& ctx, Activation kind, Window<const S> g, Window<const S> u, Window<S> y) {
  for_row_blocks(ctx, g.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      simd::for_each_pack<S>(g.cols, [&](auto p, Index i) {
        using P = decltype(p);
        const P a = detail::activate(kind, P::load(g.row(r) + i)).value;
        (a * P::load(u.row(r) + i)).store(y.row(r) + i);
      });
  });
}

/// Gradients of gate; dg and du may be dy.
template <class Context, class S>
void gate_backward(Context& ctx, Activation kind, Window<const S> g, Window<const S> u,
                   Window<const S> dy, Window<S> dg, Window<S> du) {
  for_row_blocks(ctx, g.rows, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      simd::for_each_pack<S>(g.cols, [&](auto p, Index i) {
        using P = decltype(p);
        const auto a = detail::activate(kind, P::load(g.row(r) + i));
        const P d = P::load(dy.row(r) + i), ui = P::load(u.row(r) + i);
        (d * ui * a.slope).store(dg.row(r) + i);
        (d * a.value).store(du.row(r) + i);
      });
  });
}

}  // namespace retnet::inline RETNET_ABI
