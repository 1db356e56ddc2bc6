// The layer inside a model of your own: an Eigen model that cleans noisy signals and trains itself.
// It must remove three quarters of the noise, on batches and then on a long live signal.
//
//   h = x W_in + bias      y = h + retention(h)      estimate = y W_out
#include <cmath>
#include <cstdio>
#include <random>

#include "retnet/layers/multi_scale_retention.hpp"
#include "retnet/train/adamw.hpp"

using retnet::Form, retnet::Index, retnet::Sequences;
using Retention = retnet::MultiScaleRetention<float>;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;  // [B*T,C]
using Signal = Eigen::VectorXf;                                                      // [B*T]
using Row = Eigen::Map<Eigen::RowVectorXf>;

constexpr Index kBatch = 8, kTokens = 128, kWidth = 16;
constexpr float kNoise = 0.5F;  // standard deviation

/// Sine waves of random frequency and phase, each `length` samples long, without and with noise.
void make_signals(std::mt19937& random, Index length, Signal& clean, Signal& noisy) {
  std::normal_distribution<float> noise(0, kNoise);
  std::uniform_real_distribution<float> frequency(0.02F, 0.1F), phase(0, 6.28F);
  for (Index first = 0; first < clean.size(); first += length) {
    const float f = frequency(random), p = phase(random);
    for (Index t = 0; t < length; ++t) {
      clean[first + t] = std::sin(f * static_cast<float>(t) + p);
      noisy[first + t] = clean[first + t] + noise(random);
    }
  }
}

Row row(retnet::Window<float> w) { return {w.data, w.cols}; }

int main() {
  // Your parameters and the layer's lie in one flat buffer, so that one optimiser serves them all.
  retnet::ParamLayout layout;
  const auto in = layout.add("in", 1, kWidth, {retnet::Init::Kind::normal, 1.0});
  const auto bias = layout.add("bias", 1, kWidth, {});
  // Memories of about 2, 5, 10 and 30 samples; no head norm, as the size of a value matters here.
  retnet::RetentionConfig config{.d_model = kWidth, .heads = 4};
  config.decay = retnet::DecayKind::values;
  config.gamma = {0.6, 0.8, 0.9, 0.97};
  config.head_norm = retnet::NormKind::none;
  const Retention retention(config, layout, "retention.");
  const auto out = layout.add("out", 1, kWidth, {retnet::Init::Kind::normal, 0.1});
  retnet::ParamBuffer<float> w(layout), dw(layout);
  retnet::initialize(w, layout, retnet::Seed{1});
  retnet::AdamW<float> adamw({.weight_decay = 0.0}, layout);

  std::mt19937 random(1);
  retnet::Cpu ctx;
  constexpr Index kRows = kBatch * kTokens;
  Signal clean(kRows), noisy(kRows);
  Rows h(kRows, kWidth), r(kRows, kWidth), dh(kRows, kWidth);
  const retnet::Pass pass{Form::chunkwise(32), Sequences::dense(kBatch, kTokens)};
  Retention::Saved saved;  // what backward needs of forward
  float loss = 0;
  for (int step = 0; step <= 400; ++step) {
    make_signals(random, kTokens, clean, noisy);
    h = (noisy * row(w[in])).rowwise() + row(w[bias]);
    retention.forward(ctx, w.ref(), pass, h, nullptr, r, &saved);
    const Rows y = h + r;
    const Signal error = y * row(w[out]).transpose() - clean;
    loss = error.squaredNorm() / kRows;
    if (step % 100 == 0)
      std::printf("step %3d   mean squared error %.4f\n", step, static_cast<double>(loss));

    dw.zero();
    const Signal d = error * (2.0F / kRows);
    row(dw[out]) = d.transpose() * y;
    const Rows dy = d * row(w[out]);
    retention.backward(ctx, w.ref(), pass, h, saved, dy, dw.ref(), dh);
    dh += dy;  // the path around the layer
    row(dw[in]) = noisy.transpose() * dh;
    row(dw[bias]) = dh.colwise().sum();
    adamw.step(ctx, step < 300 ? 0.01 : 0.002, w, dw);
  }

  // Live: one sample in, one estimate out. The state is all that it keeps of the past.
  constexpr Index kSamples = 5000;
  Signal signal(kSamples), heard(kSamples);
  make_signals(random, kSamples, signal, heard);
  auto state = retention.initial_state();
  const retnet::Pass live{Form::recurrent(), Sequences::dense(1, 1)};
  Rows h1(1, kWidth), r1(1, kWidth);
  float live_loss = 0;
  for (Index t = 0; t < kSamples; ++t) {
    h1 = heard[t] * row(w[in]) + row(w[bias]);
    retention.forward(ctx, w.ref(), live, h1, &state, r1);
    const float error = (h1 + r1).row(0).dot(row(w[out])) - signal[t];
    live_loss += error * error / kSamples;
  }
  std::printf("live       mean squared error %.4f; of the noise: %.4f\n",
              static_cast<double>(live_loss), static_cast<double>(kNoise * kNoise));
  const float bound = kNoise * kNoise / 4;
  return loss < bound && live_loss < bound ? 0 : 1;
}
