// SPDX-License-Identifier: MIT
// The feed-forward part: both kinds against the formula written out, and its backward.

#include "retnet/layers/feed_forward.hpp"

#include <gtest/gtest.h>

#include "layers/errors.hpp"
#include "layers/variants.hpp"
#include "support/gradcheck.hpp"

namespace retnet::test {
namespace {

double act(Activation kind, double x) {
  switch (kind) {
    case Activation::identity: return x;
    case Activation::relu: return std::fmax(x, 0.0);
    case Activation::gelu: return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::swish: return x / (1.0 + std::exp(-x));
    case Activation::sigmoid: return 1.0 / (1.0 + std::exp(-x));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / 3.14159265358979323846) *
                                        (x + 0.044715 * x * x * x)));
  }
  return 0.0;
}

constexpr Index kRows = 7, kWidth = 6, kHidden = 11;

struct Built {
  ParamLayout layout;
  FeedForward<double> part;
  ParamBuffer<double> weights;
  explicit Built(const FeedForwardConfig& config)
      : part(config, layout, "ffn."), weights(random_weights<double>(layout)) {}
  double at(const char* name, Index r, Index c) const {
    const auto* entry = layout.find(std::string("ffn.") + name);
    return entry ? weights[entry->place](r, c) : 0.0;
  }
};

void normalise(const FeedForwardConfig& config, const Built& b, std::vector<double>& row) {
  const auto n = static_cast<double>(row.size());
  double mean = 0.0, square = 0.0;
  if (config.sub_norm == NormKind::layer)
    for (const double h : row) mean += h / n;
  for (const double h : row) square += (h - mean) * (h - mean) / n;
  for (std::size_t i = 0; i < row.size(); ++i)
    row[i] = (row[i] - mean) / std::sqrt(square + config.sub_norm_eps) *
                 b.at("sub_norm.weight", 0, static_cast<Index>(i)) +
             b.at("sub_norm.bias", 0, static_cast<Index>(i));
}

std::vector<FeedForwardConfig> configs() {
  std::vector<FeedForwardConfig> out;
  for (const auto kind : {FeedForwardKind::mlp, FeedForwardKind::glu})
    for (const auto activation : {Activation::identity, Activation::relu, Activation::gelu,
                                  Activation::swish, Activation::sigmoid, Activation::gelu_tanh})
      for (const bool bias : {false, true})
        out.push_back({.d_model = kWidth,
                       .hidden = kHidden,
                       .kind = kind,
                       .activation = activation,
                       .bias = bias});
  for (const auto norm : {NormKind::rms, NormKind::layer})
    for (const auto kind : {FeedForwardKind::mlp, FeedForwardKind::glu})
      out.push_back({.d_model = kWidth,
                     .hidden = kHidden,
                     .kind = kind,
                     .bias = true,
                     .sub_norm = norm,
                     .sub_norm_eps = 1e-3});
  return out;
}

template <class Context>
Buffer<double> forward(Context& ctx, const Built& b, const Pass& pass, const Buffer<double>& x,
                       FeedForward<double>::Saved* saved = nullptr) {
  Buffer<double> y(x.size());
  b.part.forward_rows(ctx, b.weights.ref(), pass, Window<const double>(x.data(), kRows, kWidth),
                      Window<double>(y.data(), kRows, kWidth), saved);
  return y;
}

TEST(FeedForward, IsTheFormula) {
  const auto sequences = Sequences::dense(1, kRows);
  const auto x = random_normal<double>(kRows * kWidth, 1);
  for (const auto& config : configs()) {
    const Built b(config);
    Cpu ctx;
    Reference plain;
    const auto y = forward(ctx, b, {Form::parallel(), sequences}, x);
    EXPECT_LE(relative_error(forward(plain, b, {Form::parallel(), sequences}, x), y), 1e-14);
    for (Index r = 0; r < kRows; ++r) {
      std::vector<double> hidden;
      for (Index h = 0; h < kHidden; ++h) {
        double a = b.at("fc1.bias", 0, h), u = b.at("gate.bias", 0, h);
        for (Index i = 0; i < kWidth; ++i) {
          a += b.at("fc1.weight", h, i) * x[r * kWidth + i];
          u += b.at("gate.weight", h, i) * x[r * kWidth + i];
        }
        if (config.kind == FeedForwardKind::mlp) u = 1.0;
        hidden.push_back(act(config.activation, a) * u);
      }
      if (config.sub_norm != NormKind::none) normalise(config, b, hidden);
      for (Index o = 0; o < kWidth; ++o) {
        double sum = b.at("fc2.bias", 0, o);
        for (Index h = 0; h < kHidden; ++h)
          sum += b.at("fc2.weight", o, h) * hidden[static_cast<std::size_t>(h)];
        EXPECT_NEAR(y[r * kWidth + o], sum, 1e-13);
      }
    }
  }
}

TEST(FeedForward, BackwardMatchesFiniteDifferences) {
  const auto sequences = Sequences::dense(1, kRows);
  const DropoutKey key{Seed{3}, 4};
  const auto c = random_normal<double>(kRows * kWidth, 2);
  for (auto config : configs())
    for (const double rate : {0.0, 0.3}) {
      config.activation_dropout = rate;
      Built b(config);
      auto x = random_normal<double>(kRows * kWidth, 1);
      Cpu ctx;
      const Pass pass{Form::parallel(), sequences, &key, 2};
      FeedForward<double>::Saved saved;
      forward(ctx, b, pass, x, &saved);
      ParamBuffer<double> dw(b.layout);
      Buffer<double> dx(x.size());
      dx.fill(1.0);
      const double beta = 0.5;  // dx = gradient + beta dx
      b.part.backward_rows(ctx, b.weights.ref(), pass,
                           Window<const double>(x.data(), kRows, kWidth), saved,
                           Window<const double>(c.data(), kRows, kWidth), dw.ref(),
                           Window<double>(dx.data(), kRows, kWidth), beta);
      for (double& d : dx) d -= beta;
      const auto loss = [&] {
        const auto y = forward(ctx, b, pass, x);
        double sum = 0.0;
        for (Index i = 0; i < y.size(); ++i) sum += c[i] * y[i];
        return sum;
      };
      EXPECT_LE(gradient_error(x.span(), std::as_const(dx).span(), loss), 1e-6);
      for (const auto& entry : b.layout.entries()) {
        const auto n = static_cast<std::size_t>(entry.place.size());
        EXPECT_LE(gradient_error({b.weights[entry.place].data, n},
                                 std::span<const double>(dw[entry.place].data, n), loss),
                  1e-6)
            << entry.name;
      }
    }
}

TEST(FeedForward, RefusesWhatDoesNotFit) {
  ParamLayout layout;
  expect_error([&] { FeedForward<float>({.d_model = 0}, layout, ""); },
               {"FeedForward", "d_model = 0"});
  expect_error([&] { FeedForward<float>({.d_model = 4, .hidden = -1}, layout, ""); },
               {"FeedForward", "hidden = -1", "mend: "});
  for (const double rate : {-0.1, 1.0, std::nan("")})
    expect_error(
        [&] { FeedForward<float>({.d_model = 4, .activation_dropout = rate}, layout, ""); },
        {"FeedForward", "activation_dropout = ", "[0, 1)"});
  expect_error([&] { FeedForward<float>({.d_model = 4, .sub_norm_eps = -1.0}, layout, ""); },
               {"FeedForward", "sub_norm_eps = -1"});
  EXPECT_EQ((FeedForwardConfig{.d_model = 5}.width()), 10);
}

}  // namespace
}  // namespace retnet::test
