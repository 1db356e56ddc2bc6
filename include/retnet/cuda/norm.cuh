// SPDX-License-Identifier: MIT
// Normalisation of groups of columns on the device, with what follows it fused; the definitions are
// those of ops/norm.hpp. A block norm has one group, the head norm one a head.
//
//   n = xhat w + b                y = n act(g) + alpha z
//   d = dy act(g),   dg = dy n act'(g)
//   dx = r (d w - [layer] mean(d w) - xhat mean(d w xhat)) + beta z
//
// g (the gate of retention) and z (a residual) may be empty. One warp works on one group of one row
// and keeps it in registers, P packs of V a lane; P = 0 reads it again instead, for any width.
// Gradients of w and b are summed by each block over its rows, then over the blocks: always in the
// same order.
#pragma once

#include "retnet/cuda/activation.cuh"
#include "retnet/cuda/linear.cuh"

namespace retnet {

enum class DeviceNorm { rms, layer };

/// What a norm is: weight and bias may be null, or as wide as one group, or as wide as the row.
template <class T>
struct DeviceNormWeights {
  DeviceNorm kind = DeviceNorm::rms;
  float eps = 1e-6f;
  int groups = 1;
  const T* weight = nullptr;
  const T* bias = nullptr;
  bool per_group = false;  // every group has weights of its own
  DeviceActivation activation = DeviceActivation::swish;  // of the gate
};

namespace cuda {

inline constexpr int kNormWarps = 8;

/// The part of one group that a lane holds: packs p = 0.., at column (32 p + lane) V.
template <class T, int V, int P>
class LaneRow {
 public:
  __device__ LaneRow(const T* row, int width) : row_(row) {
    if constexpr (P > 0) {
#pragma unroll
      for (int p = 0; p < P; ++p)
        if (at(p) < width) raw_[p] = load_vector<T, V>(row + at(p));
    }
  }
  __device__ static int at(int p) { return (p * 32 + static_cast<int>(threadIdx.x % 32)) * V; }
  __device__ void get(int p, float (&x)[V]) const {
    if constexpr (P > 0) {
      unpack(raw_[p], x);
    } else {
      load_floats(row_ + at(p), x);
    }
  }

