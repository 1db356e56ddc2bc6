// SPDX-License-Identifier: MIT
// The numbers: what computes (float, double, your own scalar) and what only stores (bfloat16,
// half).
#pragma once

#include <Eigen/Core>
#include <cmath>
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
concept StorageOnly =
    std::same_as<std::remove_const_t<T>, bfloat16> || std::same_as<std::remove_const_t<T>, half>;

/// The scalars that have vector kernels. Any other scalar runs the plain loops.
template <class T>
concept Vectorized = std::same_as<T, float> || std::same_as<T, double>;

namespace detail {
using std::erf, std::exp, std::log, std::sqrt;
/// The functions of <cmath>, or those declared beside the scalar.
template <class T>
concept HasFunctions = requires(T x) {
  T(exp(x));
  T(log(x));
  T(sqrt(x));
  T(erf(x));
};
}  // namespace detail

/// A scalar that layers can compute in: trivially copyable, made from a double, with + - * / < ==
/// and exp, log, sqrt, erf of its own or of <cmath>.
template <class T>
concept ComputeScalar =
    std::is_trivially_copyable_v<T> && !StorageOnly<T> && detail::HasFunctions<T> &&
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
