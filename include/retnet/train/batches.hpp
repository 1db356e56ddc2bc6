// SPDX-License-Identifier: MIT
// Batches from one long text. What a batch holds depends on (seed, step) alone, so a run resumes
// without keeping a position.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/core/rng.hpp"
#include "retnet/core/view.hpp"

namespace retnet::inline RETNET_ABI {

/// Inputs and next-token targets, both [B,T].
struct Batch {
  Index batch = 0;
  Index tokens = 0;
  std::vector<std::int32_t> inputs = {};
  std::vector<std::int32_t> targets = {};

  ConstView<std::int32_t, 2> input_view() const { return {inputs.data(), {batch, tokens}}; }
  ConstView<std::int32_t, 2> target_view() const { return {targets.data(), {batch, tokens}}; }
};

namespace detail {

template <class Unit>
void check_text(std::span<const Unit> text, Index batch, Index tokens, Index needed,
                const char* where) {
  RETNET_CHECK(batch > 0 && tokens > 0, where, "B = ", batch, ", T = ", tokens,
               ", expected positive");
  RETNET_CHECK(static_cast<Index>(text.size()) >= needed, where, "the text has ", text.size(),
               " tokens, expected at least ", needed, " for B = ", batch, ", T = ", tokens);
}

/// One unit of text as a token. Bytes are 0 to 255 also where char is signed.
template <class Unit>
std::int32_t to_token(Unit unit) {
  if constexpr (sizeof(Unit) == 1) {
    return static_cast<std::uint8_t>(unit);
  } else {
    return static_cast<std::int32_t>(unit);
  }
}

template <class Unit>
void copy_crop(std::span<const Unit> text, Index start, Index row, Batch& out) {
  for (Index t = 0; t < out.tokens; ++t) {
    const auto at = static_cast<std::size_t>(row * out.tokens + t);
    out.inputs[at] = to_token(text[static_cast<std::size_t>(start + t)]);
    out.targets[at] = to_token(text[static_cast<std::size_t>(start + t + 1)]);
  }
}

}  // namespace detail

/// Crops at random places: every crop starts from position 0 and an empty state.
template <class Unit>
class RandomCrops {
 public:
  /// `text` is borrowed: bytes, or tokens of any integer type.
  RandomCrops(std::span<const Unit> text, Index batch, Index tokens, Seed seed)
      : text_(text), batch_(batch), tokens_(tokens), seed_(seed) {
    detail::check_text(text, batch, tokens, tokens + 1, "RandomCrops::RandomCrops");
  }

  /// Fills `out`, which keeps its memory.
  void fill(std::int64_t step, Batch& out) const {
    out.batch = batch_;
    out.tokens = tokens_;
    out.inputs.resize(static_cast<std::size_t>(batch_ * tokens_));
    out.targets.resize(out.inputs.size());
    const auto places = static_cast<double>(static_cast<Index>(text_.size()) - tokens_);
    for (Index b = 0; b < batch_; ++b) {
      const double u =
          uniform(seed_, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(b));
      detail::copy_crop(text_, static_cast<Index>(u * places), b, out);
    }
  }

 private:
  std::span<const Unit> text_;
  Index batch_, tokens_;
  Seed seed_;
};

/// B readers that go through the text side by side: row b of step n+1 continues row b of step n, so
/// that the state may be carried (truncated back-propagation through time).
template <class Unit>
class TextStreams {
 public:
  TextStreams(std::span<const Unit> text, Index batch, Index tokens)
      : text_(text), batch_(batch), tokens_(tokens) {
    detail::check_text(text, batch, tokens, batch * tokens + 1, "TextStreams::TextStreams");
    per_pass_ = (static_cast<Index>(text.size()) - 1) / batch / tokens;
  }

  /// Steps until every reader is back at its start.
  Index steps_per_pass() const { return per_pass_; }
  /// True where the state must be reset before the step.
  bool starts_anew(std::int64_t step) const { return step % per_pass_ == 0; }

  void fill(std::int64_t step, Batch& out) const {
    out.batch = batch_;
    out.tokens = tokens_;
    out.inputs.resize(static_cast<std::size_t>(batch_ * tokens_));
    out.targets.resize(out.inputs.size());
    const Index share = (static_cast<Index>(text_.size()) - 1) / batch_;
    for (Index b = 0; b < batch_; ++b)
      detail::copy_crop(text_, b * share + static_cast<Index>(step % per_pass_) * tokens_, b, out);
  }

 private:
  std::span<const Unit> text_;
  Index batch_, tokens_;
  Index per_pass_ = 0;
};

}  // namespace retnet::inline RETNET_ABI
