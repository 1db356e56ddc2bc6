// SPDX-License-Identifier: MIT
// The pictures of byte_lm.
#pragma once

#include <cmath>
#include <string>

#include "byte_lm/report.hpp"
#include "common/svg.hpp"

namespace byte_lm {

struct Baselines {
  double ngram = 0.0;  // bits per byte of the held-out text
  std::optional<double> xz;
};

inline void draw_loss(const Options& o, const TrainLog& log, const Baselines& lines,
                      double validation) {
  examples::SvgChart chart{
      .title = "Learning to spell",
      .subtitle = "bits per byte; dashed: what other methods reach on the held-out text",
      .x = {.label = "training time", .unit = "s"},
      .y = {.label = "bits per byte"}};
  examples::SvgSeries training{.name = "RetNet, training text"};
  for (const auto& p : log.points) training.points.emplace_back(p.seconds, p.bits_per_byte);
  chart.series.push_back(std::move(training));
  chart.series.push_back(
      {.name = "RetNet, held-out text", .points = {{log.seconds, validation}}, .markers = true});
  chart.references.push_back({"order-3 n-gram", lines.ngram});
  if (lines.xz) chart.references.push_back({"xz -9e", *lines.xz});
  examples::write_svg(o.out / "loss.svg", chart);
}

inline void draw_decay(const Options& o, const Model& model) {
  examples::SvgChart chart{.title = "How fast each head forgets",
                           .subtitle = "weight of a token after n more tokens, gamma^n",
                           .x = {.label = "tokens ago"},
                           .y = {.label = "weight"}};
  Index head = 0;
  for (const double log_gamma : model.retention(0)->log_gamma()) {
    char name[64];
    std::snprintf(name, sizeof name, "head %td, half-life %.0f tokens", head++,
                  std::log(0.5) / log_gamma);
    examples::SvgSeries series{.name = name};
    for (int n = 0; n <= 512; n += 4) series.points.emplace_back(n, std::exp(n * log_gamma));
    chart.series.push_back(std::move(series));
  }
  examples::write_svg(o.out / "decay.svg", chart);
}

// Time and memory of a whole text against its length, the forms side by side.
inline void draw_costs(const Options& o, const Model& model, Bytes text, Index longest) {
  struct Row {
    const char* name;
    retnet::Form form;
  };
  const Row rows[] = {{"parallel, all at once", retnet::Form::parallel()},
                      {"chunkwise, 64 at a time", retnet::Form::chunkwise(64)},
                      {"recurrent, one by one", retnet::Form::recurrent()}};
  const examples::SvgAxis length{.label = "tokens in the text", .scale = examples::SvgScale::log};
  examples::SvgChart time{.title = "Time for a whole text",
                          .x = length,
                          .y = {.label = "time", .scale = examples::SvgScale::log, .unit = "s"}};
  examples::SvgChart memory{
      .title = "Memory for a whole text",
      .subtitle = "state, activations and scratch, weights not counted",
      .x = length,
      .y = {.label = "memory", .scale = examples::SvgScale::log, .unit = "B"}};
  for (const auto& row : rows) {
    examples::SvgSeries seconds{.name = row.name, .markers = true}, bytes = seconds;
    for (Index n = 64; n <= longest; n *= 4) {
      const Cost cost = text_cost(model, text, n, row.form, o.threads);
      seconds.points.emplace_back(n, cost.seconds);
      bytes.points.emplace_back(n, cost.bytes);
    }
    time.series.push_back(std::move(seconds));
    memory.series.push_back(std::move(bytes));
  }
  examples::write_svg(o.out / "time.svg", time);
  examples::write_svg(o.out / "memory.svg", memory);
}

}  // namespace byte_lm
