// SPDX-License-Identifier: MIT
// exp, sigmoid and the normal distribution function on packs. Float and double: Cody-Waite reduction
// and polynomials. Other scalars, and erf in double: the standard function lane by lane. Relative
// errors in units of epsilon (2^-23, 2^-52), asserted in tests/simd/math_test.cpp:
//
//   exp 1      sigmoid 2      normal_cdf (float) 5 above x = -1, 10 above -4, 70 above -12
#pragma once

#include <cmath>
#include <cstdint>
#include <iterator>
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

/// exp(x) = 2^n e^r with n = round(x / ln 2) and e^r = 1 + r + r^2 Q(r), Q fitted at Chebyshev points
/// of |r| <= ln(2) / 2. ln 2 is taken off in two parts, the first of so few bits that n times it is
/// exact.
template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  using Bits = std::int32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kHigh = 88.3762626647949F;  // beyond it 2^n would not be a number
  static constexpr float kLow = -87.3365447504019F;  // ln(FLT_MIN): below it the result is 0
  static constexpr float kMagic = 12582912.0F;       // 1.5 * 2^23: adding it rounds
  static constexpr float kLn2[] = {0.693359375F, -2.12194440e-4F};
  static constexpr float kQ[] = {1.39261836e-3F, 8.36317905e-3F, 4.16665546e-2F, 1.66665770e-1F,
                                 0.5F};
};
template <>
struct ExpConstants<double> {
  using Bits = std::int64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kHigh = 709.43;
  static constexpr double kLow = -708.39641853226410;
  static constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2[] = {0.693145751953125, 1.42860682030941723212e-6};
  static constexpr double kQ[] = {2.09146869680868772e-9,
                                  2.51052170047207452e-8,
                                  2.75572736431102953e-7,
                                  2.75572554002064244e-6,
                                  2.48015873255477412e-5,
                                  1.98412698748206253e-4,
                                  1.38888888888837483e-3,
                                  8.33333333332613513e-3,
                                  4.16666666666666698e-2,
                                  1.66666666666666710e-1,
                                  0.5};
};

template <class T, int N>
inline Pack<T, N> exp(Pack<T, N> x) {
  if constexpr (Vectorized<T> && N > 1) {
    using P = Pack<T, N>;
    using C = ExpConstants<T>;
    const P low = P::broadcast(C::kLow), one = P::broadcast(T(1));
    const P y = min(max(x, low), P::broadcast(C::kHigh));
    const P magic = P::broadcast(C::kMagic);
    const P shifted = fma(y, P::broadcast(std::numbers::log2e_v<T>), magic);
    const P n = shifted - magic;
    P r = fma(n, P::broadcast(-C::kLn2[0]), y);
    r = fma(n, P::broadcast(-C::kLn2[1]), r);
    P p = P::broadcast(C::kQ[0]);
    constexpr int kTerms = std::size(C::kQ);
#pragma GCC unroll 16
    for (int i = 1; i < kTerms; ++i) p = fma(p, r, P::broadcast(C::kQ[i]));
    p = fma(fma(p, r, one), r, one);
    typename VectorOf<typename C::Bits, N>::Type bits;
    std::memcpy(&bits, &shifted.v, sizeof(bits));
    bits = (bits + C::kBias) << C::kMantissa;  // 2^n, for n sits in the low bits of `shifted`
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
    const P square = t * t;  // odd and even powers apart: two short chains instead of a long one
    P odd = P::broadcast(0.144930214F), even = P::broadcast(-0.680827177F);
    for (const float c : {1.15673376F, -0.0802804335F, 0.0346027998F})
      odd = fma(odd, square, P::broadcast(c));
    for (const float c : {-0.696251897F, 0.00126758704F, 0.386640412F})
      even = fma(even, square, P::broadcast(c));
    P p = fma(odd, t, even);
    for (const float c : {0.998632783F, -1.265448F}) p = fma(p, t, P::broadcast(c));
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
