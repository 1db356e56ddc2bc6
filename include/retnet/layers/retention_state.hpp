// SPDX-License-Identifier: MIT
// RetentionState: everything a retention layer remembers of N sequences, as a value the caller
// owns. Copy it: snapshot. Copy it back: rollback. Select: beam search, or a batch put together
// anew.
//
// defer() makes generation write the sums once in several tokens (ops/retention_deferred.hpp); whoever
// looks at them through this class sees them complete.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "retnet/core/buffer.hpp"
#include "retnet/core/check.hpp"
#include "retnet/ops/retention_deferred.hpp"

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
    return static_cast<std::size_t>(data_.size() + keys_.size() + values_.size()) * sizeof(S) +
           log_decay_.size() * sizeof(double) + counts_.size() * sizeof(Index) +
           positions_.size() * sizeof(std::int64_t);
  }

  /// From now on a recurrent step keeps up to `tokens` keys and values beside the sums and writes the
  /// sums once in as many tokens: the same function, rounded otherwise, with almost half the memory
  /// traffic where the state is larger than the caches. 1 ends it.
  void defer(Index tokens = 16) {
    RETNET_CHECK(tokens >= 1, "RetentionState::defer", "tokens = ", tokens,
                 ", expected at least 1");
    settle();
    const Index n = tokens > 1 ? sequences() * heads_ * tokens : 0;
    window_ = tokens > 1 ? tokens : 0;
    keys_.resize(n * key_dim_);
    values_.resize(n * value_dim_);
    log_decay_.assign(static_cast<std::size_t>(n), 0.0);
    counts_.assign(n > 0 ? positions_.size() : 0, 0);
  }
  bool deferred() const { return window_ > 0; }
  /// Tokens of sequence i that are not in the sums yet.
  Index pending(Index i) const { return deferred() ? counts_[static_cast<std::size_t>(i)] : 0; }
  /// Writes what is pending.
  void settle() {
    if (!deferred()) return;
    settle_pending(pending_tokens(), heads_, key_dim_, value_dim_, data_.data());
  }
  /// For the op that defers: the sums as they are, and what is pending.
  PendingTokens<S> pending_tokens() {
    return {window_, keys_.data(), values_.data(), log_decay_.data(), counts_};
  }
  S* unsettled_matrices() { return data_.data(); }

  /// Tokens seen by each sequence: the position of its next token.
  std::span<std::int64_t> positions() { return positions_; }
  std::span<const std::int64_t> positions() const { return positions_; }

  /// The sums [N,H,Dk,Dv]. The const form throws std::invalid_argument while tokens are pending.
  S* matrices() {
    settle();
    return data_.data();
  }
  const S* matrices() const {
    check_settled();
    return data_.data();
  }
  S* key_sums() { return data_.data() + sequences() * matrix_size(); }  // [N,H,Dk], never deferred
  const S* key_sums() const { return data_.data() + sequences() * matrix_size(); }
  std::span<S> flat() {
    settle();
    return data_.span();
  }
  std::span<const S> flat() const {
    check_settled();
    return data_.span();
  }

  void reset() {
    data_.fill(S(0));
    std::fill(positions_.begin(), positions_.end(), 0);
    std::fill(counts_.begin(), counts_.end(), 0);
  }
  /// Only sequence i starts anew.
  void reset(Index i) {
    check_index(i, "RetentionState::reset");
    if (deferred()) counts_[static_cast<std::size_t>(i)] = 0;
    std::fill_n(data_.data() + i * matrix_size(), matrix_size(), S(0));
    if (key_sum_) std::fill_n(key_sums() + i * heads_ * key_dim_, heads_ * key_dim_, S(0));
    positions_[static_cast<std::size_t>(i)] = 0;
  }

  /// The sequences order[0], order[1], ...; one may occur more than once.
  RetentionState select(std::span<const Index> order) const {
    RetentionState out(static_cast<Index>(order.size()), heads_, key_dim_, value_dim_, key_sum_);
    if (deferred()) out.defer(window_);
    const Index sums = heads_ * key_dim_, tokens = heads_ * window_;
    const auto copy = [](const auto& from, auto& to, Index size, Index i, Index n) {
      std::copy_n(from.data() + i * size, size, to.data() + n * size);
    };
    for (std::size_t i = 0; i < order.size(); ++i) {
      check_index(order[i], "RetentionState::select");
      const auto to = static_cast<Index>(i), from = order[i];
      copy(data_, out.data_, matrix_size(), from, to);
      if (key_sum_) std::copy_n(key_sums() + from * sums, sums, out.key_sums() + to * sums);
      copy(keys_, out.keys_, tokens * key_dim_, from, to);
      copy(values_, out.values_, tokens * value_dim_, from, to);
      copy(log_decay_, out.log_decay_, tokens, from, to);
      if (deferred()) out.counts_[i] = counts_[static_cast<std::size_t>(from)];
      out.positions_[i] = positions_[static_cast<std::size_t>(from)];
    }
    return out;
  }

 private:
  Index matrix_size() const { return heads_ * key_dim_ * value_dim_; }
  Index stride() const { return matrix_size() + (key_sum_ ? heads_ * key_dim_ : 0); }
  void check_settled() const {
    for (const Index count : counts_)
      RETNET_CHECK(count == 0, "RetentionState::matrices", count,
                   " tokens are pending, expected settle() before a look at a const state");
  }
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

  Index window_ = 0;  // tokens of a deferred write; 0: none
  Buffer<S> keys_, values_;
  std::vector<double> log_decay_;
  std::vector<Index> counts_;
};

}  // namespace retnet::inline RETNET_ABI
