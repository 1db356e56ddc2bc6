// SPDX-License-Identifier: MIT
// Test data from the library's own counter-based generator: the same numbers on every machine, and
// for every scalar up to its rounding.
#pragma once

#include <cstdint>
#include <span>

#include "retnet/core/buffer.hpp"
#include "retnet/core/rng.hpp"

namespace retnet::test {

/// Uniform in [low, high).
template <class S>
void fill_uniform(std::span<S> x, std::uint64_t stream, double low = -1.0, double high = 1.0) {
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = scalar_cast<S>(low + (high - low) * uniform(Seed{2023}, stream, i));
}

/// Normal with mean 0.
template <class S>
void fill_normal(std::span<S> x, std::uint64_t stream, double deviation = 1.0) {
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = scalar_cast<S>(deviation * normal(Seed{2023}, stream, i));
}

template <class S>
Buffer<S> random_uniform(Index size, std::uint64_t stream, double low = -1.0, double high = 1.0) {
  Buffer<S> x(size);
  fill_uniform(x.span(), stream, low, high);
  return x;
}

template <class S>
Buffer<S> random_normal(Index size, std::uint64_t stream, double deviation = 1.0) {
  Buffer<S> x(size);
  fill_normal(x.span(), stream, deviation);
  return x;
}

template <class S>
Buffer<S> filled(Index size, double value) {
  Buffer<S> x(size);
  x.fill(scalar_cast<S>(value));
  return x;
}

/// Uniform in 0..bound-1: tokens, targets.
inline Buffer<std::int32_t> random_indices(Index size, Index bound, std::uint64_t stream) {
  Buffer<std::int32_t> x(size);
  for (Index i = 0; i < size; ++i) {
    const double u = uniform(Seed{2023}, stream, static_cast<std::uint64_t>(i));
    x[i] = static_cast<std::int32_t>(u * static_cast<double>(bound));
  }
  return x;
}

}  // namespace retnet::test
