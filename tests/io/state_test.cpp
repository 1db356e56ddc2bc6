// SPDX-License-Identifier: MIT
// A state saved in the middle of a sequence and loaded elsewhere continues it bit for bit.
#include <cstring>

#include "io/support.hpp"
#include "retnet/core/tensor.hpp"
#include "retnet/io/checkpoint.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::TempDir;

Tensor3<double> sequence(Index batch, Index tokens, Index width) {
  Tensor3<double> x(batch, tokens, width);
  for (Index i = 0; i < x.size(); ++i)
    x.data()[i] = normal(Seed{7}, 0, static_cast<std::uint64_t>(i));
  return x;
}

Tensor3<double> part(const Tensor3<double>& x, Index first, Index tokens) {
  Tensor3<double> out(x.dimension(0), tokens, x.dimension(2));
  for (Index b = 0; b < x.dimension(0); ++b)
    std::copy_n(&x(b, first, 0), tokens * x.dimension(2), &out(b, 0, 0));
  return out;
}

bool same_bits(const Tensor3<double>& a, const Tensor3<double>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(double)) == 0;
}

class State : public testing::TestWithParam<Normalization> {
 protected:
  RetentionConfig config() const {
    return {.d_model = 24, .heads = 3, .d_key = 12, .d_value = 15, .normalization = GetParam()};
  }
  const TempDir dir_;
};

TEST_P(State, ContinuesASequenceExactly) {
  const MultiScaleRetention<double> layer(config(), Seed{1});
  const auto x = sequence(2, 13, 24);
  const auto first = part(x, 0, 7), second = part(x, 7, 6);

  auto state = layer.initial_state(2);
  layer.forward_chunkwise(first, state, 4);
  save_state(dir_ / "s", state);
  const auto chunkwise = layer.forward_chunkwise(second, state, 4);

  auto loaded = layer.initial_state(2);
  load_state(dir_ / "s", loaded);
  EXPECT_EQ(loaded.positions()[1], 7);
  EXPECT_TRUE(same_bits(layer.forward_chunkwise(second, loaded, 4), chunkwise));

  auto again = layer.initial_state(2), before = again;
  load_state(dir_ / "s", again);
  load_state(dir_ / "s", before);
  EXPECT_TRUE(
      same_bits(layer.forward_recurrent(second, again), layer.forward_recurrent(second, before)));
  EXPECT_EQ(std::memcmp(again.flat().data(), before.flat().data(), again.flat().size_bytes()), 0);
}

TEST_P(State, OfManyLayersKeepsEachOfThem) {
  const MultiScaleRetention<double> layer(config(), Seed{1});
  ModelState<double> state, loaded;
  for (int l = 0; l < 12; ++l) {
    state.layers.push_back(layer.initial_state(2));
    loaded.layers.push_back(layer.initial_state(2));
    layer.forward_recurrent(sequence(2, l + 1, 24), state.layers.back().retention());
  }
  save_state(dir_ / "s", state);
  load_state(dir_ / "s", loaded);
  for (std::size_t l = 0; l < 12; ++l) {
    const auto a = state.layers[l].retention().flat(), b = loaded.layers[l].retention().flat();
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0) << l;
    EXPECT_EQ(loaded.layers[l].position(0), static_cast<std::int64_t>(l) + 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Norms, State,
                         testing::Values(Normalization::row_sum, Normalization::paper_score));

TEST(StateFile, HoldsNamedTensors) {
  const TempDir dir;
  RetentionState<float> state(2, 3, 4, 5, true);
  state.positions()[1] = std::int64_t{1} << 40;
  save_state(dir / "s", state);
  const SafetensorsFile file(dir / "s");
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.at("matrices").describe(), "F32 [2,3,4,5]");
  EXPECT_EQ(file.at("key_sums").describe(), "F32 [2,3,4]");
  EXPECT_EQ(file.at("positions").describe(), "I64 [2]");
  RetentionState<float> loaded(2, 3, 4, 5, true);
  load_state(dir / "s", loaded);
  EXPECT_EQ(loaded.positions()[1], std::int64_t{1} << 40);
}

TEST(StateFile, MustFitTheReceiver) {
  const TempDir dir;
  save_state(dir / "s", RetentionState<float>(2, 3, 4, 5, true));
  const auto refused = [&](auto state, std::initializer_list<std::string_view> parts) {
    expect_error<std::invalid_argument>([&] { load_state(dir / "s", state); }, parts);
    for (const auto value : state.flat()) EXPECT_EQ(value, decltype(value)(0));
  };
  refused(RetentionState<float>(1, 3, 4, 5, true),
          {dir / "s", "matrices is F32 [2,3,4,5], expected F32 [1,3,4,5]",
           "positions is I64 [2], expected I64 [1]"});
  refused(RetentionState<float>(2, 3, 4, 5, false), {"unknown: key_sums F32 [2,3,4]"});
  refused(RetentionState<double>(2, 3, 4, 5, true),
          {"matrices is F32 [2,3,4,5], expected F64 [2,3,4,5]"});
  ModelState<float> none, two;
  two.layers.assign(2, RetentionState<float>(2, 3, 4, 5, true));
  expect_error<std::invalid_argument>([&] { load_state(dir / "s", none); }, {"empty state"});
  expect_error<std::invalid_argument>([&] { load_state(dir / "s", two); },
                                      {"missing: layers.0.matrices", "unknown: matrices F32"});
}

TEST(StateFile, NegativePositionsAreRefused) {
  const TempDir dir;
  RetentionState<float> state(2, 3, 4, 5, false);
  state.positions()[1] = -5;
  save_state(dir / "s", state);
  state.reset();
  expect_error<std::invalid_argument>([&] { load_state(dir / "s", state); },
                                      {"positions is a position of -5"});
  EXPECT_EQ(state.positions()[1], 0);
}

}  // namespace
}  // namespace retnet
