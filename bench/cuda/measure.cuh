// SPDX-License-Identifier: MIT
// How a bench on a device measures: device events around each run, after warm-up, the median counts;
// inputs random (zeros run faster), in turn, so that none is in the L2 when it comes again; many
// small launches as one graph. The limits, copy bandwidth and bf16 matrix rate, are of the same run.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "retnet/cuda/context.cuh"
#include "retnet/cuda/device.cuh"
#include "retnet/cuda/graph.cuh"

namespace bench {

using retnet::CudaContext;
using retnet::DeviceBuffer;
using Bf16 = __nv_bfloat16;

namespace detail {

/// Sums of four uniform numbers, scaled to variance 1: normal enough for a bench.
template <class T>
__global__ void fill_kernel(T* out, std::int64_t n, unsigned stream, float deviation) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n; i += step) {
    std::uint64_t z = (std::uint64_t{stream} << 40) + static_cast<std::uint64_t>(i);
    z = (z + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    float sum = -2.f;
    for (int part = 0; part < 4; ++part)
      sum += static_cast<float>((z >> 16 * part) & 0xFFFF) / 65536.f;
    out[i] = retnet::cuda::from_float<T>(sum * deviation * 1.7320508f);
  }
}

class Event {
 public:
  Event() { RETNET_CUDA(cudaEventCreate(&event_)); }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace detail

template <class T>
void fill_random(CudaContext& ctx, T* out, std::int64_t n, unsigned stream, float deviation = 1.f) {
  detail::fill_kernel<<<8 * ctx.multiprocessors(), 256, 0, ctx.stream()>>>(out, n, stream,
                                                                           deviation);
  RETNET_CUDA_LAUNCHED("fill_kernel", retnet::cuda::concat(n));
}
template <class T>
DeviceBuffer<T> random_buffer(CudaContext& ctx, std::int64_t n, unsigned stream,
                              float deviation = 1.f) {
  DeviceBuffer<T> out(n);
  fill_random(ctx, out.data(), n, stream, deviation);
  return out;
}

/// Inputs of so many bytes each that it takes several sets to be larger than the L2.
inline int sets_beyond_cache(const CudaContext& ctx, std::int64_t bytes) {
  return static_cast<int>(2 + 2 * std::int64_t{ctx.properties().l2CacheSize} / bytes);
}

/// Of run(0), run(1), ... run(sets - 1), run(0), ...
inline double median_ms(CudaContext& ctx, int sets, const std::function<void(int)>& run,
                        int repetitions = 21) {
  constexpr int kWarm = 3;
  std::vector<detail::Event> events(static_cast<std::size_t>(2 * (repetitions + kWarm)));
  for (int i = 0; i < repetitions + kWarm; ++i) {
    RETNET_CUDA(cudaEventRecord(events[2 * i].get(), ctx.stream()));
    run(i % sets);
    RETNET_CUDA(cudaEventRecord(events[2 * i + 1].get(), ctx.stream()));
  }
  ctx.synchronize();
  std::vector<float> ms(static_cast<std::size_t>(repetitions));
  for (int i = 0; i < repetitions; ++i)
    RETNET_CUDA(cudaEventElapsedTime(&ms[i], events[2 * (i + kWarm)].get(),
                                     events[2 * (i + kWarm) + 1].get()));
  std::nth_element(ms.begin(), ms.begin() + repetitions / 2, ms.end());
  return ms[static_cast<std::size_t>(repetitions / 2)];
}

/// What launch() launches, as a graph that is replayed.
inline double graph_ms(CudaContext& ctx, const std::function<void()>& launch) {
  launch();  // what a first call allocates or asks is no part of a graph
  ctx.synchronize();
  retnet::cuda::Graph graph;
  graph.capture(ctx, launch);
  return median_ms(ctx, 1, [&](int) { graph.launch(ctx); });
}

struct Limits {
  double bytes_per_ms = 0.0;  // read and written, by a copy from the device to itself
  double flops_per_ms = 0.0;  // of a bf16 product of 8192^3 through cuBLASLt

  double floor_ms(double bytes, double flops) const {
    return std::max(bytes / bytes_per_ms, flops / flops_per_ms);
  }
};

}  // namespace bench
