// SPDX-License-Identifier: MIT
// Counts what operator new hands out, to show that a second call allocates nothing. It replaces the
// global operators: include it in exactly one file of a test program.
#pragma once

#include <atomic>
#include <cstdlib>
#include <new>

namespace retnet::test {

inline std::atomic<long> allocations{0};

/// The number of allocations, on all threads, while f runs.
template <class F>
long count_allocations(F&& f) {
  const long before = allocations.load();
  f();
  return allocations.load() - before;
}

inline void* allocate(std::size_t size, std::size_t alignment) {
  ++allocations;
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  if (void* p = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded)) return p;
  throw std::bad_alloc();
}

}  // namespace retnet::test

[[gnu::weak]] void* operator new(std::size_t size) {
  return retnet::test::allocate(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
[[gnu::weak]] void* operator new(std::size_t size, std::align_val_t alignment) {
  return retnet::test::allocate(size, static_cast<std::size_t>(alignment));
}
[[gnu::weak]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::weak]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::weak]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::weak]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}
