// SPDX-License-Identifier: MIT
#include "retnet/core/context.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace retnet {
namespace {

template <class Context>
void expect_row_blocks(Context& ctx) {
  for (const Index rows : {1, 63, 64, 65, 200}) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(rows));
    std::atomic<bool> on_grid{true};
    for_row_blocks(ctx, rows, [&](Index first, Index last) {
      if (first % kRowBlock != 0 || last != std::min(rows, first + kRowBlock)) on_grid = false;
      for (Index r = first; r < last; ++r) ++seen[static_cast<std::size_t>(r)];
    });
    EXPECT_TRUE(on_grid.load());
    for (const auto& s : seen) EXPECT_EQ(s.load(), 1);
  }
}

TEST(Context, RowBlocksAreTheSameForEveryNumberOfThreads) {
  Reference reference;
  Cpu one(1), two(2);
  expect_row_blocks(reference);
  expect_row_blocks(one);
  expect_row_blocks(two);
}

TEST(Context, EachThreadHasItsOwnScratch) {
  Cpu ctx(3);
  EXPECT_EQ(ctx.threads(), 3);
  std::atomic<bool> clean{true};
  ctx.parallel_for(300, [&](Index task, Workspace& scratch) {
    auto* mine = scratch.take<Index>(64);
    std::fill_n(mine, 64, task);
    std::this_thread::yield();
    if (std::count(mine, mine + 64, task) != 64) clean = false;
  });
  EXPECT_TRUE(clean.load());
  EXPECT_GE(ctx.peak_bytes(), 64 * sizeof(Index));
  ctx.reset_peak();
  EXPECT_EQ(ctx.peak_bytes(), 0U);
}

TEST(Context, TasksDoNotDisturbTheCallersScratch) {
  Cpu ctx(2);
  const auto scope = ctx.workspace().scope();
  int* outer = ctx.workspace().take<int>(16);
  std::fill_n(outer, 16, 7);
  for_tasks(ctx, 20,
            [](Index, Workspace& scratch) { std::fill_n(scratch.take<int>(100), 100, 1); });
  EXPECT_EQ(std::count(outer, outer + 16, 7), 16);
}

TEST(Context, TracesOnRequest) {
  Cpu ctx;
  ctx.note("not recorded");
  std::vector<const char*> trace;
  ctx.trace = &trace;
  ctx.note("first");
  ctx.note("second");
  ASSERT_EQ(trace.size(), 2U);
  EXPECT_EQ(std::string(trace[0]), "first");
  EXPECT_EQ(std::string(trace[1]), "second");
}

TEST(Context, TheDefaultBelongsToTheCallingThread) {
  Cpu* here = &default_context();
  Cpu* there = nullptr;
  std::thread([&] { there = &default_context(); }).join();
  EXPECT_EQ(here, &default_context());
  EXPECT_NE(here, there);
}

}  // namespace
}  // namespace retnet
