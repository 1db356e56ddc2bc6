// SPDX-License-Identifier: MIT
// The cache as a value: what it holds after any appends, as a list that grows and as a ring.
#include "retnet/layers/key_value_state.hpp"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "layers/errors.hpp"
#include "support/compare.hpp"
#include "support/random.hpp"

namespace retnet::test {
namespace {

constexpr Index kKeys = 6, kValues = 4;  // numbers of a token

using State = KeyValueState<double>;

/// Token n of sequence s has keys 100 s + n, values -(100 s + n).
void append(State& state, const Sequences& sequences) {
  Buffer<double> k(sequences.rows() * kKeys), v(sequences.rows() * kValues);
  for (Index s = 0; s < sequences.count(); ++s)
    for (Index i = 0; i < sequences[s].length; ++i) {
      const Index row = sequences[s].first_row + i;
      const auto token = static_cast<double>(100 * s + state.positions()[std::size_t(s)] + i);
      std::fill_n(k.data() + row * kKeys, kKeys, token);
      std::fill_n(v.data() + row * kValues, kValues, -token);
    }
  state.append(sequences, Window<const double>(k.data(), sequences.rows(), kKeys),
               Window<const double>(v.data(), sequences.rows(), kValues));
}

/// The tokens that sequence i holds, oldest first; the values must tell the same.
std::vector<double> held(const State& state, Index i) {
  const auto past = state.past(i);
  std::vector<double> out;
  for (Index m = 0; m < past.length; ++m) {
    const Index row = (past.first + m) % past.keys.rows;
    out.push_back(past.keys(row, kKeys - 1));
    EXPECT_EQ(past.values(row, 0), -out.back());
  }
  EXPECT_EQ(past.length, state.tokens(i));
  return out;
}

std::vector<double> range(Index first, Index last) {
  std::vector<double> out;
  for (Index n = first; n < last; ++n) out.push_back(static_cast<double>(n));
  return out;
}

TEST(KeyValueState, GrowsAndForgetsNothing) {
  State state(2, kKeys, kValues);
  Index seen = 0;
  for (const Index n : {1, 3, 40, 1, 1, 200}) {
    append(state, Sequences::dense(2, n));
    seen += n;
    EXPECT_EQ(state.positions()[1], seen);
    EXPECT_EQ(held(state, 0), range(0, seen));
    EXPECT_EQ(held(state, 1), range(100, 100 + seen));
  }
}

TEST(KeyValueState, AWindowRemembersTheLastTokens) {
  for (const Index window : {1, 2, 7, 16, 33})
    for (const Index step : {1, 3, 20, 50}) {
      State state(1, kKeys, kValues, window);
      Index seen = 0;
      while (seen < 120) {
        append(state, Sequences::dense(1, step));
        seen += step;
        EXPECT_EQ(held(state, 0), range(std::max<Index>(0, seen - window), seen));
        EXPECT_EQ(state.positions()[0], seen);
      }
      EXPECT_LE(state.past(0).keys.rows, window);
    }
}

TEST(KeyValueState, SequencesGrowByThemselves) {
  const std::array<Index, 4> bounds{0, 1, 6, 46};
  const std::array<Index, 3> padding{3, 0, 2};
  State state(3, kKeys, kValues);
  append(state, Sequences::packed<Index>(bounds));
  append(state, Sequences::left_padded(3, 4, padding));
  EXPECT_EQ(held(state, 0), range(0, 2));
  EXPECT_EQ(held(state, 1), range(100, 109));
  EXPECT_EQ(held(state, 2), range(200, 242));
}

TEST(KeyValueState, BytesAreThoseInUse) {
  State state(3, kKeys, kValues);
  const std::size_t bare = state.bytes();
  EXPECT_EQ(state.bytes_after(100), 100 * (kKeys + kValues) * sizeof(double));
  state.reserve(100);
  EXPECT_EQ(state.bytes(), bare + 3 * state.bytes_after(100));
  append(state, Sequences::dense(3, 100));
  EXPECT_EQ(state.bytes(), bare + 3 * state.bytes_after(100));
  append(state, Sequences::dense(3, 1));  // twice as much as before
  EXPECT_EQ(state.bytes(), bare + 3 * state.bytes_after(200));
  const State copy = state;
  EXPECT_EQ(copy.bytes(), state.bytes());

  State ring(1, kKeys, kValues, 50);
  EXPECT_EQ(ring.bytes_after(49), 49 * (kKeys + kValues) * sizeof(double));
  EXPECT_EQ(ring.bytes_after(1000), ring.bytes_after(50));
  ring.reserve(1000);
  append(ring, Sequences::dense(1, 1000));
  EXPECT_EQ(ring.bytes() - State(1, kKeys, kValues, 50).bytes(), ring.bytes_after(1000));
}

TEST(KeyValueState, IsAValue) {
  for (const Index window : {0, 5}) {
    State state(3, kKeys, kValues, window);
    append(state, Sequences::dense(3, 12));
    const State snapshot = state;
    append(state, Sequences::dense(3, 30));
    EXPECT_EQ(held(snapshot, 1), range(100 + (window ? 7 : 0), 112));
    EXPECT_EQ(snapshot.positions()[1], 12);

    const std::array<Index, 4> order{2, 0, 0, 1};
    State chosen = state.select(order);
    ASSERT_EQ(chosen.sequences(), 4);
    for (Index i = 0; i < 4; ++i) {
      EXPECT_EQ(held(chosen, i), held(state, order[std::size_t(i)]));
      EXPECT_EQ(chosen.positions()[std::size_t(i)], 42);
    }
    chosen.reset(1);
    EXPECT_EQ(chosen.tokens(1), 0);
    EXPECT_EQ(chosen.positions()[1], 0);
    EXPECT_EQ(held(chosen, 2), held(state, 0));  // the other copy goes on
    EXPECT_EQ(chosen.bytes(), state.select(order).bytes());

    state.reset(0, 40);  // as from a file: the position, then the tokens that were remembered
    EXPECT_EQ(state.tokens(0), 0);
    append(state, Sequences::dense(3, 2));
    EXPECT_EQ(held(state, 0), range(40, 42));
    state.reset();
    for (Index i = 0; i < 3; ++i) {
      EXPECT_EQ(state.tokens(i), 0);
      EXPECT_EQ(state.positions()[std::size_t(i)], 0);
    }
    append(state, Sequences::dense(3, 3));
    EXPECT_EQ(held(state, 2), range(200, 203));
  }
}

TEST(KeyValueState, RefusesWhatDoesNotFit) {
  expect_error([] { State(0, 1, 1); }, {"KeyValueState", "sequences = 0", "at least 1"});
  expect_error([] { State(1, 0, 1); }, {"key_width = 0", "positive"});
  expect_error([] { State(1, 1, 1, -2); }, {"window = -2"});
  State state(2, kKeys, kValues);
  expect_error([&] { append(state, Sequences::dense(1, 4)); },
               {"append", "1 sequences", "holds 2"});
  const Buffer<double> rows(2 * kKeys);
  expect_error(
      [&] {
        state.append(Sequences::dense(2, 1), Window<const double>(rows.data(), 2, kKeys),
                     Window<const double>(rows.data(), 2, kKeys));
      },
      {"append", "values [2,6]", "[2,4]"});
  EXPECT_EQ(state.positions()[0], 0);
  const std::array<Index, 1> order{2};
  expect_error([&] { (void)state.select(order); }, {"select", "sequence 2", "one of 2"});
  expect_error([&] { state.reset(-1); }, {"reset", "sequence -1"});
  expect_error([&] { (void)state.past(2); }, {"past", "sequence 2"});
  EXPECT_TRUE(State().empty());
}

}  // namespace
}  // namespace retnet::test
