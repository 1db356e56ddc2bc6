// SPDX-License-Identifier: MIT
#include "retnet/core/thread_pool.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

namespace retnet {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 5));

TEST_P(ThreadPoolTest, RunsEveryTaskOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (const Index tasks : {0, 1, 2, 3, 100, 1000}) {
    std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
    std::atomic<bool> worker_in_range{true};
    pool.run(tasks, [&](Index task, int worker) {
      ++runs[static_cast<std::size_t>(task)];
      if (worker < 0 || worker >= GetParam()) worker_in_range = false;
    });
    for (const auto& r : runs) EXPECT_EQ(r.load(), 1);
    EXPECT_TRUE(worker_in_range.load());
  }
}

TEST_P(ThreadPoolTest, AWorkerNumberBelongsToOneThreadAtATime) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<int>> busy(static_cast<std::size_t>(GetParam()));
  std::atomic<bool> shared{false};
  pool.run(2000, [&](Index, int worker) {
    auto& mine = busy[static_cast<std::size_t>(worker)];
    if (mine.fetch_add(1) != 0) shared = true;
    mine.fetch_sub(1);
  });
  EXPECT_FALSE(shared.load());
}

TEST_P(ThreadPoolTest, RethrowsAndStaysUsable) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 20; ++round) {
    try {
      pool.run(64, [](Index task, int) {
        if (task == 17) throw std::runtime_error("task 17");
      });
      FAIL() << "expected an exception";
    } catch (const std::runtime_error& e) {
      EXPECT_EQ(std::string(e.what()), "task 17");
    }
    std::atomic<int> runs{0};
    pool.run(64, [&](Index, int) { ++runs; });
    EXPECT_EQ(runs.load(), 64);
  }
}

TEST_P(ThreadPoolTest, ANestedRunRunsInPlace) {
  ThreadPool pool(GetParam());
  std::atomic<int> runs{0};
  std::atomic<bool> same_worker{true};
  pool.run(10, [&](Index, int outer) {
    pool.run(10, [&](Index, int inner) {
      ++runs;
      if (inner != outer) same_worker = false;
    });
  });
  EXPECT_EQ(runs.load(), 100);
  EXPECT_TRUE(same_worker.load());
}

TEST_P(ThreadPoolTest, ManySmallRegionsFollowEachOther) {
  ThreadPool pool(GetParam());
  std::atomic<Index> sum{0};
  for (Index round = 0; round < 5000; ++round)
    pool.run(3, [&](Index task, int) { sum += task + round; });
  EXPECT_EQ(sum.load(), 3 * (5000 * 4999 / 2) + 5000 * 3);
}

TEST_P(ThreadPoolTest, WakesUpAfterALongPause) {
  ThreadPool pool(GetParam());
  std::atomic<int> runs{0};
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.run(8, [&](Index, int) { ++runs; });
  }
  EXPECT_EQ(runs.load(), 24);
}

TEST(ThreadPool, SeesWritesOfItsTasks) {
  ThreadPool pool(2);
  std::vector<int> data(1000, 0);
  for (int round = 1; round <= 50; ++round) {
    pool.run(1000, [&](Index task, int) { ++data[static_cast<std::size_t>(task)]; });
    for (const int v : data) ASSERT_EQ(v, round);
  }
}

TEST(ThreadPool, TwoPoolsMayBeNested) {
  ThreadPool outer(2);
  std::atomic<int> runs{0};
  outer.run(4, [&](Index, int) {
    ThreadPool inner(2);
    inner.run(4, [&](Index, int) { ++runs; });
  });
  EXPECT_EQ(runs.load(), 16);
}

TEST(ThreadPool, NeedsAThread) {
  EXPECT_THROW(ThreadPool(0), std::invalid_argument);
  EXPECT_THROW(ThreadPool(-1), std::invalid_argument);
}

}  // namespace
}  // namespace retnet
