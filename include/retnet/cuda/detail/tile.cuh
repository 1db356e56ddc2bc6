// SPDX-License-Identifier: MIT
// Tiles of 64 x 64 numbers, the unit of the portable kernels: read from rows of any width and
// alignment into registers, put into shared memory, multiplied by a block of 256 threads.
//
// A product knows which row and column each of a thread's 16 sums belongs to, so that masks, decays
// and sums over rows are plain loops over registers. float is multiplied by multiply-add alone (exact
// to its rounding), the 16-bit types by the matrix units of sm_80 and later (mma.sync).
#pragma once

#include "retnet/cuda/device.cuh"

namespace retnet::cuda {

inline constexpr int kTile = 64;
inline constexpr int kTileThreads = 256;

/// 16 bytes, which one instruction loads or stores.
template <class T>
using Line = Vector<T, 16 / static_cast<int>(sizeof(T))>;
template <class T>
inline constexpr int kLine = 16 / static_cast<int>(sizeof(T));

/// Rows of a tile in shared memory lie 16 bytes further apart than they are long, which spreads the
/// rows that a warp reads at once over all banks.
template <class T>
inline constexpr int kTileStride = kTile + kLine<T>;
template <class T>
inline constexpr int kTileSize = kTile* kTileStride<T>;

/// Where a tile comes from or goes to: `rows` x `cols` of it exist. A negative stride reads time
/// backwards.
template <class T>
struct TileRows {
  T* data = nullptr;
  std::int64_t stride = 0;
  int rows = 0;
  int cols = 0;
  bool wide = false;  // 16 bytes at a time
};

/// Whether rows from `p` on may be read a line at a time.
template <class T>
__device__ bool lines_aligned(const T* p, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && stride % kLine<T> == 0;
}

/// A tile on its way through registers, so that the next one is fetched while this one is used. Whole
/// lines are kept as bits: as numbers of 16 bits the compiler would take them apart.
template <class T>
class TileRegisters {
 public:
  /// What lies outside the rows and columns of the source is 0.
  __device__ void fetch(const TileRows<const T>& from) {
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const int row = row_of(i), col = col_of(i);
      const T* p = from.data + row * from.stride + col;
      const int n = row < from.rows ? from.cols - col : 0;
      if (n >= kLine<T> && from.wide) {
        lines_[i] = *reinterpret_cast<const uint4*>(p);
      } else {
        lines_[i] = {};
        if (n > 0) lines_[i] = gather(p, n);
      }
    }
  }
  __device__ void put(T* tile) const {
#pragma unroll
    for (int i = 0; i < kLines; ++i) *in_tile(tile, i) = lines_[i];
  }
  /// Row i times scale[i].
  __device__ void put_scaled(T* tile, const float* scale) const {
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      auto line = __builtin_bit_cast(Line<T>, lines_[i]);
      const float by = scale[row_of(i)];
#pragma unroll
      for (int j = 0; j < kLine<T>; ++j) line.at[j] = from_float<T>(to_float(line.at[j]) * by);
      *in_tile(tile, i) = __builtin_bit_cast(uint4, line);
    }
  }
  __device__ void take(T* tile) {
#pragma unroll
    for (int i = 0; i < kLines; ++i) lines_[i] = *in_tile(tile, i);
  }
  __device__ void store(const TileRows<T>& to) const {
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const int row = row_of(i), col = col_of(i);
      T* p = to.data + row * to.stride + col;
      const int n = row < to.rows ? to.cols - col : 0;
      if (n >= kLine<T> && to.wide) {
        *reinterpret_cast<uint4*>(p) = lines_[i];
      } else {
        const auto line = __builtin_bit_cast(Line<T>, lines_[i]);
#pragma unroll
        for (int j = 0; j < kLine<T>; ++j)
          if (j < n) p[j] = line.at[j];
      }
    }
  }

 private:
  static constexpr int kPerRow = kTile / kLine<T>;
  static constexpr int kLines = kTile * kPerRow / kTileThreads;
  static __device__ int row_of(int i) {
    return i * (kTileThreads / kPerRow) + static_cast<int>(threadIdx.x) / kPerRow;
  }
  static __device__ int col_of(int) { return static_cast<int>(threadIdx.x) % kPerRow * kLine<T>; }
  static __device__ uint4* in_tile(T* tile, int i) {
    return reinterpret_cast<uint4*>(tile + row_of(i) * kTileStride<T> + col_of(i));
  }
  /// The first n numbers of a line, one by one. Apart, so that the registers it needs are its own.
  static __device__ __noinline__ uint4 gather(const T* p, int n) {
    Line<T> line;
#pragma unroll
    for (int j = 0; j < kLine<T>; ++j) line.at[j] = j < n ? p[j] : from_float<T>(0.0f);
    return __builtin_bit_cast(uint4, line);
  }

  uint4 lines_[kLines];
};

