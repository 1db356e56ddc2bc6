// SPDX-License-Identifier: MIT
// The model at its door: what comes in, what is refused, how it starts.

#include "retnet/model/retnet_model.hpp"

#include <gtest/gtest.h>

#include "layers/errors.hpp"
#include "model/models.hpp"
#include "retnet/core/tensor.hpp"

namespace retnet::test {
namespace {

using Model = RetNetModel<float>;
using TokenTensor = Eigen::Tensor<Token, 2, Eigen::RowMajor>;
using TokenMatrix = RowMajorMatrixOf<Token>;

const RetNetConfig kConfig =
    presets::paper({.vocab = kVocab, .d_model = 16, .layers = 2, .heads = 4});

TokenTensor some_tokens(Index batch, Index length) {
  TokenTensor out(batch, length);
  const auto tokens = random_indices(batch * length, kVocab, 1);
  std::copy(tokens.begin(), tokens.end(), out.data());
  return out;
}

TEST(RetNetModel, LogitsOfATensorAndOfAMatrix) {
  const Model model(kConfig, Seed{1});
  const auto tokens = some_tokens(2, 7);
  const Tensor3<float> y = model.forward_parallel(tokens);
  ASSERT_EQ(y.dimension(0), 2);
  ASSERT_EQ(y.dimension(1), 7);
  ASSERT_EQ(y.dimension(2), kVocab);
  const std::span<const float> expected(y.data(), 2 * 7 * kVocab);

  auto state = model.initial_state(2);
  const Tensor3<float> chunked = model.forward_chunkwise(tokens, state, 3);
  EXPECT_LE(relative_error(std::span<const float>(chunked.data(), expected.size()), expected),
            1e-5);
  EXPECT_EQ(state.position(1), 7);

  const TokenMatrix matrix = Eigen::Map<const TokenMatrix>(tokens.data(), 2, 7);
  auto again = model.initial_state(2);
  const RowMatrix<float> rows_of_logits = model.forward_recurrent(matrix, again);
  ASSERT_EQ(rows_of_logits.rows(), 14);
  ASSERT_EQ(rows_of_logits.cols(), kVocab);
  EXPECT_LE(
      relative_error(std::span<const float>(rows_of_logits.data(), expected.size()), expected),
      1e-5);
  auto more = model.initial_state(2);
  const Tensor3<float> stateful = model.forward_parallel(tokens, more);
  EXPECT_LE(relative_error(std::span<const float>(stateful.data(), expected.size()), expected),
            1e-6);
  EXPECT_LE(model_state_error(more, state), 1e-5);
}

TEST(RetNetModel, CountsItsParameters) {
  const Index d = 16, layers = 2;
  EXPECT_EQ(Model(kConfig).count_params(), 2 * kVocab * d + layers * (12 * d * d + 4 * d) + 2 * d);
  auto tied = kConfig;
  tied.tied_output = true;
  tied.final_norm = false;
  tied.embedding_norm = true;
  EXPECT_EQ(Model(tied).count_params(), kVocab * d + layers * (12 * d * d + 4 * d) + 2 * d);
  Index sum = 0;
  const Model model(kConfig);
  for (const auto& e : model.layout().entries()) sum += e.place.size();
  EXPECT_EQ(sum, model.count_params());
  EXPECT_GE(model.layout().size(), sum);
}

TEST(RetNetModel, NamesItsParameters) {
  auto config = kConfig;
  config.embedding_norm = true;
  const Model model(config);
  for (const char* name :
       {"embed_tokens.weight", "embedding_norm.weight", "embedding_norm.bias",
        "layers.0.retention.q_proj.weight", "layers.1.retention.out_proj.weight",
        "layers.1.retention_norm.weight", "layers.0.ffn.fc1.weight", "layers.0.ffn.fc2.weight",
        "layers.1.ffn_norm.bias", "final_norm.weight", "output_projection.weight"})
    EXPECT_NE(model.layout().find(name), nullptr) << name;
  EXPECT_EQ(model.layout().find("layers.2.ffn.fc1.weight"), nullptr);
}

// The seed decides the weights, and a float model is the rounded double model.
TEST(RetNetModel, TheSeedDecidesTheWeights) {
  const Model a(kConfig, Seed{1}), b(kConfig, Seed{1}), c(kConfig, Seed{2});
  EXPECT_TRUE(same_bits(a.weight_buffer().flat(), b.weight_buffer().flat()));
  EXPECT_FALSE(same_bits(a.weight_buffer().flat(), c.weight_buffer().flat()));
  const RetNetModel<double> wide(kConfig, Seed{1});
  EXPECT_TRUE(
      same_bits<float>(wide.weight_buffer().cast<float>().flat(), b.weight_buffer().flat()));
  for (const auto& e : a.layout().entries()) {
    double squares = 0.0;
    for (Index i = 0; i < e.place.size(); ++i)
      squares += std::pow(static_cast<double>(a.weight_buffer()[e.place].data[i]), 2);
    const double rms = std::sqrt(squares / static_cast<double>(e.place.size()));
    if (e.place.rows == 1) {
      EXPECT_EQ(rms, e.name.ends_with(".bias") ? 0.0 : 1.0) << e.name;
      continue;
    }
    const double fan_in = static_cast<double>(e.place.cols),
                 fan_out = static_cast<double>(e.place.rows);
    const double expected = e.init.kind == Init::Kind::normal ? e.init.gain
                            : e.init.kind == Init::Kind::xavier_uniform
                                ? e.init.gain * std::sqrt(2.0 / (fan_in + fan_out))
                                : e.init.gain / std::sqrt(3.0 * fan_in);
    EXPECT_NEAR(rms / expected, 1.0, 0.15) << e.name;
  }
  EXPECT_NEAR(a.layout().find("embed_tokens.weight")->init.gain, 0.25, 1e-12);  // 16^-0.5
}

// Copies share the immutable weights and outlive the original.
TEST(RetNetModel, CopiesOutliveTheOriginal) {
  auto original = std::make_unique<Model>(kConfig, Seed{1});
  const Model copy = *original;
  const auto tokens = some_tokens(1, 5);
  const Tensor3<float> y = original->forward_parallel(tokens);
  EXPECT_EQ(copy.weights().flat(), original->weights().flat());
  original.reset();
  const Tensor3<float> z = copy.forward_parallel(tokens);
  EXPECT_TRUE(same_bits(std::span<const float>(y.data(), 5 * kVocab),
                        std::span<const float>(z.data(), 5 * kVocab)));
}

// hidden and project are the two halves of forward; one row may be projected alone.
TEST(RetNetModel, HiddenRowsAndTheirLogits) {
  const Model model(kConfig, Seed{1});
  const auto tokens = random_indices(6, kVocab, 1);
  const auto sequences = Sequences::dense(1, 6);
  const Pass pass{Form::parallel(), sequences};
  Cpu ctx;
  const auto y = logits(ctx, model, Form::parallel(), sequences, tokens);
  Buffer<float> h(6 * 16), last(kVocab);
  model.hidden(ctx, model.weights(), pass, TokenView(tokens.data(), {1, 6}), nullptr,
               Window<float>(h.data(), 6, 16));
  model.project(ctx, model.weights(), pass, Window<const float>(h.data() + 5 * 16, 1, 16),
                Window<float>(last.data(), 1, kVocab));
  EXPECT_TRUE(same_bits(last, rows(y, kVocab, 5, 1)));
}

class RetNetModelErrors : public testing::Test {
 protected:
  Model model{kConfig};
  ModelState<float> state = model.initial_state(2);
};

TEST_F(RetNetModelErrors, TokensOutOfRange) {
  auto tokens = some_tokens(2, 5);
  tokens(1, 3) = kVocab;
  expect_error([&] { (void)model.forward_parallel(tokens); },
               {"RetNetModel", "forward_parallel", "token 17", "row 8", "vocab = 17"});
  tokens(1, 3) = -2;
  expect_error([&] { (void)model.forward_recurrent(tokens, state); },
               {"forward_recurrent", "token -2", "vocab = 17"});
  expect_error([&] { (void)model.forward_chunkwise(tokens, state); },
               {"forward_chunkwise", "token -2"});
  EXPECT_TRUE(same_model_state(state, model.initial_state(2)));
}

TEST_F(RetNetModelErrors, NoTokens) {
  expect_error([&] { (void)model.forward_parallel(TokenTensor(2, 0)); },
               {"RetNetModel", "forward_parallel", "[2,0]", "T > 0"});
  expect_error([&] { (void)model.forward_chunkwise(TokenMatrix(0, 4), state); },
               {"forward_chunkwise", "[0,4]"});
}

TEST_F(RetNetModelErrors, ChunkOfZero) {
  expect_error([&] { (void)model.forward_chunkwise(some_tokens(2, 5), state, 0); },
               {"forward_chunkwise", "chunk = 0", "at least 1"});
}

TEST_F(RetNetModelErrors, StatesThatDoNotFit) {
  expect_error([&] { (void)model.forward_recurrent(some_tokens(3, 5), state); },
               {"forward_recurrent", "2 sequences", "holds 3"});
  auto config = kConfig;
  config.layers = 3;
  auto deeper = Model(config).initial_state(2);
  expect_error([&] { (void)model.forward_recurrent(some_tokens(2, 5), deeper); },
               {"RetNetModel", "3 layers", "expected 2"});
  config = kConfig;
  config.retention.heads = 2;
  auto other = Model(config).initial_state(2);
  expect_error([&] { (void)model.forward_recurrent(some_tokens(2, 5), other); },
               {"another layer", "[2,8,16]", "[4,4,8]"});
  ModelState<float> none;
  expect_error([&] { (void)model.forward_recurrent(some_tokens(2, 5), none); },
               {"0 layers", "expected 2"});
  expect_error([&] { (void)model.initial_state(0); }, {"sequences = 0"});
}

// One layer of a state may be of another kind: the check looks at each.
TEST_F(RetNetModelErrors, OneLayerOfTheStateDoesNotFit) {
  auto mixed = state;
  auto config = kConfig;
  config.retention.d_value = 64;
  mixed.layers[1] = Model(config).initial_state(2).layers[1];
  const auto before = mixed;
  expect_error([&] { (void)model.forward_parallel(some_tokens(2, 5), mixed); },
               {"another layer", "[4,4,16]", "[4,4,8]"});
  EXPECT_TRUE(same_model_state(mixed, before));
}

TEST_F(RetNetModelErrors, ShapesThatDoNotFit) {
  Cpu ctx;
  const auto tokens = random_indices(10, kVocab, 1);
  Buffer<float> out(10 * kVocab);
  const auto sequences = Sequences::dense(2, 5), short_sequences = Sequences::dense(2, 4);
  const TokenView view(tokens.data(), {2, 5});
  expect_error(
      [&] {
        model.forward(ctx, model.weights(), Pass{Form::parallel(), sequences}, view, nullptr,
                      View<float, 3>(out.data(), {2, 5, kVocab - 1}));
      },
      {"RetNetModel", "[2,5,16]", "[2,5]", "vocab = 17"});
  expect_error(
      [&] {
        model.forward(ctx, model.weights(), Pass{Form::parallel(), short_sequences}, view, nullptr,
                      View<float, 3>(out.data(), {2, 5, kVocab}));
      },
      {"RetNetModel", "[2,5]", "8 rows"});
}

TEST_F(RetNetModelErrors, TargetsThatDoNotFit) {
  Cpu ctx;
  const auto tokens = random_indices(10, kVocab, 1);
  const auto sequences = Sequences::dense(2, 5);
  const Pass pass{Form::parallel(), sequences};
  const TokenView view(tokens.data(), {2, 5});
  ParamBuffer<float> gradient(model.layout());
  Model::Saved saved;
  const auto both = [&](TokenView targets, const std::vector<std::string>& parts) {
    expect_error([&] { (void)model.loss(ctx, model.weights(), pass, view, targets); }, parts);
    expect_error(
        [&] {
          (void)model.loss_and_gradient(ctx, model.weights(), pass, view, targets, nullptr, saved,
                                        gradient.ref(), 1.0);
        },
        parts);
  };
  both(TokenView(tokens.data(), {5, 2}), {"RetNetModel", "targets are [5,2]", "tokens are [2,5]"});
  auto targets = tokens;
  targets[7] = kVocab;
  both(TokenView(targets.data(), {2, 5}), {"target 17", "row 7", "vocab = 17", "kIgnore"});
  targets[7] = -5;
  both(TokenView(targets.data(), {2, 5}), {"target -5", "row 7"});
  targets[7] = kIgnore;
  EXPECT_EQ(model.loss(ctx, model.weights(), pass, view, TokenView(targets.data(), {2, 5})).rows,
            9);
}

TEST_F(RetNetModelErrors, WeightsOfAnotherConfig) {
  auto config = kConfig;
  config.vocab = 40;
  const Model other(config);
  expect_error([&] { Model wrong(kConfig, other.weight_buffer()); },
               {"RetNetModel", std::to_string(other.layout().size()),
                std::to_string(model.layout().size())});
  expect_error([&] { (void)model.with_weights(other.weight_buffer()); }, {"RetNetModel"});
}

TEST_F(RetNetModelErrors, ConfigsThatContradictThemselves) {
  auto config = kConfig;
  config.retention.heads = 5;
  expect_error([&] { Model wrong(config); }, {"RetNetConfig", "d_key = 16", "heads = 5", "mend: "});
}

// Nothing but the target row's probability: uniform logits cost ln V each.
TEST(Loss, IsTheLogarithmOfTheVocabularyForZeroWeights) {
  const RetNetModel<double> model(kConfig, ParamBuffer<double>(Model(kConfig).layout()));
  const auto tokens = random_indices(12, kVocab, 1);
  auto targets = random_indices(12, kVocab, 2);
  targets[3] = targets[11] = kIgnore;
  Cpu ctx;
  const auto sequences = Sequences::dense(3, 4);
  const LossSum loss =
      model.loss(ctx, model.weights(), Pass{Form::chunkwise(3), sequences},
                 TokenView(tokens.data(), {3, 4}), TokenView(targets.data(), {3, 4}));
  EXPECT_EQ(loss.rows, 10);
  EXPECT_NEAR(loss.mean(), std::log(static_cast<double>(kVocab)), 1e-14);
  EXPECT_EQ(LossSum().mean(), 0.0);
}

}  // namespace
}  // namespace retnet::test
