// SPDX-License-Identifier: MIT
#include "retnet/train/batches.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "support/count_allocations.hpp"
#include "support/message_of.hpp"

namespace retnet {
namespace {

using Ids = std::vector<std::int32_t>;

/// 0, 1, 2, ...: a token is its own place in the text.
Ids places(std::int32_t size) {
  Ids text(static_cast<std::size_t>(size));
  std::iota(text.begin(), text.end(), 0);
  return text;
}

/// Row b holds consecutive places and its targets are the places after them.
void expect_consecutive(const Batch& batch, Index last_place) {
  ASSERT_EQ(static_cast<Index>(batch.inputs.size()), batch.batch * batch.tokens);
  ASSERT_EQ(batch.targets.size(), batch.inputs.size());
  for (Index b = 0; b < batch.batch; ++b)
    for (Index t = 0; t < batch.tokens; ++t) {
      const auto at = static_cast<std::size_t>(b * batch.tokens + t);
      const auto row = static_cast<std::size_t>(b * batch.tokens);
      EXPECT_EQ(batch.inputs[at], batch.inputs[row] + t);
      EXPECT_EQ(batch.targets[at], batch.inputs[at] + 1) << "shifted by one";
      EXPECT_GE(batch.inputs[at], 0);
      EXPECT_LE(batch.targets[at], last_place);
    }
}

TEST(RandomCrops, TargetsAreTheInputsShiftedByOne) {
  const Ids text = places(100);
  const RandomCrops<std::int32_t> crops(text, 3, 7, Seed{1});
  Batch batch;
  for (std::int64_t step = 0; step < 50; ++step) {
    crops.fill(step, batch);
    EXPECT_EQ(batch.input_view().dims(), (std::array<Index, 2>{3, 7}));
    EXPECT_EQ(batch.target_view().dims(), (std::array<Index, 2>{3, 7}));
    expect_consecutive(batch, 99);
  }
}

TEST(RandomCrops, DependOnTheSeedAndTheStepAlone) {
  const Ids text = places(1000);
  const RandomCrops<std::int32_t> crops(text, 4, 5, Seed{1}), again(text, 4, 5, Seed{1}),
      other(text, 4, 5, Seed{2});
  Batch a, b;
  crops.fill(17, a);
  crops.fill(3, b);
  EXPECT_NE(a.inputs, b.inputs);
  again.fill(17, b);
  EXPECT_EQ(a.inputs, b.inputs);
  EXPECT_EQ(a.targets, b.targets);
  other.fill(17, b);
  EXPECT_NE(a.inputs, b.inputs);
}

TEST(RandomCrops, ReachEveryPlaceAndNoneBeyondTheEnd) {
  const Ids text = places(12);
  const RandomCrops<std::int32_t> crops(text, 2, 4, Seed{3});
  std::set<std::int32_t> starts;
  Batch batch;
  for (std::int64_t step = 0; step < 200; ++step) {
    crops.fill(step, batch);
    starts.insert(batch.inputs[0]);
    starts.insert(batch.inputs[4]);
  }
  EXPECT_EQ(starts, (std::set<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(RandomCrops, AShortestTextHasOnePlace) {
  const Ids text = places(5);
  Batch batch;
  RandomCrops<std::int32_t>(text, 2, 4, Seed{4}).fill(9, batch);
  EXPECT_EQ(batch.inputs, (Ids{0, 1, 2, 3, 0, 1, 2, 3}));
  EXPECT_EQ(batch.targets, (Ids{1, 2, 3, 4, 1, 2, 3, 4}));
}

TEST(RandomCrops, BytesOfAnyTypeAreTokensFrom0To255) {
  const std::string text = "\xC3\xA9";  // e acute in UTF-8: negative numbers where char is signed
  Batch batch;
  RandomCrops<char>(text, 1, 1, Seed{}).fill(0, batch);
  EXPECT_EQ(batch.inputs, Ids{0xC3});
  EXPECT_EQ(batch.targets, Ids{0xA9});
  const std::vector<std::uint8_t> bytes{255, 128};
  RandomCrops<std::uint8_t>(bytes, 1, 1, Seed{}).fill(0, batch);
  EXPECT_EQ(batch.inputs, Ids{255});
}

TEST(TextStreams, EachRowContinuesWhereItStopped) {
  const Ids text = places(3 * 20 + 1);
  const TextStreams<std::int32_t> streams(text, 3, 6);
  EXPECT_EQ(streams.steps_per_pass(), 3);  // a share of 20 holds 3 times 6 tokens
  Batch batch;
  for (std::int64_t step = 0; step < 7; ++step) {
    streams.fill(step, batch);
    expect_consecutive(batch, 60);
    EXPECT_EQ(streams.starts_anew(step), step % 3 == 0);
    for (Index b = 0; b < 3; ++b)
      EXPECT_EQ(batch.inputs[static_cast<std::size_t>(b * 6)], b * 20 + step % 3 * 6);
  }
}

TEST(TextStreams, ReadTheWholeTextWhenItFits) {
  const Ids text = places(2 * 12 + 1);
  const TextStreams<std::int32_t> streams(text, 2, 4);
  std::multiset<std::int32_t> seen;
  Batch batch;
  for (std::int64_t step = 0; step < streams.steps_per_pass(); ++step) {
    streams.fill(step, batch);
    seen.insert(batch.targets.begin(), batch.targets.end());
  }
  const Ids targets(text.begin() + 1, text.end());
  EXPECT_EQ(seen, std::multiset<std::int32_t>(targets.begin(), targets.end())) << "each once";
}

TEST(Batches, AFilledBatchKeepsItsMemory) {
  const Ids text = places(200);
  const RandomCrops<std::int32_t> crops(text, 4, 8, Seed{1});
  const TextStreams<std::int32_t> streams(text, 2, 5);
  Batch batch;
  crops.fill(0, batch);
  EXPECT_EQ(test::count_allocations([&] {
              crops.fill(1, batch);
              streams.fill(1, batch);
              crops.fill(2, batch);
            }),
            0);
}

TEST(Batches, ErrorsSayWhatWasGivenAndWhatWasExpected) {
  const Ids text = places(10);
  using Crops = RandomCrops<std::int32_t>;
  using Streams = TextStreams<std::int32_t>;
  const auto crops = [&](Index b, Index t) {
    return test::message_of([&] { Crops(text, b, t, Seed{}); });
  };
  const auto streams = [&](Index b, Index t) {
    return test::message_of([&] { Streams(text, b, t); });
  };
  EXPECT_EQ(crops(0, 4), "[RandomCrops::RandomCrops] B = 0, T = 4, expected positive");
  EXPECT_EQ(crops(2, -1), "[RandomCrops::RandomCrops] B = 2, T = -1, expected positive");
  EXPECT_EQ(crops(2, 10),
            "[RandomCrops::RandomCrops] the text has 10 tokens, expected at least 11 for B = 2, "
            "T = 10");
  EXPECT_EQ(streams(0, 4), "[TextStreams::TextStreams] B = 0, T = 4, expected positive");
  EXPECT_EQ(streams(2, 5),
            "[TextStreams::TextStreams] the text has 10 tokens, expected at least 11 for B = 2, "
            "T = 5");
  EXPECT_NO_THROW(Streams(text, 3, 3));
}

}  // namespace
}  // namespace retnet
