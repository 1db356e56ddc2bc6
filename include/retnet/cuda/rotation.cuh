// SPDX-License-Identifier: MIT
// Rotation of queries and keys by their position on the device; the definition is that of
// ops/rotation.hpp:
//
//   (x0, x1) -> scale (x0 cos a - x1 sin a,  x1 cos a + x0 sin a),    a = n theta_i
//
// All layers of a model turn by the same angles, so they are made once a pass, in double, and kept
// as float; dense sequences that begin at one position share them.
#pragma once

#include "retnet/cuda/launch.cuh"
#include "retnet/cuda/matrix.cuh"

namespace retnet {

enum class DeviceRotationLayout { none, interleaved, half_split };

/// What the rows of a pass are turned by and multiplied with. Row r takes entry r % period.
struct DeviceAngles {
  DeviceRotationLayout layout = DeviceRotationLayout::none;
  int pairs = 0;
  std::int64_t period = 0;
  const float2* query = nullptr;  // [period,pairs] {cos, sin}, times the xPos scale
  const float2* key = nullptr;
  const float* row_scale = nullptr;  // [period,H] 1/sqrt(s_n) of queries; null: none
};

/// What angles are made of, on the device but for the numbers.
struct DeviceTheta {
  DeviceRotationLayout layout = DeviceRotationLayout::none;
  int pairs = 0;
  int heads = 0;
  const double* theta = nullptr;      // [pairs]
  const double* log_xpos = nullptr;   // [pairs]; null: no xPos
  const double* log_gamma = nullptr;  // [H]; null: no row scale
};

/// One matrix to be turned in place: `heads` heads side by side.
template <class T>
struct DeviceTurn {
  DeviceMatrix<T> x;
  int heads = 0;
  const float2* angles = nullptr;
  const float* row_scale = nullptr;
  float constant = 1.0f;
};

namespace cuda {

/// The sequence that row r belongs to.
__device__ inline int sequence_of(const DeviceSequences& s, std::int64_t r) {
  if (s.cu_seqlens == nullptr) return static_cast<int>(r / s.length);
  int low = 0, high = s.count;  // cu_seqlens[low] <= r < cu_seqlens[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (s.cu_seqlens[middle] <= r ? low : high) = middle;
  }
  return low;
}

// s_n of ops/decay.hpp
__device__ inline double decay_row_sum(double log_gamma, double n) {
  return log_gamma == 0.0 ? n + 1.0 : expm1((n + 1.0) * log_gamma) / expm1(log_gamma);
}

template <class Position>
__global__ void angles_kernel(DeviceTheta t, DeviceSequences sequences, const Position* positions,
                              std::int64_t period, float2* query, float2* key, float* row_scale) {
  wait_for_previous_kernel();
  const std::int64_t width = t.pairs + (row_scale != nullptr ? t.heads : 0);
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < period * width;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t r = i / width;
    const int j = static_cast<int>(i % width);
    const int s = sequence_of(sequences, r);
    const auto n =
        static_cast<double>((positions != nullptr ? positions[s] : 0) + r - sequences.first(s));
    if (j >= t.pairs) {
      const int h = j - t.pairs;
      row_scale[r * t.heads + h] = static_cast<float>(1.0 / sqrt(decay_row_sum(t.log_gamma[h], n)));
      continue;
    }
    double sine, cosine;
    sincos(n * t.theta[j], &sine, &cosine);
    const double up = t.log_xpos != nullptr ? exp(n * t.log_xpos[j]) : 1.0;
    query[r * t.pairs + j] = {static_cast<float>(up * cosine), static_cast<float>(up * sine)};
    if (key != query)
      key[r * t.pairs + j] = {static_cast<float>(cosine / up), static_cast<float>(sine / up)};
  }
}

