// SPDX-License-Identifier: MIT
// A scalar of one's own, with nothing but what retnet::ComputeScalar asks for and the functions that
// ops look up by argument. Every op must compile for it and fall through to the plain loops.
#pragma once

#include <cmath>

#include "retnet/core/scalar.hpp"

namespace retnet::test {

class Custom {
 public:
  Custom() = default;
  explicit constexpr Custom(double value) : value_(value) {}
  explicit constexpr operator double() const { return value_; }
  explicit constexpr operator float() const { return static_cast<float>(value_); }

  friend constexpr Custom operator+(Custom a, Custom b) { return Custom(a.value_ + b.value_); }
  friend constexpr Custom operator-(Custom a, Custom b) { return Custom(a.value_ - b.value_); }
  friend constexpr Custom operator*(Custom a, Custom b) { return Custom(a.value_ * b.value_); }
  friend constexpr Custom operator/(Custom a, Custom b) { return Custom(a.value_ / b.value_); }
  friend constexpr bool operator<(Custom a, Custom b) { return a.value_ < b.value_; }
  friend constexpr bool operator==(Custom a, Custom b) { return a.value_ == b.value_; }

  friend Custom exp(Custom x) { return Custom(std::exp(x.value_)); }
  friend Custom log(Custom x) { return Custom(std::log(x.value_)); }
  friend Custom sqrt(Custom x) { return Custom(std::sqrt(x.value_)); }
  friend Custom erf(Custom x) { return Custom(std::erf(x.value_)); }

 private:
  double value_;
};

static_assert(ComputeScalar<Custom> && !Vectorized<Custom>);

}  // namespace retnet::test
