// SPDX-License-Identifier: MIT
// Activations and the gated product on the device; the definitions are those of ops/activation.hpp.
//
//   mlp:   y = act(a)           da = dy act'(a)
//   gate:  y = act(a) * u       da = dy u act'(a)      du = dy act(a)
//
// Backward gives y once more: it is cheaper to make it again than to keep it.
#pragma once

#include "retnet/cuda/matrix.cuh"

namespace retnet {

enum class DeviceActivation { identity, relu, gelu, swish, sigmoid, gelu_tanh };

namespace cuda {

struct Activated {
  float value, slope;
};

__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

__device__ inline Activated activate(DeviceActivation kind, float x) {
  switch (kind) {
    case DeviceActivation::identity: break;
    case DeviceActivation::relu: return {fmaxf(x, 0.0f), x > 0.0f ? 1.0f : 0.0f};
    case DeviceActivation::sigmoid: {
      const float s = sigmoid(x);
      return {s, s * (1.0f - s)};
    }
    case DeviceActivation::swish: {
      const float s = sigmoid(x), y = x * s;
      return {y, fmaf(y, 1.0f - s, s)};
    }
    case DeviceActivation::gelu: {
      const float cdf = normcdff(x);
      const float density = 0.3989422804f * __expf(-0.5f * x * x);
      return {x * cdf, fmaf(x, density, cdf)};
    }
    case DeviceActivation::gelu_tanh: {  // x sigmoid(2z)
      constexpr float kLinear = 1.5957691216f, kCubic = kLinear * 0.044715f;
      const float square = x * x;
      const float s = sigmoid(x * fmaf(kCubic, square, kLinear));
      return {x * s, fmaf(x * s * (1.0f - s), fmaf(3.0f * kCubic, square, kLinear), s)};
    }
  }
  return {x, 1.0f};
}

template <class T, int N>
__global__ void gate_kernel(DeviceActivation kind, DeviceMatrix<const T> a, DeviceMatrix<const T> u,
                            DeviceMatrix<T> y) {
  const std::int64_t packs = a.cols / N;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < a.rows * packs;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t r = i / packs, j = i % packs * N;
    float x[N], other[N];
    load_floats(a.row(r) + j, x);
    if (u.data != nullptr) load_floats(u.row(r) + j, other);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      x[e] = activate(kind, x[e]).value;
      if (u.data != nullptr) x[e] *= other[e];
    }
    store_floats(y.row(r) + j, x);
  }
}

template <class T, int N>
__global__ void gate_backward_kernel(DeviceActivation kind, DeviceMatrix<const T> a,
                                     DeviceMatrix<const T> u, DeviceMatrix<const T> dy,
                                     DeviceMatrix<T> da, DeviceMatrix<T> du, DeviceMatrix<T> y) {
  const std::int64_t packs = a.cols / N;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < a.rows * packs;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t r = i / packs, j = i % packs * N;
    const bool gated = u.data != nullptr;
    float x[N], d[N], other[N], out[N];
    load_floats(a.row(r) + j, x);
    load_floats(dy.row(r) + j, d);
    if (gated) load_floats(u.row(r) + j, other);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const Activated act = activate(kind, x[e]);
      const float through = gated ? other[e] : 1.0f;
      out[e] = act.value * through;
      x[e] = d[e] * through * act.slope;
      other[e] = d[e] * act.value;
    }
    store_floats(da.row(r) + j, x);
    if (gated) store_floats(du.row(r) + j, other);
    if (y.data != nullptr) store_floats(y.row(r) + j, out);
  }
}

/// Throws unless the matrices that are there have the shape of the first.
template <class T, class... Others>
void check_same(const char* where, const DeviceMatrix<T>& a, const Others&... others) {
  const auto one = [&](const auto& b) {
    RETNET_CUDA_REQUIRE(!b || (a.rows == b.rows && a.cols == b.cols), where, a.text(), " and ",
                        b.text(), ", expected one shape");
  };
  (one(others), ...);
}

}  // namespace cuda

/// y = act(a) * u, or act(a) where u is empty. y may be a or u.
template <class T>
void gate(CudaContext& ctx, DeviceActivation kind, DeviceMatrix<const T> a,
          DeviceMatrix<const T> u, DeviceMatrix<T> y) {
  cuda::check_same("cuda::gate", a, u, y);
  const bool wide = cuda::packs(a, u, y);
  const auto blocks = cuda::blocks_for(ctx, a.rows * a.cols / (wide ? cuda::kPack<T> : 1), 256);
  const auto kernel = wide ? cuda::gate_kernel<T, cuda::kPack<T>> : cuda::gate_kernel<T, 1>;
  kernel<<<blocks, 256, 0, ctx.stream()>>>(kind, a, u, y);
  RETNET_CUDA_LAUNCHED("gate", a.text());
}

/// Gradients of gate. u and du are empty together; da may be a or dy, du may be u; y, what forward
/// gave, may be empty.
template <class T>
void gate_backward(CudaContext& ctx, DeviceActivation kind, DeviceMatrix<const T> a,
                   DeviceMatrix<const T> u, DeviceMatrix<const T> dy, DeviceMatrix<T> da,
                   DeviceMatrix<T> du, DeviceMatrix<T> y) {
  cuda::check_same("cuda::gate_backward", a, u, dy, da, du, y);
  const bool wide = cuda::packs(a, u, dy, da, du, y);
  const auto blocks = cuda::blocks_for(ctx, a.rows * a.cols / (wide ? cuda::kPack<T> : 1), 256);
  const auto kernel =
      wide ? cuda::gate_backward_kernel<T, cuda::kPack<T>> : cuda::gate_backward_kernel<T, 1>;
  kernel<<<blocks, 256, 0, ctx.stream()>>>(kind, a, u, dy, da, du, y);
  RETNET_CUDA_LAUNCHED("gate_backward", a.text());
}

}  // namespace retnet
