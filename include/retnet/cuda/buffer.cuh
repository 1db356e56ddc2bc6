// SPDX-License-Identifier: MIT
// DeviceBuffer: device memory that only grows, so that the second step of a loop allocates nothing.
// It lies on the device that is current when it first grows, and stays there.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "retnet/cuda/error.cuh"

namespace retnet {

namespace cuda {

/// Another device is this thread's current one until the scope ends. Never throws.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    if (cudaGetDevice(&before_) == cudaSuccess && before_ == device) before_ = -1;
    if (before_ >= 0) cudaSetDevice(device);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() {
    if (before_ >= 0) cudaSetDevice(before_);
  }

 private:
  int before_ = -1;
};

}  // namespace cuda

template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::int64_t size) { resize(size); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer() { release(); }

  /// Contents are undefined afterwards. Memory is kept when the size shrinks. Growing waits for the
  /// device.
  void resize(std::int64_t size) {
    if (size > capacity_) {
      release();
      if (device_ < 0) RETNET_CUDA(cudaGetDevice(&device_));
      const cuda::OnDevice there(device_);
      RETNET_CUDA(cudaMalloc(&data_, bytes(size)), cuda::concat(bytes(size), " bytes"));
      capacity_ = size;
    }
    size_ = size;
    // Tests define RETNET_POISON_MEMORY: all bits set is a NaN in every floating-point format.
#ifdef RETNET_POISON_MEMORY
    if (size_ > 0) {
      const cuda::OnDevice there(device_);
      RETNET_CUDA(cudaMemset(data_, 0xFF, bytes(size_)));
      RETNET_CUDA(cudaStreamSynchronize(nullptr));  // other streams do not wait for it
    }
#endif
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  static std::size_t bytes(std::int64_t n) { return static_cast<std::size_t>(n) * sizeof(T); }

  /// Sizes must agree. The host's memory may be used again when the call returns.
  void upload(std::span<const T> host, cudaStream_t stream) {
    RETNET_CUDA_REQUIRE(static_cast<std::int64_t>(host.size()) == size_, "DeviceBuffer::upload",
                        host.size(), " elements, expected ", size_);
    if (size_ == 0) return;
    RETNET_CUDA(cudaMemcpyAsync(data_, host.data(), bytes(size_), cudaMemcpyHostToDevice, stream));
    RETNET_CUDA(cudaStreamSynchronize(stream));
  }
  void download(std::span<T> host, cudaStream_t stream) const {
    RETNET_CUDA_REQUIRE(static_cast<std::int64_t>(host.size()) == size_, "DeviceBuffer::download",
                        host.size(), " elements, expected ", size_);
    if (size_ == 0) return;
    RETNET_CUDA(cudaMemcpyAsync(host.data(), data_, bytes(size_), cudaMemcpyDeviceToHost, stream));
    RETNET_CUDA(cudaStreamSynchronize(stream));
  }
  std::vector<T> to_host(cudaStream_t stream = nullptr) const {
    std::vector<T> out(static_cast<std::size_t>(size_));
    download(out, stream);
    return out;
  }
  void zero(cudaStream_t stream) {
    if (size_ > 0) RETNET_CUDA(cudaMemsetAsync(data_, 0, bytes(size_), stream));
  }

  void swap(DeviceBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(device_, other.device_);
  }

 private:
  void release() {
    if (data_ != nullptr) {
      const cuda::OnDevice there(device_);
      cudaFree(data_);
    }
    data_ = nullptr;
    size_ = capacity_ = 0;
  }

  T* data_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t capacity_ = 0;
  int device_ = -1;
};

}  // namespace retnet
