// SPDX-License-Identifier: MIT
// What every form of retention on a device is given; the definition is that of ops/retention.hpp:
//
//   S_n = a_n S_{n-1} + k_n^T v_n        o_n = q_n S_n          (Sun et al. 2023, Eq. 6)
//   a_n = gamma_h, or exp(log_gate[n,h])
//
// q is rotated and scaled. T is float, __nv_bfloat16 or __half; sums, state and decay are float. What
// meets a matrix unit is rounded to T first: scores q_n k_m, times up to 2^6 on Hopper, and, where q
// meets it, the state. In __half they must stay below 65504, |q_n k_m| below 1000: with gamma near 1
// and keys and values whose mean is not 0 a state leaves that range after some ten thousand tokens.
// __nv_bfloat16 has the range of float.
// States are [N,H,Dk,Dv], row-major, as on the CPU: a copy of bytes moves one there or back.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "retnet/cuda/context.cuh"

namespace retnet {

/// Rows of a matrix in device memory, `stride` elements apart. q, k and v may be columns of one
/// matrix, as one fused projection writes them.
template <class T>
struct DeviceRows {
  T* data = nullptr;
  std::int64_t stride = 0;

  __host__ __device__ explicit operator bool() const { return data != nullptr; }
  __host__ __device__ T* row(std::int64_t r) const { return data + r * stride; }
};

/// N sequences in the rows [R,...]: dense, of `length` rows each; or packed, sequence i in rows
/// [cu_seqlens[i], cu_seqlens[i+1]), cu_seqlens [N+1] on the device.
struct DeviceSequences {
  int count = 0;
  std::int64_t rows = 0;
  std::int64_t length = 0;  // of each when dense, else of the longest
  const std::int32_t* cu_seqlens = nullptr;

  static DeviceSequences dense(int count, std::int64_t length) {
    return {count, count * length, length, nullptr};
  }
  static DeviceSequences packed(int count, std::int64_t rows, std::int64_t longest,
                                const std::int32_t* cu_seqlens) {
    return {count, rows, longest, cu_seqlens};
  }
  __device__ std::int64_t first(int i) const {
    return cu_seqlens != nullptr ? cu_seqlens[i] : i * length;
  }
  __device__ std::int64_t length_of(int i) const {
    return cu_seqlens != nullptr ? cu_seqlens[i + 1] - cu_seqlens[i] : length;
  }
};

inline constexpr int kMaxDeviceHeads = 256;

/// log2(gamma_h), 0 < gamma <= 1, by value, a kernel parameter: nothing to load, and known on the
/// host, where the distance at which a head has forgotten decides how a sequence is split.
struct DeviceDecay {
  float log2_gamma[kMaxDeviceHeads] = {};
};

template <class T>
struct DeviceRetention {
  DeviceRows<const T> q;  // [R,H*Dk]
  DeviceRows<const T> k;  // [R,Hk*Dk]; query head h reads key head h / (H/Hk)
  DeviceRows<const T> v;  // [R,Hk*Dv]
  int heads = 0;
  int kv_heads = 0;
  int key_dim = 0;
  int value_dim = 0;
  DeviceDecay decay;
  // [R,H], natural logarithm, finite, at most 0; -200 forgets everything. Empty: the decay is fixed
  DeviceRows<const float> log_gate;
  DeviceSequences sequences;

  __host__ __device__ int group() const { return heads / kv_heads; }
  std::int64_t state_size() const {  // of all sequences
    return std::int64_t{sequences.count} * heads * key_dim * value_dim;
  }
};

/// Where gradients go. dq, dk, dv are assigned. dstate [N,H,Dk,Dv] holds the gradient of the final
/// state on the way in and that of the initial state on the way out. dstate and dlog_decay may be
/// empty; dlog_decay [R,H] is d L / d log a_n.
template <class T>
struct DeviceRetentionGradient {
  DeviceRows<T> dq, dk, dv;
  float* dstate = nullptr;
  DeviceRows<float> dlog_decay;
};

namespace cuda {

template <class T>
std::string shape_of(const DeviceRetention<T>& in) {
  return concat("N=", in.sequences.count, " T=", in.sequences.length, " H=", in.heads,
                " Hk=", in.kv_heads, " Dk=", in.key_dim, " Dv=", in.value_dim);
}

/// What every op of retention asks of its input. Throws std::invalid_argument.
template <class T>
void check_problem(const DeviceRetention<T>& in, const char* where) {
  RETNET_CUDA_REQUIRE(in.heads > 0 && in.heads <= kMaxDeviceHeads && in.kv_heads > 0 &&
                          in.heads % in.kv_heads == 0 && in.key_dim > 0 && in.value_dim > 0,
                      where, shape_of(in), ", expected 1 to ", kMaxDeviceHeads,
                      " heads, a multiple of Hk, and positive sizes");
  RETNET_CUDA_REQUIRE(in.sequences.count > 0 && in.sequences.rows > 0 && in.sequences.length > 0,
                      where, shape_of(in), ", expected at least one sequence of one token");
  RETNET_CUDA_REQUIRE(in.q && in.k && in.v, where, "q, k or v is null, expected device memory");
  RETNET_CUDA_REQUIRE(in.q.stride >= std::int64_t{in.heads} * in.key_dim &&
                          in.k.stride >= std::int64_t{in.kv_heads} * in.key_dim &&
                          in.v.stride >= std::int64_t{in.kv_heads} * in.value_dim,
                      where, shape_of(in), ", rows of q, k, v are ", in.q.stride, ", ", in.k.stride,
                      ", ", in.v.stride, " apart, expected at least the width of a row");
  constexpr float kLeast = -1074.0f;  // of a double
  for (int h = 0; h < in.heads && !in.log_gate; ++h)
    RETNET_CUDA_REQUIRE(in.decay.log2_gamma[h] <= 0.0f && in.decay.log2_gamma[h] >= kLeast, where,
                        "log2 of gamma of head ", h, " is ", in.decay.log2_gamma[h],
                        ", expected 0 < gamma <= 1");
}

}  // namespace cuda

}  // namespace retnet
