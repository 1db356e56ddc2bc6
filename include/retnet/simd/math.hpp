// SPDX-License-Identifier: MIT
// exp, sigmoid and the normal distribution function on packs. Float: Cody-Waite reduction and
// polynomials. Other scalars: the standard function lane by lane. Accuracy is asserted in
// tests/simd/math_test.cpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

#include "retnet/simd/pack.hpp"

namespace retnet::inline RETNET_ABI::simd {

/// f on every lane.
template <class T, int N, class F>
inline Pack<T, N> map_lanes(Pack<T, N> x, F&& f) {
  T lanes[N];
  x.store(lanes);
  for (int i = 0; i < N; ++i) lanes[i] = f(lanes[i]);
  return Pack<T, N>::load(lanes);
}

template <class T, int N>
inline Pack<T, N> exp(Pack<T, N> x) {
  if constexpr (std::is_same_v<T, float> && N > 1) {
    using P = Pack<float, N>;
    const P high = P::broadcast(88.3762626647949F);  // just below ln(FLT_MAX)
    const P low = P::broadcast(-87.3365447504019F);  // ln(FLT_MIN): below it the result is 0
    const P y = min(max(x, low), high);
    // n = round(y / ln 2) by the magic constant 1.5 * 2^23; r = y - n ln 2 in two steps
    const P magic = P::broadcast(12582912.0F);
    const P shifted = fma(y, P::broadcast(1.44269504088896341F), magic);
    const P n = shifted - magic;
    P r = fma(n, P::broadcast(-0.693359375F), y);
    r = fma(n, P::broadcast(2.12194440e-4F), r);
    P p = P::broadcast(1.0F / 720);
    for (const float c : {1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
      p = fma(p, r, P::broadcast(c));
    typename VectorOf<std::int32_t, N>::Type
        bits;  // the exponent of 2^n sits in the low bits of `shifted`
    std::memcpy(&bits, &shifted.v, sizeof(bits));
    bits = (bits + 127) << 23;
    P power;
    std::memcpy(&power.v, &bits, sizeof(bits));
    P result = p * power;
    result.v = x.v < low.v ? typename P::Vector{} : result.v;
    result.v = x.v == x.v ? result.v : x.v;  // NaN stays NaN
    return result;
  } else {
    return map_lanes(x, [](T s) {
      using std::exp;
      return T(exp(s));
    });
  }
}

/// 1 / (1 + e^-x), accurate in both tails.
template <class T, int N>
inline Pack<T, N> sigmoid(Pack<T, N> x) {
  using P = Pack<T, N>;
  const P one = P::broadcast(T(1));
  return one / (one + exp(P::zero() - x));
}

/// Phi(x), the normal distribution function. Float: with z = |x| / sqrt(2) and t = 1 / (1 + z/2),
///   erfc(z) = t e^{P(t) - z^2},  P a polynomial fitted at Chebyshev points of z in [0, 10],
/// so that the lower tail is accurate relative to itself.
template <class T, int N>
inline Pack<T, N> normal_cdf(Pack<T, N> x) {
  if constexpr (std::is_same_v<T, float> && N > 1) {
    using P = Pack<float, N>;
    const P one = P::broadcast(1.0F), half = P::broadcast(0.5F);
    const P t = one / fma(max(x, P::zero() - x), P::broadcast(0.353553391F), one);
    P p = P::broadcast(0.144930214F);
    for (const float c : {-0.680827177F, 1.15673376F, -0.696251897F, -0.0802804335F, 0.00126758704F,
                          0.0346027998F, 0.386640412F, 0.998632783F, -1.265448F})
      p = fma(p, t, P::broadcast(c));
    const P tail = half * t * exp(fma(P::zero() - half * x, x, p));
    P result = one - tail;
    result.v = x.v < P::zero().v ? tail.v : result.v;
    result.v = x.v == x.v ? result.v : x.v;
    return result;
  } else {
    return map_lanes(x, [](T s) {
      using std::erf;
      return T(T(0.5) * (T(1) + T(erf(T(s * T(std::numbers::sqrt2 / 2))))));
    });
  }
}

}  // namespace retnet::inline RETNET_ABI::simd
