// SPDX-License-Identifier: MIT
// Byte pair encoding: of all neighbours that may merge, those of the lowest rank first, and of
// equal ones the leftmost, until none may.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <queue>
#include <span>
#include <vector>

#include "retnet/version.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// A part of a word. `begin` and `size` are the caller's; a merged part covers both.
struct BpePart {
  std::int32_t id;
  std::uint32_t begin;
  std::uint32_t size;
};

struct BpeMerge {
  std::int32_t rank;
  std::int32_t id;  // of what becomes of the two
};

/// Merges parts of one word after another; not for use across threads. O(n log n) in the length of
/// a word: neighbours are linked, and the candidates wait in a heap until they come up, where
/// those that no longer exist are passed over.
class BpeMerger {
 public:
  /// `find(left, right)` tells the merge of two neighbours, as std::optional<BpeMerge>. Appends the
  /// ids of what remains.
  template <class Find>
  void merge(std::span<const BpePart> word, const Find& find, std::vector<std::int32_t>& ids) {
    nodes_.clear();
    for (const BpePart& part : word) {
      const auto i = static_cast<std::uint32_t>(nodes_.size());
      nodes_.push_back({part, i - 1, i + 1});
    }
    if (nodes_.empty()) return;
    nodes_.back().next = kNone;
    for (std::uint32_t i = 0; i + 1 < nodes_.size(); ++i) offer(i, find);
    while (!heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      Node& left = nodes_[best.left];
      if (left.part.size != best.left_size || left.next != best.right) continue;
      Node& right = nodes_[best.right];
      if (right.part.size != best.right_size) continue;
      left.part = {best.id, left.part.begin, left.part.size + right.part.size};
      right.part.size = 0;
      left.next = right.next;
      if (left.next != kNone) nodes_[left.next].previous = best.left;
      if (left.previous != kNone) offer(left.previous, find);
      if (left.next != kNone) offer(best.left, find);
    }
    for (std::uint32_t i = 0; i != kNone; i = nodes_[i].next) ids.push_back(nodes_[i].part.id);
  }

 private:
  static constexpr std::uint32_t kNone = (std::numeric_limits<std::uint32_t>::max)();

  struct Node {
    BpePart part;
    std::uint32_t previous, next;
  };
  struct Candidate {
    std::int32_t rank;
    std::uint32_t left, right;
    std::uint32_t left_size, right_size;  // parts only grow: another size is another part
    std::int32_t id;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  template <class Find>
  void offer(std::uint32_t left, const Find& find) {
    const std::uint32_t right = nodes_[left].next;
    const BpePart &a = nodes_[left].part, &b = nodes_[right].part;
    if (const std::optional<BpeMerge> merge = find(a, b))
      heap_.push({merge->rank, left, right, a.size, b.size, merge->id});
  }

  std::vector<Node> nodes_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap_;
};

}  // namespace retnet::inline RETNET_ABI::detail