 private:
  const T* row_;
  Vector<T, V> raw_[P > 0 ? P : 1];
};

template <int V, int P, class F>
__device__ void for_lane_packs(int width, F&& f) {
  if constexpr (P > 0) {
#pragma unroll
    for (int p = 0; p < P; ++p)
      if ((p * 32 + static_cast<int>(threadIdx.x % 32)) * V < width) f(p);
  } else {
    for (int p = 0; (p * 32 + static_cast<int>(threadIdx.x % 32)) * V < width; ++p) f(p);
  }
}

struct NormStats {
  float mean, inverse;
};

template <int V, int P, class Row>
__device__ NormStats norm_stats(DeviceNorm kind, float eps, const Row& row, int width) {
  float mean = 0.0f;
  if (kind == DeviceNorm::layer) {
    for_lane_packs<V, P>(width, [&](int p) {
      float x[V];
      row.get(p, x);
#pragma unroll
      for (int e = 0; e < V; ++e) mean += x[e];
    });
    mean = warp_sum(mean) / static_cast<float>(width);
  }
  float squares = 0.0f;
  for_lane_packs<V, P>(width, [&](int p) {
    float x[V];
    row.get(p, x);
#pragma unroll
    for (int e = 0; e < V; ++e) squares = fmaf(x[e] - mean, x[e] - mean, squares);
  });
  return {mean, rsqrtf(warp_sum(squares) / static_cast<float>(width) + eps)};
}

template <class T>
struct NormForward {
  DeviceNormWeights<T> norm;
  DeviceMatrix<const T> x, g, z;
  float alpha;
  DeviceMatrix<T> y;
};

template <class T, int V, int P>
__global__ void __launch_bounds__(32 * kNormWarps) norm_kernel(NormForward<T> in) {
  const int groups = in.norm.groups, width = static_cast<int>(in.x.cols) / groups;
  const std::int64_t task = blockIdx.x * std::int64_t{kNormWarps} + threadIdx.x / 32;
  const std::int64_t r = task / groups;
  if (r >= in.x.rows) return;
  const int group = static_cast<int>(task % groups), first = group * width;
  const int shared = in.norm.per_group ? first : 0;
  const LaneRow<T, V, P> row(in.x.row(r) + first, width);
  const auto stats = norm_stats<V, P>(in.norm.kind, in.norm.eps, row, width);
  for_lane_packs<V, P>(width, [&](int p) {
    const int at = LaneRow<T, V, P>::at(p);
    float y[V], other[V];
    row.get(p, y);
#pragma unroll
    for (int e = 0; e < V; ++e) y[e] = (y[e] - stats.mean) * stats.inverse;
    if (in.norm.weight != nullptr) {
      load_floats(in.norm.weight + shared + at, other);
#pragma unroll
      for (int e = 0; e < V; ++e) y[e] *= other[e];
    }
    if (in.norm.bias != nullptr) {
      load_floats(in.norm.bias + shared + at, other);
#pragma unroll
      for (int e = 0; e < V; ++e) y[e] += other[e];
    }
    if (in.g.data != nullptr) {
      load_floats(in.g.row(r) + first + at, other);
#pragma unroll
      for (int e = 0; e < V; ++e) y[e] *= activate(in.norm.activation, other[e]).value;
    }
    if (in.z.data != nullptr) {
      load_floats(in.z.row(r) + first + at, other);
#pragma unroll
      for (int e = 0; e < V; ++e) y[e] = fmaf(in.alpha, other[e], y[e]);
    }
    store_floats(in.y.row(r) + first + at, y);
  });
}

template <class T>
struct NormBackward {
  DeviceNormWeights<T> norm;
  DeviceMatrix<const T> x, g, dy, z;
  float beta;
  DeviceMatrix<T> dx, dg, y;
  float* dweight;  // [blocks of rows, cols] each
  float* dbias;
};

/// Sums over the rows of one warp: registers, or a place in memory where the row is not held.
template <int V, int P, bool Kept>
struct LaneSums {
  float at[Kept ? P : 1][V] = {};
};

// The sums of the warps of a block, in their order, to out[width].
template <int V, int P>
__device__ void sum_warps(const LaneSums<V, P, true>& sums, int width, float* shared, float* out) {
  for (int warp = 0; warp < kNormWarps; ++warp) {
    __syncthreads();
    if (threadIdx.x / 32 == warp)
      for_lane_packs<V, P>(width, [&](int p) {
        const int at = (p * 32 + static_cast<int>(threadIdx.x % 32)) * V;
#pragma unroll
        for (int e = 0; e < V; ++e)
          shared[at + e] = warp == 0 ? sums.at[p][e] : shared[at + e] + sums.at[p][e];
      });
  }
  __syncthreads();
  for (int i = threadIdx.x; i < width; i += 32 * kNormWarps) out[i] = shared[i];
  __syncthreads();
}

template <int V>
__device__ void add_to(float* to, const float (&x)[V]) {
#pragma unroll
  for (int e = 0; e < V; ++e) to[e] += x[e];
}

// Sums: 0 no gradient of weights, 1 of w, 2 of w and b. blockIdx.y is the group.
template <class T, int V, int P, int Sums>
__global__ void __launch_bounds__(32 * kNormWarps) norm_backward_kernel(NormBackward<T> in) {
  extern __shared__ float shared_sums[];
  const int width = static_cast<int>(in.x.cols) / in.norm.groups;
  const int first = static_cast<int>(blockIdx.y) * width;
  const int shared = in.norm.per_group ? first : 0;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  constexpr bool kKept = P > 0;
  LaneSums<V, P, kKept && (Sums > 0)> dw;
  LaneSums<V, P, kKept && (Sums > 1)> db;
  const std::int64_t part = kKept ? blockIdx.x : blockIdx.x * std::int64_t{kNormWarps} + warp;
  float* dw_out = Sums > 0 ? in.dweight + part * in.x.cols + first : nullptr;
  float* db_out = Sums > 1 ? in.dbias + part * in.x.cols + first : nullptr;
  if constexpr (!kKept && Sums > 0)
    for_lane_packs<V, P>(width, [&](int p) {
      const int at = LaneRow<T, V, P>::at(p);
      for (int e = 0; e < V; ++e) {
        dw_out[at + e] = 0.0f;
        if (Sums > 1) db_out[at + e] = 0.0f;
      }
    });

  for (std::int64_t r = blockIdx.x * std::int64_t{kNormWarps} + warp; r < in.x.rows;
       r += std::int64_t{gridDim.x} * kNormWarps) {
    const LaneRow<T, V, P> row(in.x.row(r) + first, width);
    const LaneRow<T, V, P> given(in.dy.row(r) + first, width);
    const auto stats = norm_stats<V, P>(in.norm.kind, in.norm.eps, row, width);
    // d = dy act(g); the gradient with respect to xhat is d w
    const auto through = [&](int p, float (&xhat)[V], float (&d)[V], float (&dw_row)[V]) {
      const int at = LaneRow<T, V, P>::at(p);
      float other[V];
      row.get(p, xhat);
      given.get(p, d);
#pragma unroll
      for (int e = 0; e < V; ++e) xhat[e] = (xhat[e] - stats.mean) * stats.inverse;
      if (in.g.data != nullptr) {
        load_floats(in.g.row(r) + first + at, other);
#pragma unroll
        for (int e = 0; e < V; ++e) d[e] *= activate(in.norm.activation, other[e]).value;
      }
#pragma unroll
      for (int e = 0; e < V; ++e) dw_row[e] = d[e];
      if (in.norm.weight == nullptr) return;
      load_floats(in.norm.weight + shared + at, other);
#pragma unroll
      for (int e = 0; e < V; ++e) dw_row[e] *= other[e];
    };
    float along = 0.0f, mean = 0.0f;
    for_lane_packs<V, P>(width, [&](int p) {
      float xhat[V], d[V], dn[V];
      through(p, xhat, d, dn);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        along = fmaf(dn[e], xhat[e], along);
        mean += dn[e];
      }
    });
    along = warp_sum(along) / static_cast<float>(width);
    mean = in.norm.kind == DeviceNorm::layer ? warp_sum(mean) / static_cast<float>(width) : 0.0f;
    for_lane_packs<V, P>(width, [&](int p) {
      const int at = LaneRow<T, V, P>::at(p);
      float xhat[V], d[V], dn[V];
      through(p, xhat, d, dn);
      if constexpr (Sums > 0) {
        float along_w[V];
#pragma unroll
        for (int e = 0; e < V; ++e) along_w[e] = d[e] * xhat[e];
        if constexpr (kKept) {
          add_to(dw.at[p], along_w);
        } else {
          add_to(dw_out + at, along_w);
        }
      }
      if constexpr (Sums > 1) {
        if constexpr (kKept) {
          add_to(db.at[p], d);
        } else {
          add_to(db_out + at, d);
        }
      }
      if (in.g.data != nullptr) {
        float gate[V], n[V], given_d[V];
        load_floats(in.g.row(r) + first + at, gate);
        given.get(p, given_d);
#pragma unroll
        for (int e = 0; e < V; ++e) n[e] = xhat[e];
        float other[V];
        if (in.norm.weight != nullptr) {
          load_floats(in.norm.weight + shared + at, other);
#pragma unroll
          for (int e = 0; e < V; ++e) n[e] *= other[e];
        }
        if (in.norm.bias != nullptr) {
          load_floats(in.norm.bias + shared + at, other);
#pragma unroll
          for (int e = 0; e < V; ++e) n[e] += other[e];
        }
#pragma unroll
        for (int e = 0; e < V; ++e) {
          const Activated a = activate(in.norm.activation, gate[e]);
          gate[e] = given_d[e] * n[e] * a.slope;
          n[e] *= a.value;
        }
        store_floats(in.dg.row(r) + first + at, gate);
        if (in.y.data != nullptr) store_floats(in.y.row(r) + first + at, n);
      }
#pragma unroll
      for (int e = 0; e < V; ++e)
        dn[e] = stats.inverse * (dn[e] - mean - xhat[e] * along);
      if (in.z.data != nullptr) {
        float other[V];
        load_floats(in.z.row(r) + first + at, other);
#pragma unroll
        for (int e = 0; e < V; ++e) dn[e] = fmaf(in.beta, other[e], dn[e]);
      }
      store_floats(in.dx.row(r) + first + at, dn);
    });
  }
  if constexpr (kKept && Sums > 0) sum_warps<V, P>(dw, width, shared_sums, dw_out);
  if constexpr (kKept && Sums > 1) sum_warps<V, P>(db, width, shared_sums, db_out);
}

/// f(std::integral_constant<int, V>, <int, P>) for the packs that a group of this width takes.
template <class T, class F>
void with_packs(bool wide, std::int64_t width, int most, F&& f) {
  constexpr int kV = kPack<T>;
  const auto call = [&](auto v, auto p) { f(v, p); };
  using std::integral_constant;
  if (!wide) return call(integral_constant<int, 1>{}, integral_constant<int, 0>{});
  const auto v = integral_constant<int, kV>{};
  const std::int64_t packs = (width + 32 * kV - 1) / (32 * kV);
  if (packs > most) return call(v, integral_constant<int, 0>{});
  if (packs <= 1) return call(v, integral_constant<int, 1>{});
  if (packs <= 2) return call(v, integral_constant<int, 2>{});
  if (packs <= 4) return call(v, integral_constant<int, 4>{});
  call(v, integral_constant<int, 8>{});
}

template <class T>
bool group_packs(const DeviceNormWeights<T>& norm, DeviceMatrix<const T> x) {
  const std::int64_t width = x.cols / norm.groups;
  const DeviceMatrix<const T> group(x.data, x.rows, width, x.stride);
  return packs(group, DeviceMatrix<const T>(norm.weight, 1, width),
               DeviceMatrix<const T>(norm.bias, 1, width));
}

template <class T>
void check_norm(const char* where, const DeviceNormWeights<T>& norm, DeviceMatrix<const T> x) {
  RETNET_CUDA_REQUIRE(x && norm.groups > 0 && x.cols > 0 && x.cols % norm.groups == 0, where,
                      x.text(), " in ", norm.groups, " groups, expected equal groups");
}

}  // namespace cuda

