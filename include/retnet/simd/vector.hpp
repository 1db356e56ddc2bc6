// SPDX-License-Identifier: MIT
// Loops over contiguous numbers. Sums run over a fixed number of lanes, so a result depends on the
// length alone and not on the thread or on what lies beside it.
#pragma once

#include "retnet/simd/pack.hpp"

namespace retnet::inline RETNET_ABI::simd {

/// Calls f(pack, i) for whole packs and f(single, i) for the tail; P is the type to load.
template <class T, class F>
inline void for_each_pack(Index n, F&& f) {
  constexpr int kN = kLanes<T>;
  Index i = 0;
  for (; i + kN <= n; i += kN) f(Pack<T, kN>{}, i);
  for (; i < n; ++i) f(Pack<T, 1>{}, i);
}

/// sum over i of f(P, i), where f returns a P. Two accumulators hide the add latency.
template <class T, class F>
inline T sum_packs(Index n, F&& f) {
  using P = Pack<T>;
  constexpr int kN = P::size;
  P s0 = P::zero(), s1 = P::zero();
  Index i = 0;
  for (; i + 2 * kN <= n; i += 2 * kN) {
    s0 = s0 + f(P{}, i);
    s1 = s1 + f(P{}, i + kN);
  }
  for (; i + kN <= n; i += kN) s0 = s0 + f(P{}, i);
  T total = sum(s0 + s1);
  for (; i < n; ++i) total = T(total + f(Pack<T, 1>{}, i).v);
  return total;
}

template <class T>
inline T dot(const T* a, const T* b, Index n) {
  return sum_packs<T>(n, [=](auto p, Index i) {
    using P = decltype(p);
    return P::load(a + i) * P::load(b + i);
  });
}

/// y += a x
template <class T>
inline void axpy(T a, const T* x, T* y, Index n) {
  for_each_pack<T>(n, [=](auto p, Index i) {
    using P = decltype(p);
    fma(P::broadcast(a), P::load(x + i), P::load(y + i)).store(y + i);
  });
}

/// y = a x
template <class T>
inline void scale(T a, const T* x, T* y, Index n) {
  for_each_pack<T>(n, [=](auto p, Index i) {
    using P = decltype(p);
    (P::broadcast(a) * P::load(x + i)).store(y + i);
  });
}

/// y += x
template <class T>
inline void add(const T* x, T* y, Index n) {
  for_each_pack<T>(n, [=](auto p, Index i) {
    using P = decltype(p);
    (P::load(x + i) + P::load(y + i)).store(y + i);
  });
}

}  // namespace retnet::inline RETNET_ABI::simd
