// SPDX-License-Identifier: MIT
#include "retnet/core/workspace.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "support/count_allocations.hpp"

namespace retnet {
namespace {

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % kAlignment == 0; }

TEST(Workspace, GivesAlignedPoisonedMemoryThatDoesNotOverlap) {
  Workspace w;
  const auto scope = w.scope();
  float* a = w.take<float>(3);
  double* b = w.take<double>(5);
  char* c = w.take<char>(1);
  EXPECT_TRUE(aligned(a) && aligned(b) && aligned(c));
  EXPECT_GE(reinterpret_cast<char*>(b), reinterpret_cast<char*>(a + 3));
  EXPECT_GE(c, reinterpret_cast<char*>(b + 5));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(a[i]));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(std::isnan(b[i]));
}

TEST(Workspace, ScopesGiveBackInReverseOrder) {
  Workspace w;
  const auto outer = w.scope();
  float* kept = w.take<float>(8);
  kept[0] = 4.0F;
  float* first = nullptr;
  {
    const auto inner = w.scope();
    first = w.take<float>(100);
  }
  float* second = w.take<float>(100);
  EXPECT_EQ(first, second);
  EXPECT_EQ(kept[0], 4.0F);
}

TEST(Workspace, GrowsWithoutMovingWhatWasTaken) {
  Workspace w;
  const auto scope = w.scope();
  constexpr Index kLarge = Index{1} << 16;
  int* small = w.take<int>(10);
  small[9] = 42;
  for (int i = 0; i < 5; ++i) {
    const auto inner = w.scope();
    int* large = w.take<int>(kLarge << i);
    std::fill_n(large, kLarge << i, i);
  }
  EXPECT_EQ(small[9], 42);
}

// Memory in several blocks at every depth of scopes.
void use(Workspace& w) {
  const auto outer = w.scope();
  w.take<double>(30'000);
  for (int i = 1; i < 4; ++i) {
    const auto inner = w.scope();
    w.take<float>(20'000 * i);
    const auto innermost = w.scope();
    w.take<char>(100'000);
  }
  w.take<double>(7);
}

TEST(Workspace, TheSecondRoundAllocatesNothing) {
  Workspace w;
  EXPECT_GT(test::count_allocations([&] { use(w); }), 0);
  EXPECT_EQ(test::count_allocations([&] { use(w); }), 0);
  EXPECT_EQ(test::count_allocations([&] { use(w); }), 0);
}

TEST(Workspace, PeakIsTheMostInUseAtOneTime) {
  Workspace w;
  use(w);  // afterwards everything lies in one block
  w.reset_peak();
  use(w);
  const std::size_t outer = 30'000 * sizeof(double), inner = 60'000 * sizeof(float) + 100'000;
  EXPECT_GE(w.peak_bytes(), outer + inner);
  EXPECT_LE(w.peak_bytes(), outer + inner + 4 * kAlignment);
  w.reset_peak();
  EXPECT_EQ(w.peak_bytes(), 0U);
}

TEST(Workspace, NothingIsAValidAmount) {
  Workspace w;
  const auto scope = w.scope();
  w.take<float>(0);
  float* a = w.take<float>(1);
  EXPECT_TRUE(aligned(a));
}

}  // namespace
}  // namespace retnet