/// y = norm(x) act(g) + alpha z; g and z may be empty, y may be x, g or z.
template <class T>
void norm(CudaContext& ctx, const DeviceNormWeights<T>& weights, DeviceMatrix<const T> x,
          DeviceMatrix<T> y, DeviceMatrix<const T> g = {}, DeviceMatrix<const T> z = {},
          float alpha = 0.0f) {
  cuda::check_norm("cuda::norm", weights, x);
  cuda::check_same("cuda::norm", x, y, g, z);
  if (x.rows == 0) return;
  const bool wide = cuda::group_packs(weights, x) && cuda::packs(x, y, g, z);
  const auto blocks = cuda::ceil_div<std::int64_t>(x.rows * weights.groups, cuda::kNormWarps);
  cuda::with_packs<T>(wide, x.cols / weights.groups, 8, [&]<int V, int P>(
      std::integral_constant<int, V>, std::integral_constant<int, P>) {
    cuda::norm_kernel<T, V, P><<<static_cast<unsigned>(blocks), 32 * cuda::kNormWarps, 0,
                                 ctx.stream()>>>({weights, x, g, z, alpha, y});
  });
  RETNET_CUDA_LAUNCHED("norm", x.text());
}

/// Where the gradients of a norm go. dweight and dbias are added to; both may be null. dg and y
/// (what forward gave, without the residual) go with a gate; y may be empty.
template <class T>
struct DeviceNormGradient {
  DeviceMatrix<T> dx;
  float* dweight = nullptr;
  float* dbias = nullptr;
  DeviceMatrix<T> dg = {}, y = {};
};