// V pairs at `at` of every head; their angles are read once.
template <int V, class T>
__device__ void turn_heads(const DeviceTurn<T>& turn, bool neighbours, int pairs, int slot,
                           std::int64_t entry, float sign, T* x) {
  const int width = static_cast<int>(turn.x.cols) / turn.heads;
  const int across = neighbours ? V : pairs;
  const float* scales = turn.row_scale ? turn.row_scale + entry * turn.heads : nullptr;
  float2 angle[V];
#pragma unroll
  for (int e = 0; e < V; ++e) angle[e] = turn.angles[entry * pairs + slot * V + e];
  x += neighbours ? 2 * slot * V : slot * V;
#pragma unroll 4
  for (int h = 0; h < turn.heads; ++h, x += width) {
    float low[V], high[V], pair[2 * V];
    load_floats(x, low);
    load_floats(x + across, high);
    const float scale = turn.constant * (scales ? scales[h] : 1.0f);
#pragma unroll
    for (int e = 0; e < V; ++e) {  // pair[2e], pair[2e+1] = (x0, x1)
      const int i = 2 * e;
      const float x0 = neighbours ? (i < V ? low[i % V] : high[i % V]) : low[e];
      const float x1 = neighbours ? (i + 1 < V ? low[(i + 1) % V] : high[(i + 1) % V]) : high[e];
      const float c = scale * angle[e].x, s = scale * sign * angle[e].y;
      pair[i] = x0 * c - x1 * s;
      pair[i + 1] = x1 * c + x0 * s;
    }
#pragma unroll
    for (int e = 0; e < V; ++e) {
      low[e] = neighbours ? pair[e] : pair[2 * e];
      high[e] = neighbours ? pair[V + e] : pair[2 * e + 1];
    }
    store_floats(x, low);
    store_floats(x + across, high);
  }
}

// V columns at x of every head, which do not turn.
template <int V, class T>
__device__ void scale_heads(const DeviceTurn<T>& turn, std::int64_t entry, T* x) {
  const int width = static_cast<int>(turn.x.cols) / turn.heads;
  for (int h = 0; h < turn.heads; ++h, x += width) {
    const float scale =
        turn.constant * (turn.row_scale ? turn.row_scale[entry * turn.heads + h] : 1.0f);
    float a[V];
    load_floats(x, a);
#pragma unroll
    for (int e = 0; e < V; ++e) a[e] *= scale;
    store_floats(x, a);
  }
}

// threadIdx.x is a place in the heads, V pairs or V columns behind them; blockIdx.y the matrix.
template <class T, int V, DeviceRotationLayout Layout>
__global__ void rotate_kernel(int pairs, std::int64_t period, float sign, DeviceTurn<T> first,
                              DeviceTurn<T> second) {
  wait_for_previous_kernel();
  const DeviceTurn<T> turn = blockIdx.y == 0 ? first : second;
  const int width = static_cast<int>(turn.x.cols) / turn.heads;
  const int turning = pairs / V, slots = turning + (width - 2 * pairs) / V;
  const std::int64_t r = blockIdx.x * std::int64_t{blockDim.y} + threadIdx.y;
  if (r >= turn.x.rows) return;
  const std::int64_t entry = static_cast<std::uint32_t>(r) % static_cast<std::uint32_t>(period);
  for (int slot = threadIdx.x; slot < slots; slot += blockDim.x) {
    if (slot < turning)
      turn_heads<V>(turn, Layout == DeviceRotationLayout::interleaved, pairs, slot, entry, sign,
                    turn.x.row(r));
    else
      scale_heads<V>(turn, entry, turn.x.row(r) + 2 * pairs + (slot - turning) * V);
  }
}

template <class T>
bool turn_packs(const DeviceTurn<T>& t, int pairs) {
  if (!t.x) return true;
  const std::int64_t width = t.x.cols / t.heads;
  return packs(t.x) && width % kPack<T> == 0 && (width - 2 * pairs) % kPack<T> == 0;
}

}  // namespace cuda

