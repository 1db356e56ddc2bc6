// SPDX-License-Identifier: MIT
// Buffer: aligned memory that only grows, so that the second step of a loop allocates nothing.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI {

inline constexpr std::size_t kAlignment = 64;  // one cache line, one AVX-512 vector

namespace detail {
/// Weights and states that are streamed lie in pages of 2 MB where the system lends them: with pages
/// of 4 KB the walks through page tables take a fourth of the read bandwidth (measured, virtual
/// machine).
inline constexpr std::size_t kHugePage = std::size_t{1} << 21;
inline std::align_val_t alignment_for(std::size_t bytes) {
  return std::align_val_t{bytes >= 2 * kHugePage ? kHugePage : kAlignment};
}
inline void* allocate(std::size_t bytes) {
  void* data = ::operator new(bytes, alignment_for(bytes));
#ifdef MADV_HUGEPAGE
  if (bytes >= 2 * kHugePage) madvise(data, bytes, MADV_HUGEPAGE);  // advice: may fail
#endif
  return data;
}

/// Tests define RETNET_POISON_MEMORY: whoever reads memory before writing it then reads NaN.
template <class T>
void poison([[maybe_unused]] T* data, [[maybe_unused]] Index size) {
#ifdef RETNET_POISON_MEMORY
  if constexpr (std::is_floating_point_v<T>) {
    std::fill_n(data, size, std::numeric_limits<T>::quiet_NaN());
  } else if (size > 0) {
    std::memset(static_cast<void*>(data), 0xFF, static_cast<std::size_t>(size) * sizeof(T));
  }
#endif
}
}  // namespace detail

template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(Index size) { resize(size); }
  Buffer(const Buffer& other) { *this = other; }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(const Buffer& other) {
    if (this != &other) {
      resize(other.size_);
      if (size_ > 0) std::memcpy(static_cast<void*>(data_), other.data_, bytes(size_));
    }
    return *this;
  }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { release(); }

  /// Contents are undefined afterwards. Memory is kept when the size shrinks.
  void resize(Index size) {
    if (size > capacity_) {
      release();
      data_ = static_cast<T*>(detail::allocate(bytes(size)));
      capacity_ = size;
    }
    size_ = size;
    detail::poison(data_, size_);
  }
  void fill(T value) { std::fill_n(data_, size_, value); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](Index i) { return data_[i]; }
  const T& operator[](Index i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  std::span<T> span() { return {data_, static_cast<std::size_t>(size_)}; }
  std::span<const T> span() const { return {data_, static_cast<std::size_t>(size_)}; }

  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

 private:
  static std::size_t bytes(Index size) { return static_cast<std::size_t>(size) * sizeof(T); }
  void release() {
    if (data_ != nullptr) ::operator delete(data_, detail::alignment_for(bytes(capacity_)));
    data_ = nullptr;
    size_ = capacity_ = 0;
  }

  T* data_ = nullptr;
  Index size_ = 0;
  Index capacity_ = 0;
};

}  // namespace retnet::inline RETNET_ABI