/// dx = gradient + beta z. dx may be dy or z; dg may be g where y is empty.
template <class T>
void norm_backward(CudaContext& ctx, const DeviceNormWeights<T>& weights, DeviceMatrix<const T> x,
                   DeviceMatrix<const T> dy, const DeviceNormGradient<T>& grad,
                   DeviceMatrix<const T> g = {}, DeviceMatrix<const T> z = {}, float beta = 0.0f) {
  constexpr const char* kWhere = "cuda::norm_backward";
  cuda::check_norm(kWhere, weights, x);
  cuda::check_same(kWhere, x, dy, g, z, grad.dx, grad.dg, grad.y);
  RETNET_CUDA_REQUIRE(bool(g) == bool(grad.dg), kWhere, "a gate without its gradient, or the other "
                      "way round");
  if (x.rows == 0) return;
  const int sums = grad.dweight == nullptr ? 0 : grad.dbias == nullptr ? 1 : 2;
  const std::int64_t width = x.cols / weights.groups;
  const bool wide =
      cuda::group_packs(weights, x) && cuda::packs(x, dy, g, z, grad.dx, grad.dg, grad.y);
  const std::int64_t most = std::max(1, 4 * ctx.multiprocessors() / weights.groups);
  const auto blocks = std::min(most, cuda::ceil_div<std::int64_t>(x.rows, cuda::kNormWarps));
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(weights.groups));
  const auto scope = ctx.workspace().scope();
  const std::int64_t parts = blocks * cuda::kNormWarps;
  float* dw = sums > 0 ? ctx.workspace().take<float>(parts * x.cols) : nullptr;
  float* db = sums > 1 ? ctx.workspace().take<float>(parts * x.cols) : nullptr;
  const cuda::NormBackward<T> in{weights, x, g, dy, z, beta, grad.dx, grad.dg, grad.y, dw, db};
  std::int64_t used = parts;
  cuda::with_packs<T>(wide, width, sums > 1 ? 4 : 8, [&]<int V, int P>(
      std::integral_constant<int, V>, std::integral_constant<int, P>) {
    if (P > 0) used = blocks;
    const auto bytes = P > 0 && sums > 0 ? static_cast<std::size_t>(width) * sizeof(float) : 0;
    constexpr int kBoth = P == 8 ? 0 : 2;  // 8 packs and both sums do not fit in registers
    const auto kernel = sums == 0   ? cuda::norm_backward_kernel<T, V, P, 0>
                        : sums == 1 ? cuda::norm_backward_kernel<T, V, P, 1>
                                    : cuda::norm_backward_kernel<T, V, P, kBoth>;
    kernel<<<grid, 32 * cuda::kNormWarps, bytes, ctx.stream()>>>(in);
  });
  RETNET_CUDA_LAUNCHED("norm_backward", x.text());
  const int apart = weights.per_group ? 1 : weights.groups;
  const std::int64_t out = weights.per_group ? x.cols : width;
  if (sums > 0) cuda::add_parts(ctx, dw, used, apart, out, grad.dweight);
  if (sums > 1) cuda::add_parts(ctx, db, used, apart, out, grad.dbias);
}

}  // namespace retnet
