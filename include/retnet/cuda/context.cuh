// SPDX-License-Identifier: MIT
// CudaContext: the first argument of every op on a device; its stream, scratch memory and device
// properties. One context a host thread; contexts of several devices may be used in turn, each op
// makes the device of its context the thread's current one.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "retnet/cuda/buffer.cuh"

namespace retnet {

/// A bump arena in device memory with scopes, like Workspace. Everything runs on one stream, so what
/// a scope gives back may be taken again before the kernels that used it have ended.
class DeviceWorkspace {
 public:
  class Scope {
   public:
    explicit Scope(DeviceWorkspace& w) : w_(w), block_(w.block_), used_(w.used_) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() {
      w_.block_ = block_;
      w_.used_ = used_;
    }

   private:
    DeviceWorkspace& w_;
    std::size_t block_;
    std::int64_t used_;
  };

  [[nodiscard]] Scope scope() { return Scope(*this); }

  /// n elements, 256-byte aligned, uninitialised, valid until the enclosing scope ends. Grows by
  /// cudaMalloc; a warm step takes what is there.
  template <class T>
  T* take(std::int64_t n) {
    const std::int64_t size = (n * static_cast<std::int64_t>(sizeof(T)) + 255) / 256 * 256;
    while (block_ < blocks_.size() && used_ + size > blocks_[block_].size()) {
      ++block_;
      used_ = 0;
    }
    if (block_ == blocks_.size()) {
      constexpr std::int64_t kLeast = std::int64_t{1} << 24;
      blocks_.emplace_back(size > kLeast ? size : kLeast);
    }
    auto* p = reinterpret_cast<T*>(blocks_[block_].data() + used_);
    used_ += size;
    return p;
  }

  /// Bytes held on the device, in use or not.
  std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (const auto& b : blocks_) sum += b.size();
    return sum;
  }

 private:
  std::vector<DeviceBuffer<std::byte>> blocks_;
  std::size_t block_ = 0;
  std::int64_t used_ = 0;
};

/// False where there is no driver or no device.
inline bool cuda_available() {
  int count = 0;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  if (!found) cudaGetLastError();
  return found;
}

class CudaContext {
 public:
  /// Makes the device current and a stream on it. Throws CudaError where there is none.
  explicit CudaContext(int device = 0) : device_(device) {
    RETNET_CUDA(cudaSetDevice(device), cuda::concat("device ", device));
    RETNET_CUDA(cudaGetDeviceProperties(&properties_, device));
    RETNET_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;
  ~CudaContext() { cudaStreamDestroy(stream_); }

  int device() const { return device_; }
  /// Launches and allocations go to the thread's current device: this makes it the context's. Asking
  /// for the stream, the workspace or a part does so too, and no op launches or takes memory without.
  void make_current() const {
    int current = -1;
    RETNET_CUDA(cudaGetDevice(&current));
    if (current != device_) RETNET_CUDA(cudaSetDevice(device_), cuda::concat("device ", device_));
  }
  cudaStream_t stream() const {
    make_current();
    return stream_;
  }
  DeviceWorkspace& workspace() {
    make_current();
    return workspace_;
  }
  void synchronize() const { RETNET_CUDA(cudaStreamSynchronize(stream_)); }

  const cudaDeviceProp& properties() const { return properties_; }
  int multiprocessors() const { return properties_.multiProcessorCount; }
  /// wgmma and TMA: compute capability 9.0 exactly, code for it is not portable.
  bool hopper() const { return properties_.major == 9 && properties_.minor == 0; }

  /// What a library needs once a context: its handle, its plans. Made when first asked for.
  template <class Part>
  Part& part() {
    make_current();
    static const char tag = 0;  // its address names the type
    for (auto& [name, held] : parts_)
      if (name == &tag) return *static_cast<Part*>(held.get());
    parts_.emplace_back(&tag, std::make_shared<Part>());
    return *static_cast<Part*>(parts_.back().second.get());
  }

  /// Tests and benches may forbid the kernels for Hopper, to run the portable ones.
  bool portable_only = false;

  /// While set, ops append the name of the path that ran.
  std::vector<const char*>* trace = nullptr;
  void note(const char* path) {
    if (trace != nullptr) trace->push_back(path);
  }

 private:
  int device_ = 0;
  cudaDeviceProp properties_{};
  cudaStream_t stream_ = nullptr;
  DeviceWorkspace workspace_;
  std::vector<std::pair<const void*, std::shared_ptr<void>>> parts_;
};

}  // namespace retnet
