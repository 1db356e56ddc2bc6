// SPDX-License-Identifier: MIT
#include "retnet/model/sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "support/count_allocations.hpp"
#include "support/message_of.hpp"

namespace retnet {
namespace {

using Tokens = std::vector<std::int32_t>;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// How often each token is drawn when the draws are a fine grid over [0, 1): the exact
/// probabilities, to 1 / kGrid.
constexpr int kGrid = 20000;
template <class S>
std::vector<double> frequencies(const SamplerConfig& config, const std::vector<S>& logits,
                                const Tokens& recent = {}) {
  Sampler sampler(config, static_cast<Index>(logits.size()));
  std::vector<double> out(logits.size(), 0.0);
  for (int i = 0; i < kGrid; ++i) {
    const auto token = sampler(std::span<const S>(logits), recent, (i + 0.5) / kGrid);
    out.at(static_cast<std::size_t>(token)) += 1.0 / kGrid;
  }
  return out;
}

std::set<int> kept(const SamplerConfig& config, const std::vector<double>& logits) {
  std::set<int> out;
  const auto f = frequencies(config, logits);
  for (std::size_t i = 0; i < f.size(); ++i)
    if (f[i] > 0.0) out.insert(static_cast<int>(i));
  return out;
}

/// Logits of the given probabilities, up to a constant.
std::vector<double> logits_of(const std::vector<double>& probabilities) {
  std::vector<double> out;
  for (const double p : probabilities) out.push_back(3.0 + std::log(p));
  return out;
}

std::vector<double> softmax(std::vector<double> z, double temperature) {
  double total = 0.0;
  for (double& v : z) total += v = std::exp(v / temperature);
  for (double& v : z) v /= total;
  return z;
}

template <class S>
std::int32_t greedy(const std::vector<S>& logits, const Tokens& recent = {}, double penalty = 1.0) {
  Sampler sampler({.temperature = 0.0, .repetition_penalty = penalty},
                  static_cast<Index>(logits.size()));
  return sampler(std::span<const S>(logits), recent, 0.999);
}

TEST(Sampler, TemperatureZeroTakesTheLargestAndTiesGoToTheLowerId) {
  EXPECT_EQ(greedy<double>({0.1, 2.0, -1.0, 1.9}), 1);
  EXPECT_EQ(greedy<float>({-5.0F, -4.0F, -3.0F}), 2);
  EXPECT_EQ(greedy<double>({0.0, 7.0, 7.0, 7.0}), 1);
  EXPECT_EQ(greedy<double>({4.0, 4.0}), 0);
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  const std::vector<double> logits{1.0, 0.0, -0.5, 2.0};
  for (const double temperature : {0.25, 0.8, 1.0, 3.0}) {
    const auto given = frequencies({.temperature = temperature}, logits);
    const auto expected = softmax(logits, temperature);
    for (std::size_t i = 0; i < logits.size(); ++i)
      EXPECT_NEAR(given[i], expected[i], 2.0 / kGrid) << "T = " << temperature << ", token " << i;
  }
  EXPECT_EQ(kept({.temperature = 1e-300}, logits), std::set<int>{3});
}

TEST(Sampler, TopKKeepsTheKLikeliest) {
  const std::vector<double> logits{0.3, 0.9, 0.1, 0.7, 0.5};
  EXPECT_EQ(kept({.top_k = 1}, logits), (std::set<int>{1}));
  EXPECT_EQ(kept({.top_k = 2}, logits), (std::set<int>{1, 3}));
  EXPECT_EQ(kept({.top_k = 4}, logits), (std::set<int>{0, 1, 3, 4}));
  EXPECT_EQ(kept({.top_k = 5}, logits), (std::set<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept({.top_k = 99}, logits), (std::set<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept({.top_k = 0}, logits), (std::set<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept({.top_k = 2}, {1.0, 1.0, 1.0}), (std::set<int>{0, 1})) << "ties";
}

TEST(Sampler, TopPKeepsTheFewestLikeliestThatReachP) {
  const auto logits = logits_of({0.2, 0.5, 0.05, 0.25});
  EXPECT_EQ(kept({.top_p = 0.01}, logits), (std::set<int>{1}));
  EXPECT_EQ(kept({.top_p = 0.49}, logits), (std::set<int>{1}));
  EXPECT_EQ(kept({.top_p = 0.51}, logits), (std::set<int>{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.74}, logits), (std::set<int>{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.76}, logits), (std::set<int>{0, 1, 3}));
  EXPECT_EQ(kept({.top_p = 0.96}, logits), (std::set<int>{0, 1, 2, 3}));
  EXPECT_EQ(kept({.top_p = 1.0}, logits), (std::set<int>{0, 1, 2, 3}));
}

TEST(Sampler, MinPKeepsWhatIsNotFarBelowTheLikeliest) {
  const auto logits = logits_of({0.2, 0.5, 0.05, 0.25});  // of the likeliest: 0.4, 1, 0.1, 0.5
  EXPECT_EQ(kept({.min_p = 0.09}, logits), (std::set<int>{0, 1, 2, 3}));
  EXPECT_EQ(kept({.min_p = 0.11}, logits), (std::set<int>{0, 1, 3}));
  EXPECT_EQ(kept({.min_p = 0.45}, logits), (std::set<int>{1, 3}));
  EXPECT_EQ(kept({.min_p = 0.51}, logits), (std::set<int>{1}));
  EXPECT_EQ(kept({.min_p = 1.0}, logits), (std::set<int>{1}));
}

TEST(Sampler, WhatIsKeptSharesTheProbability) {
  const auto logits = logits_of({0.2, 0.5, 0.05, 0.25});
  for (const SamplerConfig& config :
       {SamplerConfig{.top_k = 2}, SamplerConfig{.top_p = 0.7}, SamplerConfig{.min_p = 0.45}}) {
    const auto f = frequencies(config, logits);
    EXPECT_NEAR(f[1], 2.0 / 3.0, 2.0 / kGrid);
    EXPECT_NEAR(f[3], 1.0 / 3.0, 2.0 / kGrid);
  }
}

TEST(Sampler, TopPCountsOnlyWhatTopKLeft) {
  const auto logits = logits_of({0.4, 0.3, 0.2, 0.1});  // after top-k 2: 4/7, 3/7
  EXPECT_EQ(kept({.top_k = 2, .top_p = 0.5}, logits), (std::set<int>{0}));
  EXPECT_EQ(kept({.top_p = 0.5}, logits), (std::set<int>{0, 1}));
}

TEST(Sampler, FiltersSeeTheLogitsAfterTemperature) {
  const auto logits = logits_of({0.2, 0.5, 0.05, 0.25});
  EXPECT_EQ(kept({.temperature = 0.5, .min_p = 0.3}, logits), (std::set<int>{1}));  // 0.5^2 = 0.25
  EXPECT_EQ(kept({.temperature = 2.0, .min_p = 0.6}, logits), (std::set<int>{0, 1, 3}));
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  const std::vector<double> logits{1.0, -0.4, 0.8, -0.2};
  const Tokens recent{1, 0, 0, 1};  // a token counts once
  const auto given = frequencies({.repetition_penalty = 1.25}, logits, recent);
  const auto expected = softmax({0.8, -0.5, 0.8, -0.2}, 1.0);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(given[i], expected[i], 2.0 / kGrid);

  EXPECT_EQ(greedy(logits, recent, 1.25), 0) << "equal after the penalty: the lower id";
  EXPECT_EQ(greedy(logits, recent, 1.26), 2);
  EXPECT_EQ(greedy(logits, recent, 1.0), 0);
  const auto with_temperature =
      frequencies({.temperature = 0.5, .repetition_penalty = 1.25}, logits, recent);
  const auto then = softmax({0.8, -0.5, 0.8, -0.2}, 0.5);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(with_temperature[i], then[i], 2.0 / kGrid);
}

TEST(Sampler, FrequenciesOfRandomDrawsMatchTheProbabilities) {
  const std::vector<float> logits{0.5F, -1.0F, 2.0F, 0.0F, 1.0F, -3.0F, 1.5F, 0.25F};
  const auto expected = softmax({logits.begin(), logits.end()}, 0.9);
  Sampler sampler({.temperature = 0.9}, 8);
  constexpr int kDraws = 100000;
  std::vector<double> counts(8, 0.0);
  for (int n = 0; n < kDraws; ++n) {
    const double draw = uniform(Seed{5}, 0, static_cast<std::uint64_t>(n));
    counts[static_cast<std::size_t>(sampler(std::span<const float>(logits), {}, draw))] += 1.0;
  }
  double chi_square = 0.0;
  for (std::size_t i = 0; i < 8; ++i) {
    const double mean = kDraws * expected[i];
    chi_square += (counts[i] - mean) * (counts[i] - mean) / mean;
  }
  EXPECT_LT(chi_square, 24.3) << "above the 0.1 % quantile of 7 degrees of freedom";
}

TEST(Sampler, NeverDrawsALogitThatIsNoNumber) {
  const std::vector<double> logits{kNan, 1.0, -kInf, 0.0, kNan};
  EXPECT_EQ(kept({}, logits), (std::set<int>{1, 3}));
  EXPECT_EQ(kept({.top_k = 3}, logits), (std::set<int>{1, 3}));
  EXPECT_EQ(greedy(logits), 1);
  EXPECT_EQ(greedy(logits, {0, 1, 2, 3, 4}, 2.0), 1);
  const auto f = frequencies({}, logits);
  const auto expected = softmax({1.0, 0.0}, 1.0);
  EXPECT_NEAR(f[1], expected[0], 2.0 / kGrid);
}

TEST(Sampler, AnInfiniteLogitIsCertain) {
  EXPECT_EQ(kept({}, {0.0, kInf, 5.0}), (std::set<int>{1}));
  EXPECT_EQ(kept({.top_p = 0.9}, {kInf, 1.0, kInf}), (std::set<int>{0, 2}));
  EXPECT_EQ(greedy<double>({0.0, kInf, 5.0}), 1);
}

TEST(Sampler, ThrowsWhenNoLogitIsANumber) {
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature}, 2);
    const std::vector<double> logits{kNan, -kInf};
    EXPECT_EQ(test::message_of([&] { sampler(std::span<const double>(logits), {}, 0.5); }),
              "[Sampler::operator()] no logit is a number, expected at least one of 2");
  }
}

TEST(Sampler, DrawsAtTheEndsOfTheIntervalStayInside) {
  Sampler sampler({}, 3);
  const std::vector<double> logits{1.0, 2.0, 3.0};
  EXPECT_EQ(sampler(std::span<const double>(logits), {}, 0.0), 2);
  EXPECT_EQ(sampler(std::span<const double>(logits), {}, std::nextafter(1.0, 0.0)), 0);
}

TEST(Sampler, InvalidConfigsNameTheFieldAndTheValue) {
  const auto message = [](const SamplerConfig& config) {
    return test::message_of([&] { Sampler(config, 4); });
  };
  const std::string at = "[SamplerConfig] ";
  EXPECT_EQ(message({.temperature = -0.5}), at + "temperature = -0.5, expected >= 0");
  EXPECT_EQ(message({.temperature = kNan}).find(at + "temperature = "), 0U);
  EXPECT_EQ(message({.temperature = kInf}), at + "temperature = inf, expected >= 0");
  EXPECT_EQ(message({.top_k = -1}), at + "top_k = -1, expected >= 0");
  EXPECT_EQ(message({.top_p = 0.0}), at + "top_p = 0, expected in (0, 1]");
  EXPECT_EQ(message({.top_p = 1.5}), at + "top_p = 1.5, expected in (0, 1]");
  EXPECT_EQ(message({.min_p = -0.1}), at + "min_p = -0.1, expected in [0, 1]");
  EXPECT_EQ(message({.min_p = 1.1}), at + "min_p = 1.1, expected in [0, 1]");
  EXPECT_EQ(message({.repetition_penalty = 0.0}), at + "repetition_penalty = 0, expected > 0");
  EXPECT_EQ(message({.repetition_window = -2}), at + "repetition_window = -2, expected >= 0");
  EXPECT_EQ(test::message_of([] { Sampler(SamplerConfig{}, 0); }),
            "[Sampler::Sampler] vocab = 0, expected > 0");
}

TEST(Sampler, ADrawAllocatesNothing) {
  const std::vector<float> logits(500, 0.5F);
  const Tokens recent(64, 7);
  Sampler sampler({.top_k = 40, .top_p = 0.9, .min_p = 0.01, .repetition_penalty = 1.1}, 500);
  const long count = test::count_allocations([&] {
    for (int i = 0; i < 10; ++i) sampler(std::span<const float>(logits), recent, 0.1 * i);
  });
  EXPECT_EQ(count, 0);
}

}  // namespace
}  // namespace retnet
