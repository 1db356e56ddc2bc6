// SPDX-License-Identifier: MIT
// How two results are compared: max |a - b| / max |b|, where NaN, infinity and unequal sizes count
// as infinitely wrong.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>

#include "retnet/core/buffer.hpp"
#include "retnet/core/view.hpp"
#include "retnet/core/window.hpp"

namespace retnet::test {

/// What two forms of one operator may differ by.
template <class S>
constexpr double tolerance() {
  return std::is_same_v<S, float> ? 1e-5 : 1e-12;
}

/// Collects pairs of numbers. `scale` is for results that cancel: the size of what they are made of.
class RelativeError {
 public:
  explicit RelativeError(double scale = 0.0) : size_(scale) {}
  template <class A, class B>
  void add(const A& a, const B& b) {
    const auto x = scalar_cast<double>(a), y = scalar_cast<double>(b);
    if (!std::isfinite(x) || !std::isfinite(y)) broken_ = true;
    difference_ = std::fmax(difference_, std::fabs(x - y));
    size_ = std::fmax(size_, std::fabs(y));
  }
  /// Absolute when every expected number is 0.
  double value() const {
    if (broken_) return std::numeric_limits<double>::infinity();
    return size_ > 0.0 ? difference_ / size_ : difference_;
  }

 private:
  double difference_ = 0.0;
  double size_;
  bool broken_ = false;
};

template <class A, class B>
double relative_error(std::span<const A> given, std::span<const B> expected, double scale = 0.0) {
  if (given.size() != expected.size()) return std::numeric_limits<double>::infinity();
  RelativeError error(scale);
  for (std::size_t i = 0; i < given.size(); ++i) error.add(given[i], expected[i]);
  return error.value();
}

template <class A, class B>
double relative_error(const Buffer<A>& given, const Buffer<B>& expected, double scale = 0.0) {
  return relative_error(given.span(), expected.span(), scale);
}

template <class A, class B>
double relative_error(const Window<A>& given, const Window<B>& expected) {
  if (given.rows != expected.rows || given.cols != expected.cols)
    return std::numeric_limits<double>::infinity();
  RelativeError error;
  for (Index r = 0; r < given.rows; ++r)
    for (Index c = 0; c < given.cols; ++c) error.add(given(r, c), expected(r, c));
  return error.value();
}

template <class A, class B, int Rank>
double relative_error(const View<A, Rank>& given, const View<B, Rank>& expected) {
  if (given.dims() != expected.dims()) return std::numeric_limits<double>::infinity();
  const auto size = static_cast<std::size_t>(given.size());
  return relative_error(std::span<const std::remove_const_t<A>>(given.data(), size),
                        std::span<const std::remove_const_t<B>>(expected.data(), size));
}

/// Equal to the last bit; NaN equals the same NaN.
template <class S>
bool same_bits(std::span<const S> a, std::span<const S> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

template <class S>
bool same_bits(const Buffer<S>& a, const Buffer<S>& b) {
  return same_bits(a.span(), b.span());
}

template <class A, class B>
  requires std::is_same_v<std::remove_const_t<A>, std::remove_const_t<B>>
bool same_bits(const Window<A>& a, const Window<B>& b) {
  if (a.rows != b.rows || a.cols != b.cols) return false;
  const auto bytes = static_cast<std::size_t>(a.cols) * sizeof(A);
  for (Index r = 0; r < a.rows; ++r)
    if (std::memcmp(a.row(r), b.row(r), bytes) != 0) return false;
  return true;
}

}  // namespace retnet::test
