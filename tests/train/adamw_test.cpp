// SPDX-License-Identifier: MIT
#include "retnet/train/adamw.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/compare.hpp"
#include "support/count_allocations.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"

namespace retnet {
namespace {

ParamLayout two_kinds() {
  ParamLayout layout;
  layout.add("matrix", 70, 130, {});
  layout.add("vector", 1, 33, {}, false);
  return layout;
}

/// The published algorithm with its bias corrections written out, one number at a time.
struct Plain {
  AdamWConfig config;
  std::vector<double> w, m, v;
  int t = 0;

  void step(double lr, std::span<const double> g, const std::vector<bool>& decays) {
    ++t;
    for (std::size_t i = 0; i < w.size(); ++i) {
      m[i] = config.beta1 * m[i] + (1 - config.beta1) * g[i];
      v[i] = config.beta2 * v[i] + (1 - config.beta2) * g[i] * g[i];
      const double m_hat = m[i] / (1 - std::pow(config.beta1, t));
      const double v_hat = v[i] / (1 - std::pow(config.beta2, t));
      const double decay = decays[i] ? config.weight_decay * w[i] : 0.0;
      w[i] -= lr * (m_hat / (std::sqrt(v_hat) + config.eps) + decay);
    }
  }
};

template <class S>
class AdamWOf : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(AdamWOf, Scalars);

TYPED_TEST(AdamWOf, MatchesThePublishedAlgorithm) {
  const ParamLayout layout = two_kinds();
  const AdamWConfig config{.beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1};
  ParamBuffer<TypeParam> weights(layout), gradient(layout);
  std::vector<bool> decays(static_cast<std::size_t>(layout.size()), false);
  for (const auto& e : layout.entries())
    for (Index i = 0; i < e.place.size(); ++i) {
      weights[e.place].data[i] =
          static_cast<TypeParam>(normal(Seed{1}, 0, static_cast<std::uint64_t>(i)));
      decays[static_cast<std::size_t>(e.place.offset + i)] = e.decays;
    }
  const auto size = static_cast<std::size_t>(layout.size());
  Plain plain{config,
              {weights.flat().begin(), weights.flat().end()},
              std::vector<double>(size),
              std::vector<double>(size)};
  AdamW<TypeParam> adamw(config, layout);
  Cpu ctx;
  for (int t = 0; t < 20; ++t) {
    for (const auto& e : layout.entries())
      test::fill_normal(std::span(gradient[e.place].data, static_cast<std::size_t>(e.place.size())),
                        static_cast<std::uint64_t>(100 + t), 0.01);
    const double lr = 0.01 / (t + 1);
    const std::vector<double> g(gradient.flat().begin(), gradient.flat().end());
    adamw.step(ctx, lr, weights, gradient);
    plain.step(lr, g, decays);
  }
  const double bound = std::is_same_v<TypeParam, float> ? 1e-6 : 1e-14;
  using Span = std::span<const TypeParam>;
  using Plainly = std::span<const double>;
  EXPECT_LT(test::relative_error(Span(weights.flat()), Plainly(plain.w)), bound);
  EXPECT_LT(test::relative_error(Span(adamw.first_moment().flat()), Plainly(plain.m)), bound);
  EXPECT_LT(test::relative_error(Span(adamw.second_moment().flat()), Plainly(plain.v)), bound);
  EXPECT_EQ(adamw.steps(), 20);
}

TEST(AdamW, TwoStepsByHand) {
  ParamLayout layout;
  const Param place = layout.add("w", 1, 1, {});
  ParamBuffer<double> w(layout), g(layout);
  w[place](0, 0) = 1.0;
  AdamW<double> adamw({.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.5}, layout);
  Cpu ctx;
  g[place](0, 0) = 0.5;
  adamw.step(ctx, 0.1, w, g);  // m^ = 0.5, v^ = 0.25: w = 1 - 0.1 (0.5 / (0.5 + 1e-8) + 0.5)
  EXPECT_NEAR(w[place](0, 0), 0.850000002, 1e-15);
  EXPECT_NEAR(adamw.first_moment()[place](0, 0), 0.05, 1e-16);
  EXPECT_NEAR(adamw.second_moment()[place](0, 0), 0.005, 1e-17);
  g[place](0, 0) = -1.0;
  adamw.step(ctx, 0.2, w, g);  // m = -0.055, m^ = -0.055 / 0.19; v = 0.0249, v^ = 0.0249 / 0.0396
  const double m = -0.055 / 0.19, v = 0.0249 / 0.0396;
  EXPECT_NEAR(w[place](0, 0), 0.850000002 - 0.2 * (m / (std::sqrt(v) + 1e-8) + 0.5 * 0.850000002),
              1e-14);
}

TEST(AdamW, DecaysMatricesOnly) {
  const ParamLayout layout = two_kinds();
  ParamBuffer<double> weights(layout), zero(layout);
  for (const auto& e : layout.entries())
    for (Index i = 0; i < e.place.size(); ++i) weights[e.place].data[i] = 2.0;
  AdamW<double> adamw({.weight_decay = 0.05}, layout);
  Cpu ctx;
  adamw.step(ctx, 0.1, weights, zero);
  const auto entries = layout.entries();
  for (Index i = 0; i < entries[0].place.size(); ++i)
    EXPECT_DOUBLE_EQ(weights[entries[0].place].data[i], 2.0 * (1.0 - 0.1 * 0.05));
  for (Index i = 0; i < entries[1].place.size(); ++i)
    EXPECT_EQ(weights[entries[1].place].data[i], 2.0);
}

TEST(AdamW, DoesNotDependOnTheThreads) {
  const ParamLayout layout = two_kinds();
  ParamBuffer<float> gradient(layout), one(layout), three(layout);
  test::fill_normal(gradient.flat(), 1);
  test::fill_normal(one.flat(), 2);
  three = one;
  AdamW<float> a({}, layout), b({}, layout);
  Cpu single(1), several(3);
  for (int t = 0; t < 3; ++t) {
    a.step(single, 0.01, one, gradient);
    b.step(several, 0.01, three, gradient);
  }
  EXPECT_TRUE(test::same_bits<float>(one.flat(), three.flat()));
}

TEST(AdamW, AStepAllocatesNothing) {
  const ParamLayout layout = two_kinds();
  ParamBuffer<float> weights(layout), gradient(layout);
  AdamW<float> adamw({}, layout);
  Cpu ctx;
  adamw.step(ctx, 0.01, weights, gradient);
  EXPECT_EQ(test::count_allocations([&] { adamw.step(ctx, 0.01, weights, gradient); }), 0);
}

TEST(AdamW, ErrorsNameTheFieldAndTheValue) {
  const ParamLayout layout = two_kinds();
  const auto message = [&](const AdamWConfig& config) {
    return test::message_of([&] { AdamW<float>(config, layout); });
  };
  EXPECT_EQ(message({.beta1 = 1.0}), "[AdamWConfig] beta1 = 1, expected in [0, 1)");
  EXPECT_EQ(message({.beta2 = -0.1}), "[AdamWConfig] beta2 = -0.1, expected in [0, 1)");
  EXPECT_EQ(message({.eps = 0.0}), "[AdamWConfig] eps = 0, expected > 0");
  EXPECT_EQ(message({.weight_decay = std::numeric_limits<double>::infinity()}),
            "[AdamWConfig] weight_decay = inf, expected >= 0");
}

}  // namespace
}  // namespace retnet
