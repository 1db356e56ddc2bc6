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
    requires(std::is_const_v<T>&& std::is_same_v<U, std::remove_const_t<T>>)
  DeviceMatrix(const DeviceMatrix<U>& m)  // NOLINT(google-explicit-constructor)
      : DeviceMatrix(m.data, m.rows, m.cols, m.stride) {}
  /// Rows alone: what ops of retention take, which know the width.
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

/// N elements as they lie in memory, in whole registers: left to itself the compiler gives every
/// 16-bit element a register, and a store, of its own. N = 1, or 4, 8 or 16 bytes.
template <class T, int N>
struct Pack {
  static constexpr int kEach = N == 1 ? 1 : 4 / static_cast<int>(sizeof(T));  // elements of a word
  static constexpr int kWords = N / kEach;
  std::uint32_t words[kWords];

  __device__ void load(const T* from) {
    if constexpr (N == 1) {
      const float x = to_float(*from);
      memcpy(words, &x, 4);
    } else if constexpr (kWords == 1) {
      words[0] = *reinterpret_cast<const std::uint32_t*>(from);
    } else if constexpr (kWords == 2) {
      const uint2 w = *reinterpret_cast<const uint2*>(from);
      words[0] = w.x, words[1] = w.y;
    } else {
      static_assert(kWords == 4);
      const uint4 w = *reinterpret_cast<const uint4*>(from);
      words[0] = w.x, words[1] = w.y, words[2] = w.z, words[3] = w.w;
    }
  }
  __device__ void store(T* to) const {
    if constexpr (N == 1) {
      float x;
      memcpy(&x, words, 4);
      *to = from_float<T>(x);
    } else if constexpr (kWords == 1) {
      *reinterpret_cast<std::uint32_t*>(to) = words[0];
    } else if constexpr (kWords == 2) {
      *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    } else {
      *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
  __device__ void get(float (&x)[N]) const {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (kEach == 1) {
        x[i] = __uint_as_float(words[i]);
      } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        x[2 * i] = __uint_as_float(words[i] << 16);
        x[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
      } else {
        __half2 pair;
        memcpy(&pair, &words[i], 4);
        const float2 both = __half22float2(pair);
        x[2 * i] = both.x, x[2 * i + 1] = both.y;
      }
    }
  }
  __device__ void set(const float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (kEach == 1) {
        words[i] = __float_as_uint(x[i]);
      } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
        memcpy(&words[i], &pair, 4);
      } else {
        const __half2 pair = __floats2half2_rn(x[2 * i], x[2 * i + 1]);
        memcpy(&words[i], &pair, 4);
      }
    }
  }
};

template <int N, class T>
__device__ void load_floats(const T* from, float (&x)[N]) {
  Pack<T, N> pack;
  pack.load(from);
  pack.get(x);
}
template <int N, class T>
__device__ void store_floats(T* to, const float (&x)[N]) {
  Pack<T, N> pack;
  pack.set(x);
  pack.store(to);
}

/// Blocks of `threads` for n elements, not more than the device keeps busy.
inline unsigned blocks_for(const CudaContext& ctx, std::int64_t n, int threads, int waves = 16) {
  const std::int64_t most = std::int64_t{ctx.multiprocessors()} * waves;
  return static_cast<unsigned>(
      std::max<std::int64_t>(1, std::min(most, (n + threads - 1) / threads)));
}

}  // namespace cuda

}  // namespace retnet