/// The angles of the rows of `sequences`; positions [N] on the device say where each one begins,
/// null: at 0. `shared`: all begin at one position and are dense. The angles, of query and key [period,
/// pairs] and, with log_gamma, the row sums' inverse roots [period,H], lie in the workspace: they are
/// valid until the caller's scope ends.
inline DeviceAngles make_angles(CudaContext& ctx, const DeviceTheta& theta,
                                const DeviceSequences& sequences, const std::int64_t* positions,
                                bool shared) {
  DeviceAngles out{.layout = theta.layout,
                   .pairs = theta.pairs,
                   .period = shared ? sequences.length : sequences.rows};
  auto& ws = ctx.workspace();
  const std::int64_t n = out.period * theta.pairs;
  float2* query = ws.take<float2>(n);
  float2* key = theta.log_xpos != nullptr ? ws.take<float2>(n) : query;
  float* scale = theta.log_gamma != nullptr ? ws.take<float>(out.period * theta.heads) : nullptr;
  const std::int64_t work = n + (scale != nullptr ? out.period * theta.heads : 0);
  if (work > 0) {
    cuda::launch(ctx, out.period <= cuda::kShortRows, cuda::angles_kernel<std::int64_t>,
                 cuda::blocks_for(ctx, work, 128), 128, 0, theta, sequences, positions, out.period,
                 query, key, scale);
  }
  out.query = query;
  out.key = key;
  out.row_scale = scale;
  return out;
}

/// Turns the heads of both matrices [R,heads*width] in place, in one launch, the first 2 * pairs
/// columns of each; `second` may be empty. `inverse` turns back: with the
/// same scale it is the backward.
template <class T>
void rotate(CudaContext& ctx, const DeviceAngles& angles, const DeviceTurn<T>& first,
            const DeviceTurn<T>& second, bool inverse = false) {
  const int pairs = angles.pairs;
  for (const auto* t : {&first, &second})
    RETNET_CUDA_REQUIRE(
        !t->x || (t->heads > 0 && t->x.cols % t->heads == 0 && 2 * pairs <= t->x.cols / t->heads),
        "cuda::rotate", t->x.text(), " in ", t->heads, " heads, ", pairs,
        " pairs, expected equal heads of at least that many");
  const bool wide = pairs % cuda::kPack<T> == 0 && cuda::turn_packs(first, pairs) &&
                    cuda::turn_packs(second, pairs);
  const int v = wide ? cuda::kPack<T> : 1;
  std::int64_t slots = 0, rows = 0;
  for (const auto* t : {&first, &second}) {
    if (!t->x) continue;
    const std::int64_t width = t->x.cols / t->heads;
    slots = std::max(slots, pairs / v + (width - 2 * pairs) / v);
    rows = std::max(rows, t->x.rows);
  }
  RETNET_CUDA_REQUIRE(rows < (std::int64_t{1} << 31), "cuda::rotate", rows, " rows, at most 2^31");
  if (rows == 0) return;
  const auto x = static_cast<unsigned>(std::min<std::int64_t>(slots, 128));
  const dim3 block(x, 128 / x);
  const dim3 grid(static_cast<unsigned>(cuda::ceil_div<std::int64_t>(rows, block.y)),
                  second.x ? 2 : 1);
  const auto launch = [&](auto layout) {
    const auto kernel = wide ? cuda::rotate_kernel<T, cuda::kPack<T>, layout()>
                             : cuda::rotate_kernel<T, 1, layout()>;
    cuda::launch(ctx, rows <= cuda::kShortRows, kernel, grid, block, 0, pairs, angles.period,
                 inverse ? -1.0f : 1.0f, first, second);
  };
  using Layout = DeviceRotationLayout;
  if (angles.layout == Layout::interleaved)
    launch(std::integral_constant<Layout, Layout::interleaved>{});
  else
    launch(std::integral_constant<Layout, Layout::half_split>{});
}

}  // namespace retnet
