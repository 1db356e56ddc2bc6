// SPDX-License-Identifier: MIT
// KeyValueState: the keys and values that an attention layer remembers of N sequences, as a value
// the caller owns. Copy it: snapshot. Copy it back: rollback. Select: beam search.
//
// It grows by (Hk*Dk + Hk*Dv) numbers a token; with a sliding window it becomes a ring of the last
// W tokens and grows no further.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "retnet/core/buffer.hpp"
#include "retnet/core/check.hpp"
#include "retnet/ops/attention_input.hpp"

namespace retnet::inline RETNET_ABI {

template <class S>
class KeyValueState {
 public:
  KeyValueState() = default;

  /// N sequences at position 0; a token has key_width = Hk*Dk and value_width = Hk*Dv numbers. A
  /// window W > 0 remembers the last W tokens.
  KeyValueState(Index sequences, Index key_width, Index value_width, Index window = 0)
      : key_width_(key_width), value_width_(value_width), window_(window) {
    constexpr const char* kWhere = "KeyValueState::KeyValueState";
    RETNET_CHECK(sequences > 0, kWhere, "sequences = ", sequences, ", expected at least 1");
    RETNET_CHECK(key_width > 0 && value_width > 0 && window >= 0, kWhere, "key_width = ", key_width,
                 ", value_width = ", value_width, ", window = ", window,
                 ", expected positive widths and a window >= 0");
    caches_.resize(static_cast<std::size_t>(sequences));
    positions_.resize(caches_.size(), 0);
  }

  Index sequences() const { return static_cast<Index>(positions_.size()); }
  Index key_width() const { return key_width_; }
  Index value_width() const { return value_width_; }
  Index window() const { return window_; }
  bool empty() const { return positions_.empty(); }

  /// Tokens seen by each sequence: the position of its next token.
  std::span<const std::int64_t> positions() const { return positions_; }
  /// Tokens of sequence i that are remembered.
  Index tokens(Index i) const { return cache(i, "KeyValueState::tokens").length; }
  /// Their keys and values, valid until the state changes.
  AttentionPast<S> past(Index i) const {
    const Cache& c = cache(i, "KeyValueState::past");
    return {{c.keys.data(), c.capacity, key_width_},
            {c.values.data(), c.capacity, value_width_},
            c.first,
            c.length};
  }

  /// Memory held now, room to grow included.
  std::size_t bytes() const {
    std::size_t sum = caches_.size() * (sizeof(Cache) + sizeof(std::int64_t));
    for (const Cache& c : caches_)
      sum += static_cast<std::size_t>(c.keys.size() + c.values.size()) * sizeof(S);
    return sum;
  }
  /// What the keys and values of one sequence take after so many tokens, without room to grow.
  std::size_t bytes_after(Index tokens) const {
    return static_cast<std::size_t>(kept(tokens) * (key_width_ + value_width_)) * sizeof(S);
  }

  /// Room for so many tokens of each sequence: until then append() allocates nothing.
  void reserve(Index tokens) {
    for (Cache& c : caches_) grow(c, kept(tokens));
  }

  /// The rows of every sequence, k [R,Hk*Dk] and v [R,Hk*Dv], are its next tokens. Allocates when a
  /// cache is full: twice as much as before.
  void append(const Sequences& sequences, Window<const S> k, Window<const S> v) {
    constexpr const char* kWhere = "KeyValueState::append";
    RETNET_CHECK(sequences.count() == this->sequences(), kWhere, sequences.count(),
                 " sequences, the state holds ", this->sequences());
    RETNET_CHECK(k.cols == key_width_ && v.cols == value_width_ && k.rows == sequences.rows() &&
                     v.rows == sequences.rows(),
                 kWhere, "keys [", k.rows, ",", k.cols, "], values [", v.rows, ",", v.cols,
                 "], expected [", sequences.rows(), ",", key_width_, "] and [", sequences.rows(),
                 ",", value_width_, "]");
    for (Index i = 0; i < sequences.count(); ++i) {  // all of them before anything is written
      Cache& c = caches_[static_cast<std::size_t>(i)];
      const Index need = kept(c.length + sequences[i].length);
      if (need > c.capacity) grow(c, std::max(need, kept(std::max(kLeast, 2 * c.capacity))));
    }
    for (Index i = 0; i < sequences.count(); ++i) {
      const Segment rows = sequences[i];
      Cache& c = caches_[static_cast<std::size_t>(i)];
      for (Index r = rows.length - kept(rows.length); r < rows.length; ++r)
        push(c, k.row(rows.first_row + r), v.row(rows.first_row + r));
      positions_[static_cast<std::size_t>(i)] += rows.length;
    }
  }

