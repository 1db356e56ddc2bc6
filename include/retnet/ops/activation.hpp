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

template <Activation kKind, class S, int N>
Activated<simd::Pack<S, N>> activate(simd::Pack<S, N> x) {
  using P = simd::Pack<S, N>;
  const P one = P::broadcast(S(1));
  if constexpr (kKind == Activation::relu) {
    const P value = max(x, P::zero());
    return {value, simd::map_lanes(x, [](S s) { return S(0) < s ? S(1) : S(0); })};
  } else if constexpr (kKind == Activation::sigmoid) {
    const P s = sigmoid(x);
    return {s, s * (one - s)};
  } else if constexpr (kKind == Activation::swish) {
    const P s = sigmoid(x);
    const P y = x * s;
    return {y, fma(y, one - s, s)};
  } else if constexpr (kKind == Activation::gelu) {
    const P cdf = normal_cdf(x);
    const P density = P::broadcast(S(0.5 * std::numbers::inv_sqrtpi * std::numbers::sqrt2)) *
                      exp(P::broadcast(S(-0.5)) * x * x);
    return {x * cdf, fma(x, density, cdf)};
  } else if constexpr (kKind == Activation::gelu_tanh) {
    const double root = std::numbers::inv_sqrtpi * std::numbers::sqrt2;  // sqrt(2 / pi)
    const P linear = P::broadcast(S(2.0 * root)), cubic = P::broadcast(S(2.0 * root * 0.044715));
    const P square = x * x;
    const P s = sigmoid(x * fma(cubic, square, linear));
    const P slope = fma(P::broadcast(S(3.0)) * cubic, square, linear);  // of 2z
    return {x * s, fma(x * s * (one - s), slope, s)};
  } else {
    return {x, one};
  }
}

/// f(act) with act(x) the value and slope of that activation: chosen once, since a choice inside the
/// loops costs as much as the activation.
template <class F>
void with_activation(Activation kind, F&& f) {
  const auto chosen = [&]<Activation kKind>() { f([](auto x) { return activate<kKind>(x); }); };
  switch (kind) {
    case Activation::identity: return chosen.template operator()<Activation::identity>();
    case Activation::relu: return chosen.template operator()<Activation::relu>();
    case Activation::gelu: return chosen.template operator()<Activation::gelu>();
    case Activation::swish: return chosen.template operator()<Activation::swish>();
    case Activation::sigmoid: return chosen.template operator()<Activation::sigmoid>();
    case Activation::gelu_tanh: return chosen.template operator()<Activation::gelu_tanh>();
  }
}

/// f(pack, r, i, act) over the elements of [rows,cols].
template <class S, class Context, class F>
void for_activated(Context& ctx, Activation kind, Index rows, Index cols, F&& f) {
  for_row_blocks(ctx, rows, [&](Index first, Index last) {
    with_activation(kind, [&](auto act) {
      for (Index r = first; r < last; ++r)
        simd::for_each_pack<S>(cols, [&](auto p, Index i) { f(p, r, i, act); });
    });
  });
}

}  // namespace detail

/// y = act(x)
template <class Context, class S>
void activation(Context& ctx, Activation kind, Window<const S> x, Window<S> y) {
  detail::for_activated<S>(ctx, kind, x.rows, x.cols, [&](auto p, Index r, Index i, auto act) {
    using P = decltype(p);
    act(P::load(x.row(r) + i)).value.store(y.row(r) + i);
  });
}

/// dx = dy act'(x); dx may be dy.
template <class Context, class S>
void activation_backward(Context& ctx, Activation kind, Window<const S> x, Window<const S> dy,
                         Window<S> dx) {
  detail::for_activated<S>(ctx, kind, x.rows, x.cols, [&](auto p, Index r, Index i, auto act) {
    using P = decltype(p);
    (P::load(dy.row(r) + i) * act(P::load(x.row(r) + i)).slope).store(dx.row(r) + i);
  });
}

/// y = act(g) * u; y may be u.
template <class Context, class S>
void gate(Context& ctx, Activation kind, Window<const S> g, Window<const S> u, Window<S> y) {
  detail::for_activated<S>(ctx, kind, g.rows, g.cols, [&](auto p, Index r, Index i, auto act) {
    using P = decltype(p);
    (act(P::load(g.row(r) + i)).value * P::load(u.row(r) + i)).store(y.row(r) + i);
  });
}

/// Gradients of gate; dg and du may be dy.
template <class Context, class S>
void gate_backward(Context& ctx, Activation kind, Window<const S> g, Window<const S> u,
                   Window<const S> dy, Window<S> dg, Window<S> du) {
  detail::for_activated<S>(ctx, kind, g.rows, g.cols, [&](auto p, Index r, Index i, auto act) {
    using P = decltype(p);
    const auto a = act(P::load(g.row(r) + i));
    const P d = P::load(dy.row(r) + i), ui = P::load(u.row(r) + i);
    (d * ui * a.slope).store(dg.row(r) + i);
    (d * a.value).store(du.row(r) + i);
  });
}

}  // namespace retnet::inline RETNET_ABI
