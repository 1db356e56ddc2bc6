// SPDX-License-Identifier: MIT
// Small things that most kernels need: conversion to and from float, several elements in one
// access, sums over a warp.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace retnet::cuda {

template <class I>
constexpr __host__ __device__ I ceil_div(I a, I b) {
  return (a + b - 1) / b;
}
template <class I>
constexpr __host__ __device__ I round_up(I a, I to) {
  return ceil_div(a, to) * to;
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_float(__half x) { return __half2float(x); }

/// To the nearest, ties to even.
template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

/// N elements that one instruction loads or stores; the address must be a multiple of its size.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  T at[N];
};

template <class T, int N>
__device__ Vector<T, N> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, N>*>(from);
}
template <class T, int N>
__device__ void store_vector(T* to, const Vector<T, N>& x) {
  *reinterpret_cast<Vector<T, N>*>(to) = x;
}

/// The sum over the 32 lanes, in all of them.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xFFFFFFFF, x, lane);
  return x;
}

}  // namespace retnet::cuda