  /// Memory is kept for the tokens to come.
  void reset() {
    for (Index i = 0; i < sequences(); ++i) reset(i);
  }
  /// Only sequence i starts anew; at another position than 0 what came before is forgotten.
  void reset(Index i, std::int64_t position = 0) {
    Cache& c = caches_[check_index(i, "KeyValueState::reset")];
    c.first = c.length = 0;
    positions_[static_cast<std::size_t>(i)] = position;
  }

  /// Sequence i at a position, remembering k [tokens,Hk*Dk] and v [tokens,Hk*Dv] before it and
  /// nothing else: what past() gave, from a file.
  void restore(Index i, std::int64_t position, Window<const S> k, Window<const S> v) {
    constexpr const char* kWhere = "KeyValueState::restore";
    RETNET_CHECK(k.cols == key_width_ && v.cols == value_width_ && k.rows == v.rows &&
                     k.rows == kept(k.rows) && k.rows <= position,
                 kWhere, "keys [", k.rows, ",", k.cols, "], values [", v.rows, ",", v.cols,
                 "] at position ", position, ", expected up to ", kept(position), " rows of ",
                 key_width_, " and ", value_width_);
    reset(i, position);
    Cache& c = caches_[static_cast<std::size_t>(i)];
    grow(c, k.rows);
    for (Index r = 0; r < k.rows; ++r) push(c, k.row(r), v.row(r));
  }

  /// The sequences order[0], order[1], ...; one may occur more than once.
  KeyValueState select(std::span<const Index> order) const {
    KeyValueState out(static_cast<Index>(order.size()), key_width_, value_width_, window_);
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::size_t from = check_index(order[i], "KeyValueState::select");
      out.caches_[i] = caches_[from];
      out.positions_[i] = positions_[from];
    }
    return out;
  }

 private:
  static constexpr Index kLeast = 16;

  // A ring only where capacity has come to the window; before that the oldest token is in row 0.
  struct Cache {
    Buffer<S> keys, values;  // [capacity,Hk*Dk], [capacity,Hk*Dv]
    Index capacity = 0;
    Index first = 0;
    Index length = 0;
  };

  Index kept(Index tokens) const { return window_ > 0 ? std::min(tokens, window_) : tokens; }

  void grow(Cache& c, Index capacity) {
    if (capacity <= c.capacity) return;
    Buffer<S> keys(capacity * key_width_), values(capacity * value_width_);
    std::copy_n(c.keys.data(), c.length * key_width_, keys.data());
    std::copy_n(c.values.data(), c.length * value_width_, values.data());
    c.keys.swap(keys);
    c.values.swap(values);
    c.capacity = capacity;
  }
  void push(Cache& c, const S* key, const S* value) {
    const Index row = (c.first + c.length) % c.capacity;
    std::copy_n(key, key_width_, c.keys.data() + row * key_width_);
    std::copy_n(value, value_width_, c.values.data() + row * value_width_);
    if (c.length < c.capacity) {
      ++c.length;
    } else {
      c.first = (c.first + 1) % c.capacity;
    }
  }

  std::size_t check_index(Index i, const char* where) const {
    RETNET_CHECK(i >= 0 && i < sequences(), where, "sequence ", i, ", expected one of ",
                 sequences());
    return static_cast<std::size_t>(i);
  }
  const Cache& cache(Index i, const char* where) const { return caches_[check_index(i, where)]; }

  Index key_width_ = 0;
  Index value_width_ = 0;
  Index window_ = 0;
  std::vector<Cache> caches_;
  std::vector<std::int64_t> positions_;
};

}  // namespace retnet::inline RETNET_ABI
