// SPDX-License-Identifier: MIT
#include "retnet/core/sequences.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "support/message_of.hpp"

namespace retnet {
namespace {

using test::message_of;

void expect_segments(const Sequences& s, const std::vector<Segment>& expected) {
  ASSERT_EQ(s.count(), static_cast<Index>(expected.size()));
  for (Index i = 0; i < s.count(); ++i) {
    EXPECT_EQ(s[i].first_row, expected[static_cast<std::size_t>(i)].first_row);
    EXPECT_EQ(s[i].length, expected[static_cast<std::size_t>(i)].length);
  }
}

TEST(Sequences, Dense) {
  const auto s = Sequences::dense(3, 5);
  expect_segments(s, {{0, 5}, {5, 5}, {10, 5}});
  EXPECT_EQ(s.rows(), 15);
  EXPECT_EQ(s.longest(), 5);
  EXPECT_FALSE(s.single_token());
  EXPECT_FALSE(s.padded());
  EXPECT_TRUE(Sequences::dense(4, 1).single_token());
}

TEST(Sequences, Packed) {
  const std::array<std::int32_t, 4> bounds{0, 2, 3, 9};
  const auto s = Sequences::packed<std::int32_t>(bounds);
  expect_segments(s, {{0, 2}, {2, 1}, {3, 6}});
  EXPECT_EQ(s.rows(), 9);
  EXPECT_EQ(s.longest(), 6);
  EXPECT_FALSE(s.padded());
  const std::array<std::int64_t, 2> one{0, 1};
  EXPECT_FALSE(Sequences::packed<std::int64_t>(one).single_token());
}

TEST(Sequences, LeftPadded) {
  const std::array<Index, 3> padding{0, 4, 2};
  const auto s = Sequences::left_padded(3, 5, padding);
  expect_segments(s, {{0, 5}, {9, 1}, {12, 3}});
  EXPECT_EQ(s.rows(), 15);
  EXPECT_EQ(s.longest(), 5);
  EXPECT_TRUE(s.padded());
  const std::array<Index, 2> none{0, 0};
  EXPECT_FALSE(Sequences::left_padded(2, 5, none).padded());
}

TEST(Sequences, ErrorsSayWhatWasGivenAndWhatWasExpected) {
  EXPECT_EQ(message_of([] { Sequences::dense(0, 5); }),
            "[Sequences::dense] B = 0, T = 5, expected both positive");
  EXPECT_EQ(message_of([] { Sequences::packed(std::span<const int>{}); }),
            "[Sequences::packed] cu_seqlens has 0 entries, expected at least 2, the first one 0");
  const std::array<int, 2> late{1, 2};
  EXPECT_THROW(Sequences::packed<int>(late), std::invalid_argument);
  const std::array<int, 3> empty_sequence{0, 2, 2};
  EXPECT_EQ(message_of([&] { Sequences::packed<int>(empty_sequence); }),
            "[Sequences::packed] cu_seqlens goes from 2 to 2, expected increasing entries");
  const std::array<Index, 2> too_much{0, 5};
  EXPECT_EQ(message_of([&] { Sequences::left_padded(2, 5, too_much); }),
            "[Sequences::left_padded] padding of sequence 1 is 5, expected 0 <= padding < T = 5");
  EXPECT_EQ(message_of([&] { Sequences::left_padded(3, 5, too_much); }),
            "[Sequences::left_padded] padding has 2 entries, expected one for each of 3 sequences");
  const std::array<Index, 2> negative{-1, 0};
  EXPECT_THROW(Sequences::left_padded(2, 5, negative), std::invalid_argument);
}

}  // namespace
}  // namespace retnet
