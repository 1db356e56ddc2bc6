// SPDX-License-Identifier: MIT
// The execution context is an op's first argument: dispatch tag, threads and scratch at once.
//
//   Reference  the obvious loops, any scalar: the oracle that fast paths are tested against
//   Cpu        vector kernels on a thread pool; falls back to Reference where an op has no kernel
//
// Rules that keep dispatch honest: contexts and ops live in one namespace; layers call ops
// unqualified, so that argument-dependent lookup sees contexts added later; a fast overload is a
// constrained template, so that other scalars fall through to the loops.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "retnet/core/thread_pool.hpp"
#include "retnet/core/workspace.hpp"

namespace retnet::inline RETNET_ABI {

class Reference {
 public:
  Reference() = default;
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;

  Workspace& workspace() { return workspace_; }
  std::size_t peak_bytes() const { return workspace_.peak_bytes(); }

  /// While set, ops append the name of the path that ran. Not for use across threads.
  std::vector<const char*>* trace = nullptr;
  void note(const char* path) {
    if (trace != nullptr) trace->push_back(path);
  }

 private:
  Workspace workspace_;
};

class Cpu : public Reference {
 public:
  explicit Cpu(int threads = 1) : pool_(threads) {
    for (int i = 1; i < threads; ++i) scratch_.push_back(std::make_unique<Workspace>());
  }

  int threads() const { return pool_.threads(); }

  /// f(task, scratch): scratch belongs to the running thread, and what f takes ends with f.
  template <class F>
  void parallel_for(Index tasks, F&& f) {
    pool_.run(tasks, [&](Index task, int worker) {
      Workspace& scratch =
          worker == 0 ? workspace() : *scratch_[static_cast<std::size_t>(worker - 1)];
      const auto scope = scratch.scope();
      f(task, scratch);
    });
  }

  /// Most scratch bytes in use at one time, summed over threads.
  std::size_t peak_bytes() const {
    std::size_t sum = Reference::peak_bytes();
    for (const auto& s : scratch_) sum += s->peak_bytes();
    return sum;
  }
  void reset_peak() {
    workspace().reset_peak();
    for (auto& s : scratch_) s->reset_peak();
  }

 private:
  ThreadPool pool_;
  std::vector<std::unique_ptr<Workspace>> scratch_;
};

/// Rows are handed out in blocks of this size whatever the number of threads, so that sums over
/// blocks keep one order.
inline constexpr Index kRowBlock = 64;

/// f(first, last) for blocks of rows.
template <class F>
void for_row_blocks(Reference&, Index rows, F&& f) {
  for (Index r = 0; r < rows; r += kRowBlock) f(r, r + kRowBlock < rows ? r + kRowBlock : rows);
}
template <class F>
void for_row_blocks(Cpu& ctx, Index rows, F&& f) {
  ctx.parallel_for((rows + kRowBlock - 1) / kRowBlock, [&](Index task, Workspace&) {
    const Index r = task * kRowBlock;
    f(r, r + kRowBlock < rows ? r + kRowBlock : rows);
  });
}

/// f(task, scratch) for independent tasks.
template <class F>
void for_tasks(Reference& ctx, Index tasks, F&& f) {
  for (Index t = 0; t < tasks; ++t) {
    const auto scope = ctx.workspace().scope();
    f(t, ctx.workspace());
  }
}
template <class F>
void for_tasks(Cpu& ctx, Index tasks, F&& f) {
  ctx.parallel_for(tasks, std::forward<F>(f));
}

/// The context of calls that name none: one thread, one per calling thread.
inline Cpu& default_context() {
  thread_local Cpu context(1);
  return context;
}

}  // namespace retnet::inline RETNET_ABI
