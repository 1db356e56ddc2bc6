// SPDX-License-Identifier: MIT
// Matrices on the device beside their numbers as double on the host: what an op is given, and what
// the oracle is given, are the same numbers after rounding to the type of the op.
#pragma once

#include <cmath>
#include <vector>

#include "retnet/cuda/host.cuh"
#include "retnet/cuda/matrix.cuh"

namespace retnet::test {

inline float host_float(float x) { return x; }
inline float host_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T>
T rounded_to(double x) {
  if constexpr (std::is_same_v<T, float>)
    return static_cast<float>(x);
  else
    return __float2bfloat16_rn(static_cast<float>(x));
}

/// [rows,cols], `gap` unused elements behind every row.
template <class T>
class DeviceValues {
 public:
  /// Outputs: every number is a NaN.
  DeviceValues(Index rows, Index cols, Index gap = 0)
      : rows_(rows),
        cols_(cols),
        stride_(cols + gap),
        values_(static_cast<std::size_t>(rows * cols)),
        raw_(static_cast<std::size_t>(rows * stride_), rounded_to<T>(NAN)),
        buffer_(rows * stride_) {
    upload();
  }
  /// Normal numbers around `mean`.
  static DeviceValues normal(Index rows, Index cols, std::uint64_t stream, double deviation = 1.0,
                             double mean = 0.0, Index gap = 0) {
    DeviceValues out(rows, cols, gap);
    for (std::size_t i = 0; i < out.values_.size(); ++i)
      out.values_[i] = mean + deviation * retnet::normal(Seed{77}, stream, i);
    out.store();
    return out;
  }
  static DeviceValues filled(Index rows, Index cols, double value) {
    return normal(rows, cols, 0, 0.0, value);
  }

  DeviceMatrix<T> device() { return {buffer_.data(), rows_, cols_, stride_}; }
  DeviceMatrix<const T> in() { return device(); }
  T* data() { return buffer_.data(); }
  /// What the op was given, or after download() what it gave.
  Window<double> host() { return {values_.data(), rows_, cols_}; }
  Window<const double> host_in() { return host(); }
  void download() {
    cudaDeviceSynchronize();
    buffer_.download(raw_, nullptr);
    for (Index r = 0; r < rows_; ++r)
      for (Index c = 0; c < cols_; ++c)
        values_[static_cast<std::size_t>(r * cols_ + c)] =
            static_cast<double>(host_float(raw_[static_cast<std::size_t>(r * stride_ + c)]));
  }

 private:
  void store() {
    for (Index r = 0; r < rows_; ++r)
      for (Index c = 0; c < cols_; ++c) {
        T& x = raw_[static_cast<std::size_t>(r * stride_ + c)];
        double& v = values_[static_cast<std::size_t>(r * cols_ + c)];
        x = rounded_to<T>(v);
        v = static_cast<double>(host_float(x));
      }
    upload();
  }
  void upload() { buffer_.upload(raw_, nullptr); }

  Index rows_, cols_, stride_;
  std::vector<double> values_;
  std::vector<T> raw_;
  DeviceBuffer<T> buffer_;
};

/// |given - expected| / |expected|; infinite where a number is not finite.
inline double relative_rms(Window<const double> given, Window<const double> expected) {
  double difference = 0.0, size = 0.0;
  for (Index r = 0; r < expected.rows; ++r)
    for (Index c = 0; c < expected.cols; ++c) {
      const double d = given(r, c) - expected(r, c);
      if (!std::isfinite(given(r, c))) return HUGE_VAL;
      difference += d * d;
      size += expected(r, c) * expected(r, c);
    }
  return size > 0.0 ? std::sqrt(difference / size) : std::sqrt(difference);
}

/// The bar of an op that rounds its result once.
template <class T>
constexpr double bar() {
  return std::is_same_v<T, float> ? 2e-6 : 3e-3;
}

}  // namespace retnet::test
