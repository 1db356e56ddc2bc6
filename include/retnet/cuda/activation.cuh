// SPDX-License-Identifier: MIT
// Activations and the gated product on the device; the definitions are those of ops/activation.hpp.
//
//   mlp:   y = act(a)           da = dy act'(a)
//   gate:  y = act(a) * u       da = dy u act'(a)      du = dy act(a)
//
// Backward gives y once more: it is cheaper to make it again than to keep it.
#pragma once

#include "retnet/cuda/launch.cuh"
#include "retnet/cuda/matrix.cuh"

namespace retnet {

enum class DeviceActivation { identity, relu, gelu, swish, sigmoid, gelu_tanh };

namespace cuda {

struct Activated {
  float value, slope;
};

/// e^x and 1/x by the special function unit: two units in the last place.
__device__ inline float quick_exp(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.4426950409f * x));
  return y;
}
__device__ inline float quick_inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float sigmoid(float x) { return quick_inverse(1.0f + quick_exp(-x)); }

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
      const float density = 0.3989422804f * quick_exp(-0.5f * x * x);
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

/// f(row, column) for packs of N columns: threadIdx.x goes along the row, blocks along the rows.
template <int N, class F>
__device__ void for_row_packs(std::int64_t rows, std::int64_t cols, F&& f) {
  for (std::int64_t r = blockIdx.x * blockDim.y + threadIdx.y; r < rows;
       r += gridDim.x * blockDim.y)
    for (int j = threadIdx.x * N; j < cols; j += blockDim.x * N) f(r, j);
}

/// Blocks and threads for that.
struct RowPacks {
  dim3 grid, block;
  RowPacks(const CudaContext& ctx, std::int64_t rows, std::int64_t packs) {
    const auto x =
        static_cast<unsigned>(std::min<std::int64_t>(256, round_up<std::int64_t>(packs, 32)));
    block = dim3(x, 256 / x);
    grid = dim3(blocks_for(ctx, rows, static_cast<int>(block.y), 32));
  }
};

template <class T, int N, DeviceActivation Kind>
__global__ void gate_kernel(DeviceMatrix<const T> a, DeviceMatrix<const T> u, DeviceMatrix<T> y) {
  wait_for_previous_kernel();
  const bool gated = u.data != nullptr;
  for_row_packs<N>(a.rows, a.cols, [&](std::int64_t r, int j) {
    float x[N], other[N];
    load_floats(a.row(r) + j, x);
    if (gated) load_floats(u.row(r) + j, other);
#pragma unroll
    for (int e = 0; e < N; ++e) x[e] = activate(Kind, x[e]).value * (gated ? other[e] : 1.0f);
    store_floats(y.row(r) + j, x);
  });
}

template <class T, int N, DeviceActivation Kind>
__global__ void gate_backward_kernel(DeviceMatrix<const T> a, DeviceMatrix<const T> u,
                                     DeviceMatrix<const T> dy, DeviceMatrix<T> da,
                                     DeviceMatrix<T> du, DeviceMatrix<T> y) {
  const bool gated = u.data != nullptr;
  for_row_packs<N>(a.rows, a.cols, [&](std::int64_t r, int j) {
    float x[N], d[N], other[N], out[N];
    load_floats(a.row(r) + j, x);
    load_floats(dy.row(r) + j, d);
    if (gated) load_floats(u.row(r) + j, other);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const Activated act = activate(Kind, x[e]);
      const float through = gated ? other[e] : 1.0f;
      out[e] = act.value * through;
      x[e] = d[e] * through * act.slope;
      other[e] = d[e] * act.value;
    }
    store_floats(da.row(r) + j, x);
    if (gated) store_floats(du.row(r) + j, other);
    if (y.data != nullptr) store_floats(y.row(r) + j, out);
  });
}

/// f(std::integral_constant<DeviceActivation, kind>): no kernel asks for the kind.
template <class F>
void with_activation(DeviceActivation kind, F&& f) {
  using enum DeviceActivation;
  switch (kind) {
    case identity: return f(std::integral_constant<DeviceActivation, identity>{});
    case relu: return f(std::integral_constant<DeviceActivation, relu>{});
    case gelu: return f(std::integral_constant<DeviceActivation, gelu>{});
    case swish: return f(std::integral_constant<DeviceActivation, swish>{});
    case sigmoid: return f(std::integral_constant<DeviceActivation, DeviceActivation::sigmoid>{});
    case gelu_tanh: return f(std::integral_constant<DeviceActivation, gelu_tanh>{});
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

/// y = act(a) * u, or act(a) where u is empty, of matrices of one shape. y may be a or u.
template <class T>
void gate(CudaContext& ctx, DeviceActivation kind, DeviceMatrix<const T> a, DeviceMatrix<const T> u,
          DeviceMatrix<T> y) {
  cuda::check_same("cuda::gate", a, u, y);
  if (a.rows == 0 || a.cols == 0) return;
  const bool wide = cuda::packs(a, u, y);
  const cuda::RowPacks shape(ctx, a.rows, a.cols / (wide ? cuda::kPack<T> : 1));
  cuda::with_activation(kind, [&](auto k) {
    const auto kernel =
        wide ? cuda::gate_kernel<T, cuda::kPack<T>, k()> : cuda::gate_kernel<T, 1, k()>;
    cuda::launch(ctx, a.rows <= cuda::kShortRows, kernel, shape.grid, shape.block, 0, a, u, y);
  });
}

/// Gradients of gate. u and du are empty together; da may be a or dy, du may be u; y, what forward
/// gave, may be empty.
template <class T>
void gate_backward(CudaContext& ctx, DeviceActivation kind, DeviceMatrix<const T> a,
                   DeviceMatrix<const T> u, DeviceMatrix<const T> dy, DeviceMatrix<T> da,
                   DeviceMatrix<T> du, DeviceMatrix<T> y) {
  cuda::check_same("cuda::gate_backward", a, u, dy, da, du, y);
  if (a.rows == 0 || a.cols == 0) return;
  const bool wide = cuda::packs(a, u, dy, da, du, y);
  const cuda::RowPacks shape(ctx, a.rows, a.cols / (wide ? cuda::kPack<T> : 1));
  cuda::with_activation(kind, [&](auto k) {
    const auto kernel = wide ? cuda::gate_backward_kernel<T, cuda::kPack<T>, k()>
                             : cuda::gate_backward_kernel<T, 1, k()>;
    kernel<<<shape.grid, shape.block, 0, ctx.stream()>>>(a, u, dy, da, du, y);
  });
  RETNET_CUDA_LAUNCHED("gate_backward", a.text());
}

}  // namespace retnet
