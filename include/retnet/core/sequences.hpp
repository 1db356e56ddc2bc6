// SPDX-License-Identifier: MIT
// Sequences: which rows of the matrix [B*T,C] belong to which sequence. A dense batch, sequences
// packed one after the other (cu_seqlens) and a padded batch are the same thing to every op.
#pragma once

#include <span>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI {

/// Rows [first_row, first_row + length) are consecutive tokens of one sequence.
struct Segment {
  Index first_row = 0;
  Index length = 0;
};

class Sequences {
 public:
  /// B sequences of T tokens each. Allocates nothing.
  static Sequences dense(Index batch, Index tokens) {
    RETNET_CHECK(batch > 0 && tokens > 0, "Sequences::dense", "B = ", batch, ", T = ", tokens,
                 ", expected both positive");
    Sequences s;
    s.count_ = batch;
    s.tokens_ = tokens;
    s.rows_ = batch * tokens;
    return s;
  }

  /// Sequence i holds rows [cu_seqlens[i], cu_seqlens[i+1]); the last entry is the row count.
  template <class I>
  static Sequences packed(std::span<const I> cu_seqlens) {
    constexpr const char* kWhere = "Sequences::packed";
    RETNET_CHECK(cu_seqlens.size() >= 2 && cu_seqlens[0] == 0, kWhere, "cu_seqlens has ",
                 cu_seqlens.size(), " entries, expected at least 2, the first one 0");
    std::vector<Segment> segments;
    for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
      const auto begin = static_cast<Index>(cu_seqlens[i]);
      const auto end = static_cast<Index>(cu_seqlens[i + 1]);
      RETNET_CHECK(begin < end, kWhere, "cu_seqlens goes from ", begin, " to ", end,
                   ", expected increasing entries");
      segments.push_back({begin, end - begin});
    }
    const auto rows = static_cast<Index>(cu_seqlens.back());
    return Sequences(std::move(segments), rows);
  }

  /// padding[b] rows at the start of sequence b hold no token.
  static Sequences left_padded(Index batch, Index tokens, std::span<const Index> padding) {
    constexpr const char* kWhere = "Sequences::left_padded";
    RETNET_CHECK(static_cast<Index>(padding.size()) == batch, kWhere, "padding has ",
                 padding.size(), " entries, expected one for each of ", batch, " sequences");
    std::vector<Segment> segments;
    for (Index b = 0; b < batch; ++b) {
      const Index pad = padding[static_cast<std::size_t>(b)];
      RETNET_CHECK(pad >= 0 && pad < tokens, kWhere, "padding of sequence ", b, " is ", pad,
                   ", expected 0 <= padding < T = ", tokens);
      segments.push_back({b * tokens + pad, tokens - pad});
    }
    return Sequences(std::move(segments), batch * tokens);
  }

  Index count() const { return count_; }
  Index rows() const { return rows_; }
  Segment operator[](Index i) const {
    if (segments_.empty()) return {i * tokens_, tokens_};
    return segments_[static_cast<std::size_t>(i)];
  }
  Index longest() const {
    if (segments_.empty()) return tokens_;
    Index n = 0;
    for (const auto& s : segments_) n = s.length > n ? s.length : n;
    return n;
  }
  /// True for a dense batch of one token each: the shape of a generation step.
  bool single_token() const { return segments_.empty() && tokens_ == 1; }
  /// True when some rows belong to no sequence.
  bool padded() const {
    Index covered = 0;
    for (const auto& s : segments_) covered += s.length;
    return !segments_.empty() && covered < rows_;
  }

 private:
  Sequences() = default;
  Sequences(std::vector<Segment> segments, Index rows)
      : segments_(std::move(segments)), count_(static_cast<Index>(segments_.size())), rows_(rows) {}

  std::vector<Segment> segments_;  // empty: dense
  Index count_ = 0;
  Index tokens_ = 0;
  Index rows_ = 0;
};

}  // namespace retnet::inline RETNET_ABI
