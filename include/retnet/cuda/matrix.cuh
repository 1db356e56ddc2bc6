// SPDX-License-Identifier: MIT
// DeviceMatrix: a row-major matrix in device memory, maybe columns of a wider one; and how kernels
// that work row by row read and write it, 16 bytes at a time where shape and address allow.
#pragma once

#include <algorithm>
#include <type_traits>

#include "retnet/cuda/context.cuh"
#include "retnet/cuda/device.cuh"
#include "retnet/cuda/retention_problem.cuh"

namespace retnet {

template <class T>
struct DeviceMatrix {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;  // elements from one row to the next

  DeviceMatrix() = default;
  __host__ __device__ DeviceMatrix(T* data_, std::int64_t rows_, std::int64_t cols_,
                                   std::int64_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  __host__ __device__ DeviceMatrix(T* data_, std::int64_t rows_, std::int64_t cols_)
      : DeviceMatrix(data_, rows_, cols_, cols_) {}
  template <class U>
    requires(std::is_const_v<T> && std::is_same_v<U, std::remove_const_t<T>>)
  DeviceMatrix(const DeviceMatrix<U>& m)  // NOLINT(google-explicit-constructor)
      : DeviceMatrix(m.data, m.rows, m.cols, m.stride) {}
  operator DeviceRows<T>() const { return {data, stride}; }  // NOLINT(google-explicit-constructor)

  explicit operator bool() const { return data != nullptr; }
  __host__ __device__ T* row(std::int64_t r) const { return data + r * stride; }
  /// Columns [first, first + count).
  DeviceMatrix columns(std::int64_t first, std::int64_t count) const {
    return {data == nullptr ? nullptr : data + first, rows, count, stride};
  }
  DeviceMatrix row_block(std::int64_t first, std::int64_t count) const {
    return {row(first), count, cols, stride};
  }
  std::string text() const { return cuda::concat("[", rows, ",", cols, "]"); }
};

namespace cuda {

/// Elements of one 16-byte access.
template <class T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

/// Whether rows of these matrices may be read in packs; empty ones do not matter.
template <class... Matrix>
bool packs(const Matrix&... m) {
  const auto one = [](const auto& x) {
    constexpr std::int64_t kBytes = sizeof(*x.data);
    return x.data == nullptr || (reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 &&
                                 x.stride * kBytes % 16 == 0 && x.cols * kBytes % 16 == 0);
  };
  return (one(m) && ...);
}

template <int N, class T>
__device__ void unpack(const Vector<T, N>& raw, float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = to_float(raw.at[i]);
}
template <int N, class T>
__device__ void load_floats(const T* from, float (&x)[N]) {
  unpack(load_vector<T, N>(from), x);
}
template <int N, class T>
__device__ void store_floats(T* to, const float (&x)[N]) {
  Vector<T, N> raw;
#pragma unroll
  for (int i = 0; i < N; ++i) raw.at[i] = from_float<T>(x[i]);
  store_vector(to, raw);
}

/// Blocks of `threads` for n elements, not more than the device keeps busy.
inline unsigned blocks_for(const CudaContext& ctx, std::int64_t n, int threads, int waves = 16) {
  const std::int64_t most = std::int64_t{ctx.multiprocessors()} * waves;
  return static_cast<unsigned>(std::max<std::int64_t>(
      1, std::min(most, (n + threads - 1) / threads)));
}

}  // namespace cuda

}  // namespace retnet
