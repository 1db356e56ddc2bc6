// SPDX-License-Identifier: MIT
// RetentionState: everything a retention layer remembers of N sequences, as a value the caller
// owns. Copy it: snapshot. Copy it back: rollback. Select: beam search, or a batch put together
// anew.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "retnet/core/buffer.hpp"
#include "retnet/core/check.hpp"

namespace retnet::inline RETNET_ABI {

template <class S>
class RetentionState {
 public:
  RetentionState() = default;

  /// N sequences at position 0. `key_sum` adds the [N,H,Dk] sums of Normalization::paper_score.
  RetentionState(Index sequences, Index heads, Index key_dim, Index value_dim, bool key_sum)
      : heads_(heads),
        key_dim_(key_dim),
        value_dim_(value_dim),
        key_sum_(key_sum),
        positions_(static_cast<std::size_t>(sequences), 0) {
    RETNET_CHECK(sequences > 0, "RetentionState::RetentionState", "sequences = ", sequences,
                 ", expected at least 1");
    data_.resize(sequences * stride());
    reset();
  }

  Index sequences() const { return static_cast<Index>(positions_.size()); }
  Index heads() const { return heads_; }
  Index key_dim() const { return key_dim_; }
  Index value_dim() const { return value_dim_; }
  bool has_key_sum() const { return key_sum_; }
  bool empty() const { return positions_.empty(); }
  std::size_t bytes() const {
    return static_cast<std::size_t>(data_.size()) * sizeof(S) +
           positions_.size() * sizeof(std::int64_t);
  }

  /// Tokens seen by each sequence: the position of its next token.
  std::span<std::int64_t> positions() { return positions_; }
  std::span<const std::int64_t> positions() const { return positions_; }

  S* matrices() { return data_.data(); }  // [N,H,Dk,Dv]
  const S* matrices() const { return data_.data(); }
  S* key_sums() { return data_.data() + sequences() * matrix_size(); }  // [N,H,Dk]
  const S* key_sums() const { return data_.data() + sequences() * matrix_size(); }
  std::span<S> flat() { return data_.span(); }
  std::span<const S> flat() const { return data_.span(); }

  void reset() {
    data_.fill(S(0));
    std::fill(positions_.begin(), positions_.end(), 0);
  }
  /// Only sequence i starts anew.
  void reset(Index i) {
    check_index(i, "RetentionState::reset");
    std::fill_n(matrices() + i * matrix_size(), matrix_size(), S(0));
    if (key_sum_) std::fill_n(key_sums() + i * heads_ * key_dim_, heads_ * key_dim_, S(0));
    positions_[static_cast<std::size_t>(i)] = 0;
  }

  /// The sequences order[0], order[1], ...; one may occur more than once.
  RetentionState select(std::span<const Index> order) const {
    RetentionState out(static_cast<Index>(order.size()), heads_, key_dim_, value_dim_, key_sum_);
    const Index sums = heads_ * key_dim_;
    for (std::size_t i = 0; i < order.size(); ++i) {
      check_index(order[i], "RetentionState::select");
      const auto to = static_cast<Index>(i);
      std::copy_n(matrices() + order[i] * matrix_size(), matrix_size(),
                  out.matrices() + to * matrix_size());
      if (key_sum_) std::copy_n(key_sums() + order[i] * sums, sums, out.key_sums() + to * sums);
      out.positions_[i] = positions_[static_cast<std::size_t>(order[i])];
    }
    return out;
  }

 private:
  Index matrix_size() const { return heads_ * key_dim_ * value_dim_; }
  Index stride() const { return matrix_size() + (key_sum_ ? heads_ * key_dim_ : 0); }
  void check_index(Index i, const char* where) const {
    RETNET_CHECK(i >= 0 && i < sequences(), where, "sequence ", i, ", expected one of ",
                 sequences());
  }

  Index heads_ = 0;
  Index key_dim_ = 0;
  Index value_dim_ = 0;
  bool key_sum_ = false;
  Buffer<S> data_;
  std::vector<std::int64_t> positions_;
};

}  // namespace retnet::inline RETNET_ABI
