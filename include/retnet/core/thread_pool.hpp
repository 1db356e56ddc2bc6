// SPDX-License-Identifier: MIT
// ThreadPool: runs numbered tasks. Which thread runs a task never changes the task's result.
// A worker spins for some tens of microseconds before it sleeps: between two ops of one token there
// is no time to wake it up (2-3 us awake against 70 us asleep, measured).
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI {

class ThreadPool {
 public:
  explicit ThreadPool(int threads) {
    RETNET_CHECK(threads >= 1, "ThreadPool::ThreadPool", "threads = ", threads,
                 ", expected at least 1");
    for (int w = 1; w < threads; ++w) workers_.emplace_back([this, w] { work(w); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& t : workers_) t.join();
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls f(task, worker) for every task in [0, tasks) and returns when all are done. The first
  /// exception is rethrown here. A call from inside a task runs its tasks in place.
  template <class F>
  void run(Index tasks, F&& f) {
    if (tasks <= 0) return;
    if (workers_.empty() || tasks == 1 || inside() != nullptr) {
      const int worker = inside() == this ? worker_index() : 0;
      for (Index i = 0; i < tasks; ++i) f(i, worker);
      return;
    }
    start(
        tasks, [](void* context, Index i, int w) { (*static_cast<F*>(context))(i, w); },
        const_cast<void*>(static_cast<const void*>(&f)));
    drain(0);
    open_.store(false);
    while (active_.load() != 0) std::this_thread::yield();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  using Call = void (*)(void*, Index, int);

  void start(Index tasks, Call call, void* context) {
    {
      const std::lock_guard lock(mutex_);
      call_ = call;
      context_ = context;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      open_.store(true);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
  }

  void drain(int worker) {
    inside() = this;
    worker_index() = worker;
    for (;;) {
      const Index i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= tasks_) break;
      try {
        call_(context_, i, worker);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
    inside() = nullptr;
  }

  void work(int worker) {
    std::uint64_t seen = 0;
    for (;;) {
      wait_for_work(seen);
      seen = generation_.load(std::memory_order_acquire);
      if (stop_) return;
      active_.fetch_add(1);
      if (open_.load()) drain(worker);
      active_.fetch_sub(1);
    }
  }

  void wait_for_work(std::uint64_t seen) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    while (std::chrono::steady_clock::now() < until) {
      for (int i = 0; i < 64; ++i)
        if (generation_.load(std::memory_order_acquire) != seen) return;
    }
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
  }

  static const ThreadPool*& inside() {
    thread_local const ThreadPool* pool = nullptr;
    return pool;
  }
  static int& worker_index() {
    thread_local int index = 0;
    return index;
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<Index> next_{0};
  // A worker counts itself in before it looks whether the region is open; run() closes the region
  // before it reads the count. So nobody works on a region that has returned, and nobody waits for
  // a worker that slept through it.
  std::atomic<bool> open_{false};
  std::atomic<int> active_{0};
  std::atomic<bool> stop_{false};
  std::exception_ptr error_;
  Call call_ = nullptr;
  void* context_ = nullptr;
  Index tasks_ = 0;
};

}  // namespace retnet::inline RETNET_ABI
