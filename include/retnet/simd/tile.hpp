// SPDX-License-Identifier: MIT
// The register tile that fused kernels are built from: R rows and V vectors of sums stay in
// registers while k runs. One operand is read by scalars, one by vectors, both where they lie; the
// strides are template parameters, so that addresses are constants of the instructions.
#pragma once

#include <algorithm>
#include <cstring>

#include "retnet/core/scalar.hpp"
#include "retnet/simd/pack.hpp"

namespace retnet::inline RETNET_ABI::simd {

/// sums[r][v] += sum_k a[r * kRowStep + k * kStep] b[k * kVectorStep + v * lanes]. Every sum is one
/// chain of multiply-adds in ascending k.
template <class S, int R, int V>
struct Tile {
  using P = Pack<S>;
  static constexpr int kColumns = V * P::size;
  P sums[R][V];

  Tile() {
    for (auto& row : sums)
      for (auto& p : row) p = P::zero();
  }

  template <Index kRowStep, Index kStep, Index kVectorStep>
  void accumulate(Index depth, const S* a, const S* b) {
    for (Index k = 0; k < depth; ++k) {
      P column[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) column[v] = in_register(P::load(b + v * P::size));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const P x = P::broadcast(a[r * kRowStep]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = fma(x, column[v], sums[r][v]);
      }
      a += kStep;
      b += kVectorStep;
    }
  }

  /// The same with a row step known at run time, and k in steps of one.
  void accumulate(Index depth, const S* a, Index row_step, const S* b, Index vector_step) {
    const S* rows[R];
    for (int r = 0; r < R; ++r) rows[r] = a + r * row_step;
    for (Index k = 0; k < depth; ++k) {
      P column[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) column[v] = in_register(P::load(b + v * P::size));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const P x = P::broadcast(rows[r][k]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = fma(x, column[v], sums[r][v]);
      }
      b += vector_step;
    }
  }

  /// Adds the sums of another tile.
  void add(const Tile& other) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = sums[r][v] + other.sums[r][v];
  }

  /// out[c * stride + r] = sums[r][c] + add[r] for c < columns and r < rows; add may be null.
  void store_transposed(S* out, Index stride, Index columns, Index rows, const S* add) const {
    constexpr int kSide = P::size, kGroup = R < kSide ? R : kSide;
    for (int first = 0; first < R; first += kSide) {  // R may be more than the lanes of a pack
      const Index count = std::clamp<Index>(rows - first, 0, std::min(R - first, kGroup));
      for (int v = 0; v < V; ++v) {
        P square[kSide];
#pragma GCC unroll 16
        for (int i = 0; i < kSide; ++i) {
          const int r = first + i;
          square[i] = r < R ? (add ? sums[r][v] + P::broadcast(add[r]) : sums[r][v]) : P::zero();
        }
        transpose(square);
        const Index here = std::clamp<Index>(columns - v * kSide, 0, kSide);
        for (Index c = 0; c < here; ++c) {
          S* to = out + (v * kSide + c) * stride + first;
          if (count == kGroup) {
            std::memcpy(to, &square[c].v, kGroup * sizeof(S));
          } else {
            std::memcpy(to, &square[c].v, static_cast<std::size_t>(count) * sizeof(S));
          }
        }
      }
    }
  }

  /// f(r, v, sum) for every vector of sums.
  template <class F>
  void for_each(F&& f) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) f(r, v, sums[r][v]);
  }

 private:
  // Left alone, g++ repeats the load as an operand of every multiply-add: two loads for each of
  // them, and the load ports are the limit instead of the multipliers.
  static P in_register(P p) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    if constexpr (P::size > 1) asm("" : "+v"(p.v));
#endif
    return p;
  }
};

/// out[k * kWidth + i] = scale[i] * source[i * stride + k] for i < rows, zeros up to kWidth. A null
/// scale is 1.
template <Index kWidth, class S>
void pack_transposed(const S* source, Index stride, Index rows, Index depth, const S* scale,
                     S* out) {
  constexpr Index kN = kLanes<S>;
  const auto factor = [&](Index i) { return scale != nullptr ? scale[i] : S(1); };
  Index i = 0;
  if constexpr (kN > 1 && kWidth % kN == 0) {
    for (; i + kN <= rows; i += kN) {  // squares turn in registers
      Index k = 0;
      for (; k + kN <= depth; k += kN) {
        Pack<S> square[kN];
#pragma GCC unroll 16
        for (Index r = 0; r < kN; ++r)
          square[r] = Pack<S>::broadcast(factor(i + r)) *
                      Pack<S>::load(source + (i + r) * stride + k);
        transpose(square);
#pragma GCC unroll 16
        for (Index r = 0; r < kN; ++r) square[r].store(out + (k + r) * kWidth + i);
      }
      for (; k < depth; ++k)
        for (Index r = i; r < i + kN; ++r) out[k * kWidth + r] = factor(r) * source[r * stride + k];
    }
  }
  for (; i < rows; ++i)
    for (Index k = 0; k < depth; ++k) out[k * kWidth + i] = factor(i) * source[i * stride + k];
  for (; i < kWidth; ++i)
    for (Index k = 0; k < depth; ++k) out[k * kWidth + i] = S(0);
}

/// out[i * kWidth + c] = scale[i] * source[i * stride + c] for c < width and i < rows, else zero up
/// to padded_rows. False if the source holds something that is no finite number.
template <Index kWidth, class S>
bool pack_columns(const S* source, Index stride, Index rows, Index padded_rows, Index width,
                  const S* scale, S* out) {
  using P = Pack<S>;
  P zeros = P::zero();
  S tail(0);
  for (Index i = 0; i < rows; ++i) {
    const S* in = source + i * stride;
    S* to = out + i * kWidth;
    Index c = 0;
#pragma GCC unroll 4
    for (; c + P::size <= (width == kWidth ? kWidth : width); c += P::size) {
      const P x = P::load(in + c);
      (P::broadcast(scale[i]) * x).store(to + c);
      zeros = fma(P::zero(), x, zeros);
    }
    for (; c < width; ++c) {
      to[c] = scale[i] * in[c];
      tail += S(0) * in[c];
    }
    for (; c < kWidth; ++c) to[c] = S(0);
  }
  std::fill_n(out + rows * kWidth, (padded_rows - rows) * kWidth, S(0));
  return sum(zeros) + tail == S(0);
}

}  // namespace retnet::inline RETNET_ABI::simd
