// SPDX-License-Identifier: MIT
// Steps of generation: what stands between two products is made by the second of them, once a block
// and while its weights are on their way, so that a block of the model is six kernels instead of ten.
//
//   linear_of_norm:  y = (norm(x) act(g)) W^T + b + beta z
//   linear_of_gate:  y = (act(a) u) W^T + b + beta z
//
// Both return false where they do not serve: rows that are many or wide or not in packs, activations
// that no published model gates with.
// As in linear, the weights must be ready when the kernel before is launched.
#pragma once

#include "retnet/cuda/norm.cuh"

namespace retnet {

namespace cuda {

/// One warp a group; P packs a lane.
template <class T, int P, Gate G>
struct NormSource {
  DeviceNormWeights<T> norm;
  DeviceMatrix<const T> x, g;

  __device__ void make(T* out) const {
    constexpr int V = kPack<T>;
    const int width = static_cast<int>(x.cols) / norm.groups;
    for (int task = threadIdx.x / 32; task < x.rows * norm.groups; task += kFewRowsThreads / 32) {
      const int r = task / norm.groups, first = task % norm.groups * width;
      const LaneRow<T, V, P> row(x.row(r) + first, width);
      const LaneRow<T, V, P> gate(G == Gate::none ? nullptr : part_of(g, r, first), width);
      const auto stats = norm_stats<V, P>(norm.kind, norm.eps, row, width);
      for_lane_packs<V, P>(width, [&](int p) {
        float y[V], other[V];
        row.get(p, y);
#pragma unroll
        for (int e = 0; e < V; ++e) y[e] = (y[e] - stats.mean) * stats.inverse;
        const int at = LaneRow<T, V, P>::at(p);
        scale_and_shift(norm, (norm.per_group ? first : 0) + at, y);
        if constexpr (G != Gate::none) {
          gate.get(p, other);
#pragma unroll
          for (int e = 0; e < V; ++e) y[e] *= activate_gate<G>(norm.activation, other[e]).value;
        }
        store_floats(out + r * x.cols + first + at, y);
      });
    }
  }
};

template <class T, DeviceActivation Kind>
struct GateSource {
  DeviceMatrix<const T> a, u;

  __device__ void make(T* out) const {
    constexpr int V = kPack<T>;
    for (int r = 0; r < a.rows; ++r)
      for (int k = threadIdx.x * V; k < a.cols; k += kFewRowsThreads * V) {
        float y[V], other[V];
        load_floats(a.row(r) + k, y);
        if (u.data != nullptr) load_floats(u.row(r) + k, other);
#pragma unroll
        for (int e = 0; e < V; ++e)
          y[e] = activate(Kind, y[e]).value * (u.data != nullptr ? other[e] : 1.0f);
        store_floats(out + r * a.cols + k, y);
      }
  }
};

}  // namespace cuda

template <class T, class Out>
bool linear_of_norm(CudaContext& ctx, DeviceMatrix<const T> weight, const T* bias,
                    const DeviceNormWeights<T>& norm, DeviceMatrix<const T> x,
                    DeviceMatrix<const T> g, DeviceMatrix<Out> y, DeviceMatrix<const Out> z = {},
                    float beta = 0.0f) {
  if (!cuda::few_rows_serve(weight, x.rows) || !cuda::packs(x, g) || !cuda::group_packs(norm, x) ||
      (g && norm.activation != DeviceActivation::swish))
    return false;
  using cuda::Gate;
  using std::integral_constant;
  const auto run = [&](auto p, auto gate) {
    const cuda::NormSource<T, p(), gate()> source{norm, x, g};
    cuda::few_rows<T, Out>(ctx, weight, bias, source, y, z, beta);
  };
  const auto with_gate = [&](auto p) {
    if (g) return run(p, integral_constant<Gate, Gate::swish>{});
    run(p, integral_constant<Gate, Gate::none>{});
  };
  const std::int64_t packs =
      cuda::ceil_div<std::int64_t>(x.cols / norm.groups, 32 * cuda::kPack<T>);
  if (packs <= 2)
    with_gate(integral_constant<int, 2>{});
  else if (packs <= 4)
    with_gate(integral_constant<int, 4>{});
  else
    with_gate(integral_constant<int, 0>{});
  return true;
}

template <class T, class Out>
bool linear_of_gate(CudaContext& ctx, DeviceMatrix<const T> weight, const T* bias,
                    DeviceActivation kind, DeviceMatrix<const T> a, DeviceMatrix<const T> u,
                    DeviceMatrix<Out> y, DeviceMatrix<const Out> z = {}, float beta = 0.0f) {
  if (!cuda::few_rows_serve(weight, a.rows) || !cuda::packs(a, u) ||
      (kind != DeviceActivation::swish && kind != DeviceActivation::gelu))
    return false;
  const auto run = [&](auto k) {
    const cuda::GateSource<T, k()> source{a, u};
    cuda::few_rows<T, Out>(ctx, weight, bias, source, y, z, beta);
  };
  if (kind == DeviceActivation::swish)
    run(std::integral_constant<DeviceActivation, DeviceActivation::swish>{});
  else
    run(std::integral_constant<DeviceActivation, DeviceActivation::gelu>{});
  return true;
}

}  // namespace retnet
