// SPDX-License-Identifier: MIT
#include "retnet/model/session.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "support/compare.hpp"
#include "support/count_allocations.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"

namespace retnet {
namespace {

using Text = std::vector<Token>;

RetNetConfig small_config() {
  return {.vocab = 50, .d_model = 24, .layers = 2, .retention = {.heads = 3}};
}

template <class Scalar = float>
const RetNetModel<Scalar>& small_model() {
  static const RetNetModel<Scalar> model(small_config(), Seed{11});
  return model;
}

Text some_text(Index length, std::uint64_t stream) {
  const auto tokens = test::random_indices(length, 50, stream);
  return {tokens.begin(), tokens.end()};
}

GenerateConfig sampled(std::uint64_t seed) {
  return {.sampler = {.temperature = 0.9, .top_k = 30, .repetition_penalty = 1.1}, .seed = {seed}};
}
GenerateConfig greedy() { return {.sampler = {.temperature = 0.0}}; }

template <class S, class W>
Text generate(Session<S, W>& session, int count) {
  Text out;
  for (int i = 0; i < count; ++i) {
    const auto token = session.next();
    if (!token) break;
    out.push_back(*token);
  }
  return out;
}

template <class S, class W>
void expect_same_state(const Session<S, W>& a, const Session<S, W>& b) {
  ASSERT_EQ(a.state().layers.size(), b.state().layers.size());
  for (std::size_t l = 0; l < a.state().layers.size(); ++l) {
    EXPECT_TRUE(test::same_bits(a.state().layers[l].retention().flat(), b.state().layers[l].retention().flat()));
    for (Index i = 0; i < a.sequences(); ++i)
      EXPECT_EQ(a.state().position(i), b.state().position(i));
  }
}

TEST(Session, TheSeedDecidesTheText) {
  const auto text_of = [](std::uint64_t seed) {
    Session session(small_model(), sampled(seed));
    session.prompt(some_text(10, 1));
    return generate(session, 60);
  };
  const Text one = text_of(1);
  EXPECT_EQ(one.size(), 60U);
  EXPECT_EQ(one, text_of(1));
  EXPECT_NE(one, text_of(2));
}

TEST(Session, DrawsAreTheSamplersOfTheModelsLogits) {
  const auto config = sampled(3);
  Session session(small_model(), config);
  const Text prompt = some_text(9, 2);
  session.prompt(prompt);
  const Text given = generate(session, 20);

  Text text = prompt;
  Sampler sampler(config.sampler, 50);
  for (std::uint64_t n = 0; n < 20; ++n) {
    using Rows = Eigen::Matrix<Token, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Rows tokens = Eigen::Map<const Rows>(text.data(), 1, static_cast<Index>(text.size()));
    const auto logits = small_model().forward_parallel(tokens);  // [T,V]
    const std::span<const float> last(logits.data() + (logits.rows() - 1) * 50, 50);
    text.push_back(sampler(last, text, uniform(config.seed, 0, n)));  // shorter than the window
  }
  EXPECT_EQ(given, Text(text.begin() + 9, text.end()));
}

TEST(Session, ThePenaltyForgetsWhatLeftTheWindow) {
  auto config = greedy();
  config.sampler.repetition_penalty = 1e9;  // never again, while it is in the window
  config.sampler.repetition_window = 5;
  Session session(small_model(), config);
  session.prompt(some_text(3, 3));
  Text text = some_text(3, 3);
  for (const Token t : generate(session, 60)) text.push_back(t);
  bool came_back = false;
  for (std::size_t i = 0; i < text.size(); ++i)
    for (std::size_t j = i + 1; j < text.size(); ++j) {
      if (text[i] != text[j] || j < 3) continue;  // the prompt may repeat itself
      came_back = true;
      EXPECT_GT(j - i, 5U) << "tokens " << i << " and " << j;
    }
  EXPECT_TRUE(came_back);
}

template <class S>
class SessionOf : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(SessionOf, Scalars);

TYPED_TEST(SessionOf, APromptInPiecesIsThePromptInOnePiece) {
  const auto& model = small_model<TypeParam>();
  const Text text = some_text(150, 4);
  Session whole(model, greedy());
  whole.prompt(text);
  Session one_by_one(model, greedy());
  for (const Token& t : text) one_by_one.prompt({&t, 1});
  EXPECT_LT(test::relative_error(one_by_one.logits(), whole.logits()),
            test::tolerance<TypeParam>());
  for (const std::size_t split : {1U, 63U, 64U, 65U, 149U}) {
    Session pieces(model, greedy());
    pieces.prompt(std::span(text).first(split));
    pieces.prompt(std::span(text).subspan(split));
    EXPECT_LT(test::relative_error(pieces.logits(), whole.logits()), test::tolerance<TypeParam>());
    EXPECT_EQ(pieces.state().position(), 150);
  }
  for (const Index chunk : {Index{1}, Index{17}, Index{500}}) {
    auto config = greedy();
    config.prefill_chunk = chunk;
    Session other(model, config);
    other.prompt(text);
    EXPECT_LT(test::relative_error(other.logits(), whole.logits()), test::tolerance<TypeParam>());
  }
}

TYPED_TEST(SessionOf, WhatWasDrawnIsPartOfTheTextThatTheNextPromptContinues) {
  const auto& model = small_model<TypeParam>();
  const Text question = some_text(12, 5), answer_to = some_text(7, 6);
  Session session(model, greedy());
  session.prompt(question);
  const Text drawn = generate(session, 4);
  session.prompt(answer_to);

  Text all = question;
  all.insert(all.end(), drawn.begin(), drawn.end());
  all.insert(all.end(), answer_to.begin(), answer_to.end());
  Session read(model, greedy());
  read.prompt(all);
  EXPECT_EQ(session.state().position(), 23);
  EXPECT_LT(test::relative_error(session.logits(), read.logits()), test::tolerance<TypeParam>());
}

TEST(Session, ManySequencesAreManySessionsOfOne) {
  const std::array<Index, 4> lengths{1, 70, 5, 64};
  std::vector<Text> texts;
  std::vector<std::span<const Token>> views;
  for (std::size_t i = 0; i < 4; ++i) texts.push_back(some_text(lengths[i], 10 + i));
  for (const auto& t : texts) views.emplace_back(t);

  Session batch(small_model(), greedy(), 4);
  batch.prompt(views);
  std::vector<Text> given(4);
  for (int n = 0; n < 30; ++n) {
    const auto tokens = batch.next_all();
    for (std::size_t i = 0; i < 4; ++i) given[i].push_back(tokens[i]);
  }
  for (std::size_t i = 0; i < 4; ++i) {
    Session alone(small_model(), greedy());
    alone.prompt(texts[i]);
    EXPECT_EQ(generate(alone, 30), given[i]);
    EXPECT_TRUE(test::same_bits(alone.logits(), batch.logits(static_cast<Index>(i))))
        << "neighbours change the bits of sequence " << i;
    EXPECT_EQ(batch.state().position(static_cast<Index>(i)), lengths[i] + 29);
  }
}

TEST(Session, InterleavedSessionsDoNotSeeEachOther) {
  const Text first = some_text(20, 20), second = some_text(33, 21);
  const auto alone = [](const Text& prompt, std::uint64_t seed) {
    Session session(small_model(), sampled(seed));
    session.prompt(prompt);
    return generate(session, 40);
  };
  Session a(small_model(), sampled(1)), b(small_model(), sampled(2));
  Text from_a, from_b;
  a.prompt(first);
  b.prompt(second);
  for (int i = 0; i < 40; ++i) {
    from_a.push_back(a.next().value());
    from_b.push_back(b.next().value());
  }
  EXPECT_EQ(from_a, alone(first, 1));
  EXPECT_EQ(from_b, alone(second, 2));
}

TEST(Session, ThreadsShareOneModel) {
  const Text prompt = some_text(80, 22);
  const auto run = [&](Text& out, Buffer<float>& logits) {
    Session session(small_model(), sampled(4));
    session.prompt(prompt);
    out = generate(session, 200);
    logits.resize(50);
    std::copy_n(session.logits().data(), 50, logits.data());
  };
  std::array<Text, 3> texts;
  std::array<Buffer<float>, 3> logits;
  run(texts[0], logits[0]);
  {
    std::thread one([&] { run(texts[1], logits[1]); });
    std::thread two([&] { run(texts[2], logits[2]); });
    one.join();
    two.join();
  }
  for (std::size_t i = 1; i < 3; ++i) {
    EXPECT_EQ(texts[i], texts[0]);
    EXPECT_TRUE(test::same_bits(logits[i], logits[0]));
  }
}

TEST(Session, AForkGoesOnIdenticallyAndByItself) {
  Session session(small_model(), sampled(5));
  session.prompt(some_text(15, 23));
  generate(session, 10);
  Session copy = session.fork();
  Session snapshot = session.fork();
  const Text original = generate(session, 40);
  EXPECT_EQ(generate(copy, 40), original);
  expect_same_state(copy, session);

  copy.prompt(some_text(5, 24));  // another branch, then back to the snapshot
  generate(copy, 5);
  session = std::move(snapshot);
  EXPECT_EQ(generate(session, 40), original);
}

TEST(Session, AStopTokenEndsTheSequence) {
  Session free(small_model(), greedy());
  free.prompt(some_text(8, 25));
  const Text text = generate(free, 20);
  auto config = greedy();
  config.stop = {49, text[6]};
  std::size_t first = 0;
  while (text[first] != text[6] && text[first] != 49) ++first;

  Session session(small_model(), config);
  session.prompt(some_text(8, 25));
  EXPECT_EQ(generate(session, 20), Text(text.begin(), text.begin() + static_cast<Index>(first)));
  EXPECT_TRUE(session.finished());
  EXPECT_EQ(session.next(), std::nullopt);
  EXPECT_EQ(session.next(), std::nullopt);

  const Text more = some_text(4, 26);  // text may follow; the stop token was read once
  session.prompt(more);
  EXPECT_FALSE(session.finished());
  EXPECT_EQ(session.state().position(), static_cast<Index>(8 + first + 1 + 4));
  EXPECT_TRUE(session.next().has_value());
}

TEST(Session, ASequenceThatStopsRepeatsItsStopTokenWhileOthersGoOn) {
  const Text a = some_text(8, 27), b = some_text(8, 28);
  const auto run = [&](const GenerateConfig& config) {
    Session session(small_model(), config, 2);
    const std::array<std::span<const Token>, 2> texts{a, b};
    session.prompt(texts);
    std::array<Text, 2> out;
    for (int n = 0; n < 12; ++n) {
      const auto tokens = session.next_all();
      for (std::size_t i = 0; i < 2; ++i) out[i].push_back(tokens[i]);
    }
    return out;
  };
  auto config = greedy();
  const auto free = run(config);
  const Token stop = free[0][3];
  config.stop = {stop};
  const auto stopped = run(config);
  for (std::size_t i = 0; i < 2; ++i) {
    bool ended = false;
    for (std::size_t n = 0; n < 12; ++n) {
      EXPECT_EQ(stopped[i][n], ended ? stop : free[i][n]);
      ended = ended || free[i][n] == stop;
    }
    EXPECT_EQ(ended, i == 0) << "the two texts are chosen so that only the first one stops";
  }
}

TEST(Session, NextAllocatesNothing) {
  Session session(small_model(), sampled(6), 2);
  const Text a = some_text(3, 30), b = some_text(90, 31);
  const std::array<std::span<const Token>, 2> texts{a, b};
  session.prompt(texts);
  session.next_all();
  session.next_all();
  const std::size_t bytes = session.state().bytes();
  EXPECT_EQ(test::count_allocations([&] {
              for (int n = 0; n < 300; ++n) session.next_all();
            }),
            0);
  EXPECT_EQ(session.state().bytes(), bytes);
  Session copy = session.fork();
  EXPECT_EQ(test::count_allocations([&] {
              for (int n = 0; n < 300; ++n) copy.next_all();
            }),
            0)
      << "after a fork";
}

TEST(Session, WeightsMayBeStoredInBfloat16) {
  const auto stored = small_model().weight_buffer().cast<bfloat16>();
  const auto compact = small_model().with_weights(stored);
  const auto widened = small_model().with_weights(stored.cast<float>());
  Session a(compact, sampled(7));
  Session b(widened, sampled(7));
  a.prompt(some_text(70, 32));
  b.prompt(some_text(70, 32));
  EXPECT_LT(test::relative_error(a.logits(), b.logits()), 1e-5);
  EXPECT_EQ(generate(a, 20), generate(b, 20));
}

TEST(Session, ErrorsSayWhatWasGivenAndWhatWasExpected) {
  using test::message_of;
  Session one(small_model()), two(small_model(), {}, 2);
  const Text text{1, 2, 3}, wrong{1, 50};
  const std::string next = "[Session] next: ";
  EXPECT_EQ(message_of([&] { one.next(); }),
            next + "nothing was read, expected a prompt of at least one token");
  EXPECT_EQ(message_of([&] { two.next_all(); }),
            next + "nothing was read, expected a prompt of at least one token");
  EXPECT_EQ(message_of([&] { two.next(); }),
            next + "the session holds 2 sequences, expected 1: use next_all");
  EXPECT_EQ(message_of([&] { two.prompt(text); }),
            "[Session] prompt: one text for 2 sequences, expected one text each");
  const std::array<std::span<const Token>, 1> texts{text};
  EXPECT_EQ(message_of([&] { two.prompt(texts); }), "[Session] prompt: 1 texts for 2 sequences");
  EXPECT_EQ(message_of([&] { one.prompt(std::span<const Token>()); }),
            "[Session] prompt: a text has no tokens, expected at least one");
  EXPECT_NE(message_of([&] { one.prompt(wrong); }).find("token 50 at row 1"), std::string::npos);
  EXPECT_EQ(message_of([&] { Session(small_model(), {.prefill_chunk = 0}); }),
            "[Session] prefill_chunk = 0, expected at least 1");
  EXPECT_EQ(message_of([&] { Session(small_model(), {.sampler = {.top_p = 0.0}}); }),
            "[SamplerConfig] top_p = 0, expected in (0, 1]");

  one.prompt(text);  // an error leaves the session as it was
  Session same = one.fork();
  EXPECT_THROW(one.prompt(wrong), std::invalid_argument);
  expect_same_state(one, same);
  EXPECT_EQ(generate(one, 10), generate(same, 10));
}

}  // namespace
}  // namespace retnet
