// SPDX-License-Identifier: MIT
// Pack<T>: as many T as one vector register of the target holds, by the compiler's vector types, so
// that one source serves SSE2, AVX2, AVX-512 and NEON. Width 1 is plain C++ and serves any scalar.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>
#include <utility>

#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI::simd {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kRegisters = 32;
#elif defined(__AVX2__) && defined(__FMA__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kRegisters = 16;
#elif defined(__aarch64__)
inline constexpr int kVectorBytes = 16;
inline constexpr int kRegisters = 32;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kRegisters = 16;
#endif

/// Lanes of T in one register; 1 for scalars without vector kernels.
template <class T>
inline constexpr int kLanes = 1;
template <>
inline constexpr int kLanes<float> = kVectorBytes / 4;
template <>
inline constexpr int kLanes<double> = kVectorBytes / 8;

/// N times T in one vector. A typedef inside a function template would lose the attribute (g++ 12).
template <class T, int N>
struct VectorOf {
  typedef T Type __attribute__((vector_size(sizeof(T) * N)));
};

template <class T, int N = kLanes<T>>
struct Pack {
  using Vector = typename VectorOf<T, N>::Type;
  Vector v;

  static constexpr int size = N;
  static Pack load(const T* p) {
    Pack x;
    std::memcpy(&x.v, p, sizeof(x.v));
    return x;
  }
  static Pack broadcast(T s) { return {s - Vector{}}; }  // s - 0 keeps the sign of zero
  static Pack zero() { return {Vector{}}; }
  void store(T* p) const { std::memcpy(p, &v, sizeof(v)); }
  T operator[](int i) const { return v[i]; }

  friend Pack operator+(Pack a, Pack b) { return {a.v + b.v}; }
  friend Pack operator-(Pack a, Pack b) { return {a.v - b.v}; }
  friend Pack operator*(Pack a, Pack b) { return {a.v * b.v}; }
  friend Pack operator/(Pack a, Pack b) { return {a.v / b.v}; }
  /// a*b + c; one instruction where the target has it (the compiler contracts it).
  friend Pack fma(Pack a, Pack b, Pack c) { return {a.v * b.v + c.v}; }
  friend Pack min(Pack a, Pack b) { return {a.v < b.v ? a.v : b.v}; }
  friend Pack max(Pack a, Pack b) { return {a.v > b.v ? a.v : b.v}; }
  /// Adds the lanes in pairs: the order is fixed by the width alone.
  friend T sum(Pack a) {
    T lanes[N];
    a.store(lanes);
    for (int n = N / 2; n > 0; n /= 2)
      for (int i = 0; i < n; ++i) lanes[i] += lanes[i + n];
    return lanes[0];
  }
};

template <class T>
struct Pack<T, 1> {
  T v;

  static constexpr int size = 1;
  static Pack load(const T* p) { return {*p}; }
  static Pack broadcast(T s) { return {s}; }
  static Pack zero() { return {T(0)}; }
  void store(T* p) const { *p = v; }
  T operator[](int) const { return v; }

  friend Pack operator+(Pack a, Pack b) { return {T(a.v + b.v)}; }
  friend Pack operator-(Pack a, Pack b) { return {T(a.v - b.v)}; }
  friend Pack operator*(Pack a, Pack b) { return {T(a.v * b.v)}; }
  friend Pack operator/(Pack a, Pack b) { return {T(a.v / b.v)}; }
  friend Pack fma(Pack a, Pack b, Pack c) { return {T(a.v * b.v + c.v)}; }
  friend Pack min(Pack a, Pack b) { return {a.v < b.v ? a.v : b.v}; }
  friend Pack max(Pack a, Pack b) { return {b.v < a.v ? a.v : b.v}; }
  friend T sum(Pack a) { return a.v; }
};

/// bfloat16 as float: 16-bit words, each in the upper half of a 32-bit one. g++ 12 makes the general
/// conversion of two halves and a shuffle, which would bound the reading of bfloat16 weights.
template <int N>
inline Pack<float, N> load_upper_halves(const void* p) {
  using Word = typename VectorOf<std::uint32_t, N>::Type;
  Word words;
#if defined(__AVX512F__)
  if constexpr (N == 16)  // without a mask g++ 12 warns of its own header
    words = reinterpret_cast<Word>(_mm512_maskz_cvtepu16_epi32(
        __mmask16(0xFFFF), _mm256_loadu_si256(static_cast<const __m256i*>(p))));
  else
#endif
#if defined(__AVX2__)
      if constexpr (N == 8)
    words = reinterpret_cast<Word>(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  else
#endif
  {
    typename VectorOf<std::uint16_t, N>::Type bits;
    std::memcpy(&bits, p, sizeof(bits));
    words = __builtin_convertvector(bits, Word);
  }
  words <<= 16;
  Pack<float, N> x;  // not the words themselves: vectors wider than the target's have no ABI
  std::memcpy(&x.v, &words, sizeof(words));
  return x;
}

/// Loads N stored numbers widened to T.
template <class T, int N, class From>
inline Pack<T, N> load_as(const From* p) {
  if constexpr (std::same_as<T, From>) {
    return Pack<T, N>::load(p);
  } else if constexpr (std::same_as<From, bfloat16> && std::same_as<T, float> && N > 1) {
    return load_upper_halves<N>(p);
  } else {
    T lanes[N];
    for (int i = 0; i < N; ++i) lanes[i] = scalar_cast<T>(p[i]);
    return Pack<T, N>::load(lanes);
  }
}

/// Swaps the off-diagonal lanes of one stage of a transpose: lanes with bit B come from the other.
template <int B, class T, int N, int... I>
inline void exchange_lanes(Pack<T, N>& a, Pack<T, N>& b, std::integer_sequence<int, I...>) {
#ifdef __CUDACC__  // nvcc hands the host compiler the shuffle without its packs expanded
  const Pack<T, N> x = a, y = b;
  ((a.v[I] = (I & B) ? y.v[I ^ B] : x.v[I]), ...);
  ((b.v[I] = (I & B) ? y.v[I] : x.v[I ^ B]), ...);
#else
  const auto low = __builtin_shufflevector(a.v, b.v, ((I & B) ? N + (I ^ B) : I)...);
  const auto high = __builtin_shufflevector(a.v, b.v, ((I & B) ? N + I : (I ^ B))...);
  a.v = low;
  b.v = high;
#endif
}

template <int B, class T, int N>
inline void transpose_stages(Pack<T, N> (&rows)[N]) {
  if constexpr (B < N) {
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
      if ((i & B) == 0)
        exchange_lanes<B>(rows[i], rows[i | B], std::make_integer_sequence<int, N>{});
    transpose_stages<2 * B>(rows);
  }
}

/// N packs of N lanes, transposed in registers.
template <class T, int N>
inline void transpose(Pack<T, N> (&rows)[N]) {
  transpose_stages<1>(rows);
}

}  // namespace retnet::inline RETNET_ABI::simd
