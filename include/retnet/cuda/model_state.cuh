// SPDX-License-Identifier: MIT
// What a model on the device remembers of N sequences, and how tokens get there.
#pragma once

#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "retnet/cuda/host.cuh"
#include "retnet/cuda/retention_problem.cuh"

namespace retnet {

/// The retention states of all layers, [L][N,H,Dk,Dv], and the position of every sequence. Moves to
/// and from a ModelState<float> of the same model.
class CudaModelState {
 public:
  CudaModelState() = default;
  CudaModelState(CudaContext& ctx, std::int64_t layers, int sequences, std::int64_t matrix_size)
      : layer_size_(sequences * matrix_size),
        positions_(static_cast<std::size_t>(sequences), 0) {
    ctx.make_current();
    matrices_.resize(layers * layer_size_);
    device_positions_.resize(sequences);
    reset(ctx);
  }

  bool empty() const { return positions_.empty(); }
  int sequences() const { return static_cast<int>(positions_.size()); }
  std::int64_t layers() const { return layer_size_ > 0 ? matrices_.size() / layer_size_ : 0; }
  std::int64_t size() const { return matrices_.size(); }
  /// [N,H,Dk,Dv] on the device.
  float* layer(std::int64_t l) { return matrices_.data() + l * layer_size_; }
  const float* layer(std::int64_t l) const { return matrices_.data() + l * layer_size_; }
  /// Tokens that each sequence has read, [N]; the same on the device.
  std::span<const std::int64_t> positions() const { return positions_; }
  std::int64_t* device_positions() { return device_positions_.data(); }

  /// Every sequence begins again.
  void reset(CudaContext& ctx) {
    matrices_.zero(ctx.stream());
    device_positions_.zero(ctx.stream());
    std::fill(positions_.begin(), positions_.end(), 0);
  }
  /// On the host only; whoever runs the tokens moves the device's positions.
  void advance(std::int64_t sequence, std::int64_t tokens) {
    positions_[static_cast<std::size_t>(sequence)] += tokens;
  }
  void set_positions(CudaContext& ctx, std::span<const std::int64_t> positions) {
    positions_.assign(positions.begin(), positions.end());
    device_positions_.upload(positions_, ctx.stream());
  }
  /// A snapshot: the same size is allocated once.
  void copy_from(CudaContext& ctx, const CudaModelState& other) {
    ctx.make_current();
    layer_size_ = other.layer_size_;
    matrices_.resize(other.matrices_.size());
    device_positions_.resize(other.device_positions_.size());
    RETNET_CUDA(cudaMemcpyAsync(matrices_.data(), other.matrices_.data(),
                                DeviceBuffer<float>::bytes(matrices_.size()),
                                cudaMemcpyDeviceToDevice, ctx.stream()));
    RETNET_CUDA(cudaMemcpyAsync(device_positions_.data(), other.device_positions_.data(),
                                DeviceBuffer<std::int64_t>::bytes(device_positions_.size()),
                                cudaMemcpyDeviceToDevice, ctx.stream()));
    positions_ = other.positions_;
  }

  /// From the CPU. Throws std::invalid_argument if the sizes differ.
  void load(CudaContext& ctx, const ModelState<float>& host) {
    check(host);
    for (std::size_t l = 0; l < host.layers.size(); ++l)
      RETNET_CUDA(cudaMemcpyAsync(
          layer(static_cast<std::int64_t>(l)), host.layers[l].retention().matrices(),
          DeviceBuffer<float>::bytes(layer_size_), cudaMemcpyHostToDevice, ctx.stream()));
    set_positions(ctx, host.layers.front().retention().positions());
  }
  /// To the CPU: `host` is initial_state(N) of the model there.
  void store(CudaContext& ctx, ModelState<float>& host) const {
    check(host);
    for (std::size_t l = 0; l < host.layers.size(); ++l) {
      auto& to = host.layers[l].retention();
      RETNET_CUDA(cudaMemcpyAsync(to.matrices(), layer(static_cast<std::int64_t>(l)),
                                  DeviceBuffer<float>::bytes(layer_size_), cudaMemcpyDeviceToHost,
                                  ctx.stream()));
      std::copy(positions_.begin(), positions_.end(), to.positions().begin());
    }
    ctx.synchronize();
  }

 private:
  void check(const ModelState<float>& host) const {
    RETNET_CUDA_REQUIRE(
        static_cast<std::int64_t>(host.layers.size()) == layers() &&
            host.sequences() == sequences() && layers() > 0 &&
            std::int64_t(host.layers.front().retention().flat().size()) == layer_size_,
        "CudaModelState", "the state on the host has ", host.layers.size(), " layers of ",
        host.sequences(), " sequences, expected ", layers(), " of ", sequences());
  }

  std::int64_t layer_size_ = 0;
  DeviceBuffer<float> matrices_;
  DeviceBuffer<std::int64_t> device_positions_;
  std::vector<std::int64_t> positions_;
};

/// Whole numbers on their way to the device, through pinned memory: the copy does not stop the host.
class Int32Upload {
 public:
  Int32Upload() = default;
  Int32Upload(const Int32Upload&) = delete;
  Int32Upload& operator=(const Int32Upload&) = delete;
  ~Int32Upload() {
    if (event_ != nullptr) cudaEventDestroy(event_);
    if (pinned_ != nullptr) cudaFreeHost(pinned_);
  }

  /// Copies the parts one behind the other; place(i) is where part i stands on the device.
  void send(CudaContext& ctx, std::initializer_list<std::span<const std::int32_t>> parts) {
    ctx.make_current();
    std::size_t size = 0;
    starts_.clear();
    for (const auto& p : parts) {
      starts_.push_back(static_cast<std::int64_t>(size));
      size += (p.size() + 3) / 4 * 4;
    }
    reserve(size);
    RETNET_CUDA(cudaEventSynchronize(event_));
    auto start = starts_.begin();
    for (const auto& p : parts) {
      if (!p.empty()) std::memcpy(pinned_ + *start, p.data(), p.size_bytes());
      ++start;
    }
    RETNET_CUDA(cudaMemcpyAsync(device_.data(), pinned_, size * sizeof(std::int32_t),
                                cudaMemcpyHostToDevice, ctx.stream()));
    RETNET_CUDA(cudaEventRecord(event_, ctx.stream()));
  }
  const std::int32_t* place(std::size_t part) const { return device_.data() + starts_[part]; }

 private:
  void reserve(std::size_t size) {
    if (event_ == nullptr) RETNET_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    if (size <= capacity_) return;
    RETNET_CUDA(cudaEventSynchronize(event_));  // of the copy that reads it
    capacity_ = 0;
    if (pinned_ != nullptr) cudaFreeHost(std::exchange(pinned_, nullptr));
    RETNET_CUDA(cudaMallocHost(&pinned_, size * sizeof(std::int32_t)));
    device_.resize(static_cast<std::int64_t>(size));
    capacity_ = size;
  }

  std::int32_t* pinned_ = nullptr;
  std::size_t capacity_ = 0;
  cudaEvent_t event_ = nullptr;
  DeviceBuffer<std::int32_t> device_;
  std::vector<std::int64_t> starts_;
};

}  // namespace retnet