/// How an operand lies in shared memory: as the product reads it, or with rows and columns exchanged.
enum class Layout { plain, transposed };

/// 64 x 64 sums, 16 a thread. add<A, B>(a, b): this += a b.
template <class T>
struct TileProduct;

template <>
struct TileProduct<float> {
  float sums[16] = {};

  static __device__ int row(int e) { return static_cast<int>(threadIdx.x) / 16 + 16 * (e / 4); }
  static __device__ int col(int e) { return static_cast<int>(threadIdx.x) % 16 + 16 * (e % 4); }

  template <Layout A, Layout B>
  __device__ void add(const float* a, const float* b) {
    constexpr int kStride = kTileStride<float>;
#pragma unroll 4
    for (int k = 0; k < kTile; ++k) {
      float x[4], y[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        x[e] = A == Layout::plain ? a[row(4 * e) * kStride + k] : a[k * kStride + row(4 * e)];
        y[e] = B == Layout::plain ? b[k * kStride + col(e)] : b[col(e) * kStride + k];
      }
#pragma unroll
      for (int e = 0; e < 16; ++e) sums[e] = fmaf(x[e / 4], y[e % 4], sums[e]);
    }
  }

  __device__ void put(float* tile) const {
#pragma unroll
    for (int e = 0; e < 16; ++e) tile[row(e) * kTileStride<float> + col(e)] = sums[e];
  }
};

/// Four 8 x 8 matrices of 16-bit numbers from shared memory in the layout of mma.sync; each lane
/// gives the address of one row.
template <bool Transposed>
__device__ void load_matrices(std::uint32_t (&out)[4], const void* row) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at));
  }
}

/// c [16,8] += a [16,16] b [16,8].
template <class T>
__device__ void multiply_16x8x16(float* c, const std::uint32_t (&a)[4], std::uint32_t b0,
                                 std::uint32_t b1) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// Eight warps, each 16 rows by 32 columns: four matrices of 16 x 8 beside each other, in which a
/// lane holds two neighbouring columns of a row and of the row 8 further down.
template <class T>
struct TileProduct {
  float sums[16] = {};

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int warp_row() { return static_cast<int>(threadIdx.x) / 64 * 16; }
  static __device__ int warp_col() { return static_cast<int>(threadIdx.x) / 32 % 2 * 32; }
  static __device__ int row(int e) { return warp_row() + lane() / 4 + (e % 4) / 2 * 8; }
  static __device__ int col(int e) { return warp_col() + e / 4 * 8 + lane() % 4 * 2 + e % 2; }

  template <Layout A, Layout B>
  __device__ void add(const T* a, const T* b) {
    constexpr int kStride = kTileStride<T>;
    const int matrix = lane() / 8, line = lane() % 8;  // of the address that this lane gives
    const int low = matrix % 2 * 8, high = matrix / 2 * 8;
#pragma unroll
    for (int k = 0; k < kTile; k += 16) {
      std::uint32_t x[4], y[4];
      if constexpr (A == Layout::plain) {
        load_matrices<false>(x, a + (warp_row() + low + line) * kStride + k + high);
      } else {
        load_matrices<true>(x, a + (k + high + line) * kStride + warp_row() + low);
      }
#pragma unroll
      for (int n = 0; n < 32; n += 16) {
        if constexpr (B == Layout::plain) {
          load_matrices<true>(y, b + (k + low + line) * kStride + warp_col() + n + high);
        } else {
          load_matrices<false>(y, b + (warp_col() + n + high + line) * kStride + k + low);
        }
        multiply_16x8x16<T>(sums + n / 2, x, y[0], y[1]);
        multiply_16x8x16<T>(sums + n / 2 + 4, x, y[2], y[3]);
      }
    }
  }

  __device__ void put(T* tile) const {
#pragma unroll
    for (int e = 0; e < 16; e += 2) {
      T pair[2] = {from_float<T>(sums[e]), from_float<T>(sums[e + 1])};
      std::uint32_t bits;
      __builtin_memcpy(&bits, pair, 4);
      *reinterpret_cast<std::uint32_t*>(tile + row(e) * kTileStride<T> + col(e)) = bits;
    }
  }
};

}  // namespace retnet::cuda
