// SPDX-License-Identifier: MIT
// The numbers: what computes (float, double, your own scalar) and what only stores (bfloat16, half).
#pragma once

#include <Eigen/Core>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "retnet/version.hpp"

namespace retnet::inline RETNET_ABI {

using Index = std::ptrdiff_t;
using bfloat16 = Eigen::bfloat16;
using half = Eigen::half;

/// Sixteen-bit types hold weights; sums, states and decays never live in them.
template <class T>
concept StorageOnly = std::same_as<std::remove_const_t<T>, bfloat16> ||
                      std::same_as<std::remove_const_t<T>, half>;

/// The scalars that have vector kernels. Any other scalar runs the plain loops.
template <class T>
concept Vectorized = std::same_as<T, float> || std::same_as<T, double>;

/// A scalar that layers can compute in: trivially copyable, made from a double, closed under + - * /, with
/// < and == on values, and exp, sqrt, erf, log found beside it where a config asks for them.
template <class T>
concept ComputeScalar = std::is_trivially_copyable_v<T> && !StorageOnly<T> &&
                        std::constructible_from<T, double> && requires(T a, T b) {
                          { a + b } -> std::convertible_to<T>;
                          { a - b } -> std::convertible_to<T>;
                          { a* b } -> std::convertible_to<T>;
                          { a / b } -> std::convertible_to<T>;
                          { a < b } -> std::convertible_to<bool>;
                          { a == b } -> std::convertible_to<bool>;
                        };

/// Widens a stored number (bfloat16 weight, float, ...) to the computing scalar.
template <class To, class From>
constexpr To scalar_cast(From value) {
  if constexpr (std::same_as<To, From>) {
    return value;
  } else if constexpr (StorageOnly<From>) {
    return static_cast<To>(static_cast<float>(value));
  } else if constexpr (StorageOnly<To>) {
    return static_cast<To>(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

}  // namespace retnet::inline RETNET_ABI
