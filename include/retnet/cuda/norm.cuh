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
  bool per_group = false;                                 // every group has weights of its own
  DeviceActivation activation = DeviceActivation::swish;  // of the gate
};

namespace cuda {

inline constexpr int kNormWarps = 8;

/// The part of one group that a lane holds: packs p = 0.., at column (32 p + lane) V.
template <class T, int V, int P>
class LaneRow {
 public:
  /// `row` may be null where nobody will ask.
  __device__ LaneRow(const T* row, int width) : row_(row) {
    if constexpr (P > 0) {
      if (row == nullptr) return;
#pragma unroll
      for (int p = 0; p < P; ++p)
        if (at(p) < width) raw_[p].load(row + at(p));
    }
  }
  __device__ explicit operator bool() const { return row_ != nullptr; }
  __device__ static int at(int p) { return (p * 32 + static_cast<int>(threadIdx.x % 32)) * V; }
  __device__ void get(int p, float (&x)[V]) const {
    if constexpr (P > 0) {
      raw_[p].get(x);
    } else {
      load_floats(row_ + at(p), x);
    }
  }

 private:
  const T* row_;
  Pack<T, V> raw_[P > 0 ? P : 1];
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

/// Which gate: none, swish, or any, asked for at every element.
enum class Gate { none, swish, any };
template <Gate G>
__device__ Activated activate_gate(DeviceActivation kind, float x) {
  return activate(G == Gate::swish ? DeviceActivation::swish : kind, x);
}

template <class T>
struct NormForward {
  DeviceNormWeights<T> norm;
  DeviceMatrix<const T> x, g, z;
  float alpha;
  DeviceMatrix<T> y;
};

template <class T>
__device__ const T* part_of(const DeviceMatrix<const T>& m, std::int64_t r, int first) {
  return m.data != nullptr ? m.row(r) + first : nullptr;
}

// x *= w and x += b, at column `at` of the weights, where they are.
template <int V, class T>
__device__ void scale_and_shift(const DeviceNormWeights<T>& norm, int at, float (&x)[V]) {
  float other[V];
  if (norm.weight != nullptr) {
    load_floats(norm.weight + at, other);
#pragma unroll
    for (int e = 0; e < V; ++e) x[e] *= other[e];
  }
  if (norm.bias == nullptr) return;
  load_floats(norm.bias + at, other);
#pragma unroll
  for (int e = 0; e < V; ++e) x[e] += other[e];
}

template <class T, int V, int P, Gate G>
__global__ void __launch_bounds__(32 * kNormWarps, P == 8 ? 2 : 4) norm_kernel(NormForward<T> in) {
  wait_for_previous_kernel();
  const auto groups = static_cast<unsigned>(in.norm.groups);
  const int width = static_cast<int>(in.x.cols) / in.norm.groups;
  const unsigned task = blockIdx.x * kNormWarps + threadIdx.x / 32;
  const std::int64_t r = task / groups;
  if (r >= in.x.rows) return;
  const int first = static_cast<int>(task % groups) * width;
  const int shared = in.norm.per_group ? first : 0;
  const LaneRow<T, V, P> row(part_of(in.x, r, first), width);
  const LaneRow<T, V, P> gate(G == Gate::none ? nullptr : part_of(in.g, r, first), width);
  const LaneRow<T, V, P> residual(part_of(in.z, r, first), width);
  const auto stats = norm_stats<V, P>(in.norm.kind, in.norm.eps, row, width);
  for_lane_packs<V, P>(width, [&](int p) {
    const int at = LaneRow<T, V, P>::at(p);
    float y[V], other[V];
    row.get(p, y);
#pragma unroll
    for (int e = 0; e < V; ++e) y[e] = (y[e] - stats.mean) * stats.inverse;
    scale_and_shift(in.norm, shared + at, y);
    if constexpr (G != Gate::none) {
      gate.get(p, other);
#pragma unroll
      for (int e = 0; e < V; ++e) y[e] *= activate_gate<G>(in.norm.activation, other[e]).value;
    }
    if (residual) {
      residual.get(p, other);
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
  float* dweight;  // [parts, cols] each
  float* dbias;
};

/// Sums of the columns of a lane over the rows of its warp: in registers where the row is, else in a
/// place in memory that is the warp's own.
template <int V, int P, bool Wanted>
struct LaneSums {
  static constexpr bool kHeld = Wanted && P > 0;
  float held[kHeld ? P : 1][V] = {};
  float* place = nullptr;

  __device__ void begin(float* at, int width) {
    place = at;
    if constexpr (Wanted && !kHeld)
      for_lane_packs<V, P>(width, [&](int p) {
        for (int e = 0; e < V; ++e) place[LaneRow<float, V, P>::at(p) + e] = 0.0f;
      });
  }
  __device__ void add(int p, const float (&x)[V]) {
    if constexpr (kHeld) {
#pragma unroll
      for (int e = 0; e < V; ++e) held[p][e] += x[e];
    } else if constexpr (Wanted) {
      for (int e = 0; e < V; ++e) place[LaneRow<float, V, P>::at(p) + e] += x[e];
    }
  }
  /// The sums of the warps of the block, in their order, to the place of the first.
  __device__ void end(float* shared, int width) {
    if constexpr (kHeld) {
      for (int warp = 0; warp < kNormWarps; ++warp) {
        __syncthreads();
        if (threadIdx.x / 32 == warp)
          for_lane_packs<V, P>(width, [&](int p) {
            const int at = LaneRow<float, V, P>::at(p);
#pragma unroll
            for (int e = 0; e < V; ++e)
              shared[at + e] = warp == 0 ? held[p][e] : shared[at + e] + held[p][e];
          });
      }
      __syncthreads();
      for (int i = threadIdx.x; i < width; i += 32 * kNormWarps) place[i] = shared[i];
      __syncthreads();
    }
  }
};

// Sums: 0 no gradient of weights, 1 of w, 2 of w and b. blockIdx.y is the group.
template <class T, int V, int P, int Sums, Gate G>
__global__ void __launch_bounds__(32 * kNormWarps, P <= 4 ? 2 : 1)
    norm_backward_kernel(NormBackward<T> in) {
  extern __shared__ float shared_sums[];
  constexpr bool kGated = G != Gate::none, kOnce = kGated && P > 0 && P <= 2;
  using Row = LaneRow<T, V, P>;
  const int width = static_cast<int>(in.x.cols) / in.norm.groups;
  const int first = static_cast<int>(blockIdx.y) * width;
  const int shared = in.norm.per_group ? first : 0;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t part = P > 0 ? blockIdx.x : blockIdx.x * std::int64_t{kNormWarps} + warp;
  LaneSums<V, P, (Sums > 0)> dw;
  LaneSums<V, P, (Sums > 1)> db;
  if constexpr (Sums > 0) dw.begin(in.dweight + part * in.x.cols + first, width);
  if constexpr (Sums > 1) db.begin(in.dbias + part * in.x.cols + first, width);

  for (std::int64_t r = blockIdx.x * std::int64_t{kNormWarps} + warp; r < in.x.rows;
       r += std::int64_t{gridDim.x} * kNormWarps) {
    const Row row(in.x.row(r) + first, width), given(in.dy.row(r) + first, width);
    const Row gate(kGated ? part_of(in.g, r, first) : nullptr, width);
    const Row through(part_of(in.z, r, first), width);
    float value[kOnce ? P : 1][V], slope[kOnce ? P : 1][V];
    const auto open_gate = [&](int p, float(&v)[V], float(&s)[V]) {
      float g[V];
      gate.get(p, g);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const Activated a = activate_gate<G>(in.norm.activation, g[e]);
        v[e] = a.value;
        s[e] = a.slope;
      }
    };
    if constexpr (kOnce)
      for_lane_packs<V, P>(width, [&](int p) { open_gate(p, value[p], slope[p]); });
    const auto stats = norm_stats<V, P>(in.norm.kind, in.norm.eps, row, width);
    // xhat, d = dy act(g), dn = d w; and dy, act(g), act'(g) for the gate
    struct Parts {
      float xhat[V], d[V], dn[V], dy[V], value[V], slope[V];
    };
    const auto parts = [&](int p, Parts& x) {
      row.get(p, x.xhat);
      given.get(p, x.dy);
      if constexpr (kGated && !kOnce) open_gate(p, x.value, x.slope);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        if constexpr (kOnce) x.value[e] = value[p][e], x.slope[e] = slope[p][e];
        x.xhat[e] = (x.xhat[e] - stats.mean) * stats.inverse;
        x.d[e] = x.dn[e] = kGated ? x.dy[e] * x.value[e] : x.dy[e];
      }
      if (in.norm.weight == nullptr) return;
      float w[V];
      load_floats(in.norm.weight + shared + Row::at(p), w);
#pragma unroll
      for (int e = 0; e < V; ++e) x.dn[e] *= w[e];
    };
    float along = 0.0f, mean = 0.0f;
    for_lane_packs<V, P>(width, [&](int p) {
      Parts x;
      parts(p, x);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        along = fmaf(x.dn[e], x.xhat[e], along);
        mean += x.dn[e];
      }
    });
    along = warp_sum(along) / static_cast<float>(width);
    mean = in.norm.kind == DeviceNorm::layer ? warp_sum(mean) / static_cast<float>(width) : 0.0f;
    for_lane_packs<V, P>(width, [&](int p) {
      Parts x;
      parts(p, x);
      const int at = Row::at(p);
      float out[V], n[V];
#pragma unroll
      for (int e = 0; e < V; ++e) {
        out[e] = stats.inverse * (x.dn[e] - mean - x.xhat[e] * along);
        n[e] = x.xhat[e];
        x.xhat[e] *= x.d[e];
      }
      dw.add(p, x.xhat);
      db.add(p, x.d);
      if constexpr (kGated) {
        scale_and_shift(in.norm, shared + at, n);
#pragma unroll
        for (int e = 0; e < V; ++e) {
          x.slope[e] *= x.dy[e] * n[e];
          n[e] *= x.value[e];
        }
        store_floats(in.dg.row(r) + first + at, x.slope);
        if (in.y.data != nullptr) store_floats(in.y.row(r) + first + at, n);
      }
      if (through) {
        through.get(p, n);
#pragma unroll
        for (int e = 0; e < V; ++e) out[e] = fmaf(in.beta, n[e], out[e]);
      }
      store_floats(in.dx.row(r) + first + at, out);
    });
  }
  dw.end(shared_sums, width);
  db.end(shared_sums, width);
}

/// f(<int, V>, <int, P>, <Gate, G>) for the packs that a group of this width takes, at most `Most` of
/// them in registers.
template <class T, int Most, class F>
void with_packs(bool wide, std::int64_t width, bool gated, DeviceActivation activation, F&& f) {
  using std::integral_constant;
  const auto with_gate = [&](auto v, auto p) {
    if (!gated) return f(v, p, integral_constant<Gate, Gate::none>{});
    if (activation == DeviceActivation::swish)
      return f(v, p, integral_constant<Gate, Gate::swish>{});
    f(v, integral_constant<int, 0>{}, integral_constant<Gate, Gate::any>{});
  };
  const integral_constant<int, kPack<T>> v{};
  if (!wide) return with_gate(integral_constant<int, 1>{}, integral_constant<int, 0>{});
  const std::int64_t packs = (width + 32 * v - 1) / (32 * v);
  if (packs <= 1) return with_gate(v, integral_constant<int, 1>{});
  if (packs <= 2) return with_gate(v, integral_constant<int, 2>{});
  if (packs <= 4) return with_gate(v, integral_constant<int, 4>{});
  if constexpr (Most >= 8)
    if (packs <= 8) return with_gate(v, integral_constant<int, 8>{});
  with_gate(v, integral_constant<int, 0>{});
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
  const std::int64_t tasks = x.rows * weights.groups;
  RETNET_CUDA_REQUIRE(tasks < (std::int64_t{1} << 31), "cuda::norm", tasks,
                      " groups, at most 2^31");
  const auto blocks = static_cast<unsigned>(cuda::ceil_div<std::int64_t>(tasks, cuda::kNormWarps));
  const cuda::NormForward<T> in{weights, x, g, z, alpha, y};
  cuda::with_packs<T, 8>(
      wide, x.cols / weights.groups, bool(g), weights.activation, [&](auto v, auto p, auto gate) {
        cuda::launch(ctx, x.rows <= cuda::kShortRows, cuda::norm_kernel<T, v(), p(), gate()>,
                     blocks, 32 * cuda::kNormWarps, 0, in);
      });
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
  RETNET_CUDA_REQUIRE(bool(g) == bool(grad.dg), kWhere,
                      "a gate without its gradient, or the other "
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
  cuda::with_packs<T, 4>(wide, width, bool(g), weights.activation, [&](auto v, auto p, auto gate) {
    if (p() > 0) used = blocks;
    const auto bytes = p() > 0 && sums > 0 ? static_cast<std::size_t>(width) * sizeof(float) : 0;
    const auto kernel = sums == 0   ? cuda::norm_backward_kernel<T, v(), p(), 0, gate()>
                        : sums == 1 ? cuda::norm_backward_kernel<T, v(), p(), 1, gate()>
                                    : cuda::norm_backward_kernel<T, v(), p(), 2, gate()>;
    kernel<<<grid, 32 * cuda::kNormWarps, bytes, ctx.stream()>>>(in);
  });
  RETNET_CUDA_LAUNCHED("norm_backward", x.text());
  const int apart = weights.per_group ? 1 : weights.groups;
  const std::int64_t out = weights.per_group ? x.cols : width;
  if (sums > 0) cuda::add_parts(ctx, dw, used, apart, out, grad.dweight);
  if (sums > 1) cuda::add_parts(ctx, db, used, apart, out, grad.dbias);
}

}  // namespace retnet
