#include "common/interrupt.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <stdexcept>

namespace examples {
namespace {

int caught = 0;
void count_signal(int) { ++caught; }

TEST(InterruptGuard, TurnsTheFirstSignalIntoARequest) {
  for (int number : {SIGINT, SIGTERM}) {
    InterruptGuard guard;
    EXPECT_FALSE(guard.requested());
    EXPECT_EQ(guard.signal(), 0);
    raise(number);
    EXPECT_TRUE(guard.requested());
    EXPECT_EQ(guard.signal(), number);
  }
}

TEST(InterruptGuard, RestoresThePreviousHandler) {
  struct sigaction mine = {};
  struct sigaction before = {};
  mine.sa_handler = count_signal;
  sigaction(SIGINT, &mine, &before);
  {
    const InterruptGuard guard;
    raise(SIGINT);
    EXPECT_EQ(caught, 0);
  }
  raise(SIGINT);
  EXPECT_EQ(caught, 1);
  sigaction(SIGINT, &before, nullptr);
}

TEST(InterruptGuard, LeavesIgnoredSignalsIgnored) {
  const auto before = signal(SIGINT, SIG_IGN);
  {
    const InterruptGuard guard;
    raise(SIGINT);
    EXPECT_FALSE(guard.requested());
  }
  signal(SIGINT, before);
}

TEST(InterruptGuard, IsOneAtATime) {
  const InterruptGuard guard;
  EXPECT_THROW(InterruptGuard(), std::runtime_error);
}

TEST(InterruptGuardDeathTest, SecondSignalEndsTheProcess) {
  const auto twice = [](int first, int second) {
    const InterruptGuard guard;
    raise(first);
    raise(second);
  };
  EXPECT_EXIT(twice(SIGINT, SIGINT), testing::KilledBySignal(SIGINT), "");
  EXPECT_EXIT(twice(SIGINT, SIGTERM), testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace examples
