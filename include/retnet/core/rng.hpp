// SPDX-License-Identifier: MIT
// Counter-based random numbers: the value depends on (seed, stream, counter) alone, so a result is
// the same on any number of threads and a run resumes from two integers.
// Philox-4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "retnet/version.hpp"

namespace retnet::inline RETNET_ABI {

struct Seed {
  std::uint64_t value = 0;
};

/// Four independent 32-bit words for one counter.
constexpr std::array<std::uint32_t, 4> philox(Seed seed, std::uint64_t stream,
                                              std::uint64_t counter) {
  std::array<std::uint32_t, 4> x{
      static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
      static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)};
  auto k0 = static_cast<std::uint32_t>(seed.value);
  auto k1 = static_cast<std::uint32_t>(seed.value >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * x[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * x[2];
    x = {static_cast<std::uint32_t>(p1 >> 32) ^ x[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ x[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return x;
}

/// Uniform in [0, 1) with 53 bits.
constexpr double uniform(Seed seed, std::uint64_t stream, std::uint64_t counter) {
  const auto x = philox(seed, stream, counter);
  const std::uint64_t bits = (std::uint64_t{x[0]} << 32 | x[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

/// Standard normal (Box-Muller).
inline double normal(Seed seed, std::uint64_t stream, std::uint64_t counter) {
  const auto x = philox(seed, stream, counter);
  const double u = (static_cast<double>(x[0]) + 0.5) * 0x1.0p-32;
  const double angle = 2.0 * std::numbers::pi * static_cast<double>(x[1]) * 0x1.0p-32;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(angle);
}

}  // namespace retnet::inline RETNET_ABI
