// SPDX-License-Identifier: MIT
#include "retnet/train/schedule.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "support/message_of.hpp"

namespace retnet {
namespace {

TEST(CosineSchedule, WarmsUpLinearly) {
  const CosineSchedule s{.peak = 2.0, .warmup = 0.2, .floor = 0.1};
  EXPECT_DOUBLE_EQ(s.at(0.1), 1.0);
  EXPECT_DOUBLE_EQ(s.at(0.05), 0.5);
  EXPECT_DOUBLE_EQ(s.at(0.0), 2e-3) << "the first step is not lost";
  EXPECT_DOUBLE_EQ(s.at(0.2), 2.0);
}

TEST(CosineSchedule, FallsAsHalfACosineToTheFloor) {
  const CosineSchedule s{.peak = 2.0, .warmup = 0.2, .floor = 0.1};
  EXPECT_NEAR(s.at(0.6), 1.1, 1e-15) << "half way: the mean of peak and floor";
  EXPECT_NEAR(s.at(0.4), 0.2 + 1.8 * (2.0 + std::sqrt(2.0)) / 4.0, 1e-15);
  EXPECT_NEAR(s.at(1.0), 0.2, 1e-15);
  double last = s.at(0.2);
  for (int i = 21; i <= 100; ++i) {
    const double now = s.at(i / 100.0);
    EXPECT_LT(now, last) << i;
    last = now;
  }
}

TEST(CosineSchedule, HasNoJumpAtTheEndOfTheWarmup) {
  const CosineSchedule s{.peak = 1.0, .warmup = 0.3};
  EXPECT_NEAR(s.at(0.3 - 1e-9), s.at(0.3 + 1e-9), 1e-8);
}

TEST(CosineSchedule, WorksWithoutWarmupAndStaysInsideTheRun) {
  const CosineSchedule s{.peak = 3.0, .warmup = 0.0, .floor = 0.5};
  EXPECT_DOUBLE_EQ(s.at(0.0), 3.0);
  EXPECT_DOUBLE_EQ(s.at(-1.0), 3.0);
  EXPECT_NEAR(s.at(7.0), 1.5, 1e-15);
}

TEST(CosineSchedule, ErrorsNameTheFieldAndTheValue) {
  const auto message = [](const CosineSchedule& s) {
    return test::message_of([&] { s.validate(); });
  };
  EXPECT_EQ(message({.peak = -1.0}), "[CosineSchedule] peak = -1, expected >= 0");
  EXPECT_EQ(message({.peak = std::numeric_limits<double>::infinity()}),
            "[CosineSchedule] peak = inf, expected >= 0");
  EXPECT_EQ(message({.warmup = 1.0}), "[CosineSchedule] warmup = 1, expected in [0, 1)");
  EXPECT_EQ(message({.floor = 1.5}), "[CosineSchedule] floor = 1.5, expected in [0, 1]");
  EXPECT_NO_THROW(CosineSchedule().validate());
}

}  // namespace
}  // namespace retnet
