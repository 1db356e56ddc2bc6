// SPDX-License-Identifier: MIT
// Where the threads of a bench run. Unpinned threads share a core for a tick now and then, and a
// region of two microseconds takes ten milliseconds; so every thread stays on a processor of its
// own, the main thread on the first of those that the process may use (taskset chooses them).
#pragma once

#ifdef __linux__
#include <dirent.h>
#include <sched.h>
#endif

#include <atomic>
#include <chrono>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "retnet/core/context.hpp"

namespace bench {

using retnet::Index;

/// The processors that this process may use, as they were when it started.
inline const std::vector<int>& processors() {
  static const std::vector<int> all = [] {
    std::vector<int> out;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
      for (int i = 0; i < CPU_SETSIZE; ++i)
        if (CPU_ISSET(i, &set)) out.push_back(i);
#endif
    return out;
  }();
  return all;
}

/// The calling thread may run on these only. Without effect where the system has no such call.
inline void allow([[maybe_unused]] const std::vector<int>& which) {
#ifdef __linux__
  if (which.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int i : which) CPU_SET(i, &set);
  sched_setaffinity(0, sizeof set, &set);
#endif
}

inline void pin(int slot) {
  const auto& all = processors();
  if (!all.empty()) allow({all[static_cast<std::size_t>(slot) % all.size()]});
}

/// While it lives the main thread may run anywhere: threads started meanwhile inherit that.
class Unpinned {
 public:
  Unpinned() { allow(processors()); }
  Unpinned(const Unpinned&) = delete;
  Unpinned& operator=(const Unpinned&) = delete;
  ~Unpinned() { pin(0); }
};

/// One context for each number of threads, every worker pinned. Only for the main thread.
inline retnet::Cpu& context(int threads) {
  static std::map<int, std::unique_ptr<retnet::Cpu>> contexts;
  auto& ctx = contexts[threads];
  if (ctx) return *ctx;
  const Unpinned guard;
  ctx = std::make_unique<retnet::Cpu>(threads);
  const auto main_thread = std::this_thread::get_id();
  std::atomic<int> arrived{0}, workers{0};
  // Nobody leaves before all are there, so each thread has exactly one of the tasks.
  ctx->parallel_for(threads, [&](Index, retnet::Workspace&) {
    if (std::this_thread::get_id() != main_thread) pin(++workers);
    ++arrived;
    while (arrived.load() < threads) std::this_thread::yield();
  });
  return *ctx;
}

/// Nanoseconds that threads of this process were ready to run and did not, since they started.
inline double waited_ns() {
  double sum = 0.0;
#ifdef __linux__
  DIR* tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return 0.0;
  while (const dirent* entry = readdir(tasks)) {
    std::ifstream file("/proc/self/task/" + std::string(entry->d_name) + "/schedstat");
    double ran = 0.0, waited = 0.0;
    if (file >> ran >> waited) sum += waited;
  }
  closedir(tasks);
#endif
  return sum;
}

inline double seconds_of(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace bench
