// SPDX-License-Identifier: MIT
// The training loop of byte_lm: a time box, a live line, a checkpoint when interrupted.
#pragma once

#include <chrono>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "byte_lm/options.hpp"
#include "common/corpus.hpp"
#include "common/progress.hpp"
#include "retnet/io/training_checkpoint.hpp"
#include "retnet/retnet.hpp"

namespace byte_lm {

using retnet::Index;
using Trainer = retnet::Trainer<float>;
using Model = retnet::RetNetModel<float>;
using Bytes = std::span<const std::uint8_t>;

inline double bits(double nats) { return nats / std::log(2.0); }

// Small enough for minutes on two cores, deep enough to spell.
inline retnet::RetNetConfig model_config() {
  return retnet::presets::torchscale_v2(
      {.vocab = 256, .d_model = 128, .layers = 3, .heads = 2, .d_value = 256, .ffn = 384});
}

inline constexpr Index kBatch = 4;
inline constexpr Index kLength = 256;
inline constexpr double kSaveEvery = 30.0;  // seconds
inline constexpr retnet::CosineSchedule kSchedule{.peak = 4e-3, .warmup = 0.03, .floor = 0.02};

struct TrainPoint {
  double seconds = 0.0;
  double bits_per_byte = 0.0;  // mean since the point before
};

struct TrainLog {
  std::vector<TrainPoint> points;
  double seconds = 0.0;
  Index tokens = 0;
  bool interrupted = false;

  double tokens_per_second() const {
    return seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0;
  }
};

// Bits per byte of a text, read in one go: the state is carried from segment to segment.
inline double bits_per_byte(retnet::Cpu& ctx, const Model& model, Bytes text) {
  constexpr Index kSegment = 4096;
  auto state = model.initial_state();
  retnet::LossSum total;
  std::vector<retnet::Token> tokens(text.begin(), text.end());
  const auto size = static_cast<Index>(tokens.size());
  for (Index i = 0; i + 1 < size; i += kSegment) {
    const Index n = std::min(kSegment, size - 1 - i);
    const auto part = model.loss(
        ctx, model.weights(), {retnet::Form::chunkwise(), retnet::Sequences::dense(1, n)},
        {tokens.data() + i, {1, n}}, {tokens.data() + i + 1, {1, n}}, &state);
    total.sum += part.sum;
    total.rows += part.rows;
  }
  return bits(total.mean());
}

inline std::filesystem::path checkpoint_path(const Options& o) {
  return o.out / "checkpoint.safetensors";
}

inline void save(const Options& o, const Trainer& trainer, const TrainLog& log) {
  retnet::save_training(checkpoint_path(o), trainer,
                        {{"seconds", log.seconds},
                         {"tokens", static_cast<double>(log.tokens)},
                         {"seed", static_cast<double>(o.seed)}});
}

// The run goes on where it stopped: its seed, its step, its place in the schedule.
inline void resume(Options& o, Trainer& trainer, TrainLog& log) {
  const auto counters = retnet::load_training(checkpoint_path(o), trainer);
  log.seconds = counters.at("seconds");
  log.tokens = static_cast<Index>(counters.at("tokens"));
  o.seed = static_cast<std::uint64_t>(counters.at("seed"));
}

inline TrainLog train(retnet::Cpu& ctx, Trainer& trainer, Bytes text, const Options& o,
                      TrainLog log) {
  using Clock = std::chrono::steady_clock;
  const double limit = o.minutes * 60.0, before = log.seconds;
  const retnet::RandomCrops<std::uint8_t> crops(text, kBatch, kLength, {o.seed + 1});
  const auto start = Clock::now();
  examples::InterruptGuard interrupt;
  examples::ProgressLine line;
  retnet::Batch batch;
  double recent = 0.0, sum = 0.0, saved = before;
  int counted = 0;
  while (log.seconds < limit && !interrupt.requested()) {
    crops.fill(trainer.step(), batch);
    const auto report = trainer.step(ctx, batch, kSchedule.at(log.seconds / limit));
    log.seconds = before + std::chrono::duration<double>(Clock::now() - start).count();
    log.tokens += report.tokens;
    recent = recent == 0.0 ? report.loss : 0.95 * recent + 0.05 * report.loss;
    sum += report.loss;
    ++counted;
    const double gap = log.points.empty() ? 0.0 : log.points.back().seconds;
    if (log.seconds - gap >= limit / 100) {
      log.points.push_back({log.seconds, bits(sum / counted)});
      sum = 0.0;
      counted = 0;
    }
    if (log.seconds - saved >= kSaveEvery) {
      save(o, trainer, log);
      saved = log.seconds;
    }
    line.update(log.seconds / limit,
                {{"", examples::format_count(log.tokens_per_second()) + " tokens/s"},
                 {"loss", std::to_string(bits(recent)).substr(0, 5) + " bits/byte"},
                 {"ETA", examples::format_duration(std::max(0.0, limit - log.seconds))},
                 {"step", std::to_string(trainer.step())}});
  }
  line.finish();
  log.interrupted = interrupt.requested();
  return log;
}

}  // namespace byte_lm
