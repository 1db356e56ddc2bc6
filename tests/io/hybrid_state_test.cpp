// SPDX-License-Identifier: MIT
// Models whose layers differ, as files: the config, the weights, and states that hold keys and
// values beside sums.

#include <gtest/gtest.h>

#include "io/support.hpp"
#include "layers/errors.hpp"
#include "model/models.hpp"
#include "retnet/io/model_file.hpp"
#include "retnet/model/session.hpp"

namespace retnet::test {
namespace {

std::vector<NamedModel> stacks() {
  std::vector<NamedModel> out;
  for (const auto& m : models())
    if (!only_retention(m.config)) out.push_back(m);
  return out;
}

TEST(HybridConfig, SurvivesJson) {
  ASSERT_EQ(stacks().size(), 3U);
  for (auto& m : stacks()) {
    if (m.config.cross_decoder.layers > 0) m.config.cross_decoder.attention.theta_base = 5e5;
    for (auto& a : m.config.attention) a.attention.scale = 0.125, a.attention.rotary_dim = 2;
    const std::string text = config_to_json(m.config);
    const RetNetConfig back = config_from_json(text);
    EXPECT_EQ(config_to_json(back), text) << m.name;
    EXPECT_EQ(back.attention.size(), m.config.attention.size());
    EXPECT_EQ(back.cross_decoder.layers, m.config.cross_decoder.layers);
    EXPECT_EQ(back.cross_decoder.attention.theta_base, m.config.cross_decoder.attention.theta_base);
  }
}

TEST(HybridConfig, ErrorsNameTheEntry) {
  const auto with = [](const char* attention) {
    return std::string(R"({"version":1,"vocab":5,"d_model":8,"layers":2,"retention":{"heads":2},)") +
           R"("attention":)" + attention + "}";
  };
  const auto expect = [&](const char* attention, const std::vector<std::string>& parts) {
    expect_error([&] { (void)config_from_json(with(attention)); }, parts);
  };
  expect("{}", {"attention is object", "an array of layers"});
  expect("[3]", {"attention[0]", "an object"});
  expect("[{\"layer\":1}]", {"attention[0].attention is missing"});
  expect("[{\"layer\":1,\"attention\":{\"heads\":2,\"windows\":3}}]",
         {"attention[0].attention.windows is unknown"});
  expect("[{\"layer\":2,\"attention\":{\"heads\":2}}]", {"layer 2", "layers = 2"});
}

TEST(HybridModelFile, IsTheSameModel) {
  const io_test::TempDir folder;
  const auto tokens = random_indices(20, kVocab, 3);
  Cpu ctx;
  for (const auto& m : stacks()) {
    const auto model = random_model<float>(m.config);
    save_model(folder / "model.safetensors", model);
    const auto back = load_model<float>(folder / "model.safetensors");
    EXPECT_TRUE(same_bits(
        logits(ctx, model, Form::parallel(), Sequences::dense(2, 10), tokens),
        logits(ctx, back, Form::parallel(), Sequences::dense(2, 10), tokens)));
  }
}

// A ring that has turned, sequences of different lengths: the next tokens are the same bits.
TEST(HybridState, GoesOnWhereItWas) {
  const io_test::TempDir folder;
  const std::array<Index, 3> borders{0, 19, 24};
  const auto past = random_indices(24, kVocab, 3), next = random_indices(2, kVocab, 4);
  Cpu ctx;
  for (const auto& m : stacks()) {
    const auto model = random_model<float>(m.config);
    auto state = model.initial_state(2);
    logits(ctx, model, Form::chunkwise(4), Sequences::packed(std::span<const Index>(borders)), past,
           &state);
    save_state(folder / "state.safetensors", state);
    auto back = model.initial_state(2);
    load_state(folder / "state.safetensors", back);
    EXPECT_TRUE(same_model_state(state, back)) << m.name;
    EXPECT_EQ(back.position(0), 19);
    EXPECT_EQ(back.position(1), 5);
    const auto step = Sequences::dense(2, 1);
    EXPECT_TRUE(same_bits(logits(ctx, model, Form::recurrent(), step, next, &state),
                          logits(ctx, model, Form::recurrent(), step, next, &back)))
        << m.name;
  }
}

TEST(HybridState, OfAnotherModelIsRefused) {
  const io_test::TempDir folder;
  const auto all = stacks();
  const auto hybrid = random_model<float>(all[0].config);
  save_state(folder / "state.safetensors", hybrid.initial_state(2));
  auto one = hybrid.initial_state(1);
  expect_error([&] { load_state(folder / "state.safetensors", one); },
               {"layers.1.positions is I64 [2], expected I64 [1]", "unknown: layers.1.keys.1"});
  auto cross = random_model<float>(all[1].config).initial_state(2);
  expect_error([&] { load_state(folder / "state.safetensors", cross); },
               {"missing: cross.positions", "unknown: layers.1.keys.0"});

  auto state = hybrid.initial_state(1);
  state.layers[1].keys_and_values().restore(0, 0, {nullptr, 0, 8}, {nullptr, 0, 8});
  const std::vector<float> row(8, 1.0F);
  const Window<const float> token(row.data(), 1, 8);
  expect_error([&] { state.layers[1].keys_and_values().restore(0, 0, token, token); },
               {"KeyValueState::restore", "keys [1,8]", "position 0"});
}

// Beam search and a second try, with caches in the state.
TEST(HybridSession, ForksAndGoesOn) {
  for (const auto& m : stacks()) {
    const auto model = random_model<float>(m.config);
    Session<float> session(model, {.sampler = {.temperature = 0.0}});
    session.prompt(std::vector<Token>{1, 2, 3, 4, 5, 6, 7, 8, 9});
    for (int i = 0; i < 5; ++i) session.next();
    auto fork = session.fork();
    for (int i = 0; i < 12; ++i) EXPECT_EQ(session.next(), fork.next()) << m.name;
  }
}

}  // namespace
}  // namespace retnet::test
