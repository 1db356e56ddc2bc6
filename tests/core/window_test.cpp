// SPDX-License-Identifier: MIT
#include "retnet/core/window.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace retnet {
namespace {

static_assert(std::is_convertible_v<Window<float>, Window<const float>>);
static_assert(!std::is_convertible_v<Window<const float>, Window<float>>);
static_assert(!std::is_convertible_v<Window<float>, Window<const double>>);

TEST(Window, AHeadIsAWindow) {
  std::vector<int> memory(3 * 12);
  std::iota(memory.begin(), memory.end(), 0);
  const Window<int> all(memory.data(), 3, 12);
  const Window<int> head = all.head(2, 4);
  EXPECT_EQ(head.rows, 3);
  EXPECT_EQ(head.cols, 4);
  EXPECT_EQ(head.stride, 12);
  for (Index r = 0; r < 3; ++r)
    for (Index c = 0; c < 4; ++c) EXPECT_EQ(head(r, c), r * 12 + 8 + c);
  const Window<const int> part = head.row_block(1, 2).block(1, 1, 1, 2);
  EXPECT_EQ(part(0, 0), 2 * 12 + 9);
  EXPECT_EQ(part.row(0)[1], 2 * 12 + 10);
}

TEST(Window, RowsOfAViewAreItsTokens) {
  std::vector<double> memory(24);
  const auto rows = rows_of(View<double, 3>(memory.data(), {2, 3, 4}));
  EXPECT_EQ(rows.data, memory.data());
  EXPECT_EQ(rows.rows, 6);
  EXPECT_EQ(rows.cols, 4);
  EXPECT_EQ(rows.stride, 4);
  const auto matrix = rows_of(ConstView<double, 2>(memory.data(), {8, 3}));
  EXPECT_EQ(matrix.rows, 8);
  EXPECT_EQ(matrix.cols, 3);
}

TEST(Window, IsEmptyWithoutMemory) {
  EXPECT_TRUE(Window<float>().empty());
  float x = 0.0F;
  EXPECT_FALSE(Window<float>(&x, 1, 1).empty());
}

}  // namespace
}  // namespace retnet
