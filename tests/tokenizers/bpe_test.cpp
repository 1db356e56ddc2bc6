// SPDX-License-Identifier: MIT
// The merger against one that looks for the best pair anew each time.
#include "retnet/tokenizers/detail/bpe.hpp"

#include <map>
#include <random>
#include <utility>

#include "tokenizers/support.hpp"

namespace retnet::detail {
namespace {

using tokenizer_test::Ids;
using Merges = std::map<std::pair<std::int32_t, std::int32_t>, BpeMerge>;

Ids merged(const Ids& word, const Merges& merges) {
  std::vector<BpePart> parts;
  for (const auto id : word) parts.push_back({id, static_cast<std::uint32_t>(parts.size()), 1});
  Ids ids;
  BpeMerger().merge(
      parts,
      [&](const BpePart& a, const BpePart& b) {
        const auto it = merges.find({a.id, b.id});
        return it == merges.end() ? std::nullopt : std::optional(it->second);
      },
      ids);
  return ids;
}

Ids plainly_merged(Ids word, const Merges& merges) {
  while (true) {
    const BpeMerge* best = nullptr;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < word.size(); ++i) {
      const auto it = merges.find({word[i], word[i + 1]});
      if (it != merges.end() && (best == nullptr || it->second.rank < best->rank)) {
        best = &it->second;
        at = i;
      }
    }
    if (best == nullptr) return word;
    word[at] = best->id;
    word.erase(word.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, MergesTheLowestRankFirstAndTheLeftmostOfEquals) {
  const Merges merges{{{0, 0}, {1, 2}}, {{2, 2}, {0, 3}}, {{0, 1}, {2, 4}}};
  EXPECT_EQ(merged({}, merges), Ids{});
  EXPECT_EQ(merged({0}, merges), Ids{0});
  EXPECT_EQ(merged({0, 0, 0}, merges), (Ids{2, 0}));
  EXPECT_EQ(merged({0, 0, 0, 0}, merges), Ids{3});
  EXPECT_EQ(merged({0, 0, 0, 1}, merges), (Ids{2, 4}));
}

TEST(Bpe, AgreesWithThePlainWay) {
  std::mt19937 random(1);
  const auto below = [&](std::size_t n) { return static_cast<std::int32_t>(random() % n); };
  for (int round = 0; round < 300; ++round) {
    // As a vocabulary grows: each merge makes a new token of two old ones.
    Merges merges;
    std::int32_t tokens = 1 + below(4);
    const auto letters = static_cast<std::size_t>(tokens);
    for (std::int32_t rank = 0; rank < 40; ++rank) {
      const auto count = static_cast<std::size_t>(tokens);
      if (merges.emplace(std::pair{below(count), below(count)}, BpeMerge{rank, tokens}).second)
        ++tokens;
    }
    Ids word(static_cast<std::size_t>(below(60)));
    for (auto& id : word) id = below(letters);
    EXPECT_EQ(merged(word, merges), plainly_merged(word, merges));
  }
}

}  // namespace
}  // namespace retnet::detail
