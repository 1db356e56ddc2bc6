// SPDX-License-Identifier: MIT
// The pictures, all on logarithmic axes: what a curve's slope says is how the cost grows.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bench_report/tables.hpp"
#include "common/svg.hpp"

namespace bench_report {

struct Curve {
  std::string title, prefix;  // rows <prefix><number><suffix>
  std::string suffix = on(1);
};

inline void draw(const Rows& rows, const std::filesystem::path& file, examples::SvgChart chart,
                 const std::vector<Curve>& curves, const std::string& counter, double scale) {
  for (const auto& curve : curves) {
    examples::SvgSeries series{.name = curve.title, .markers = true};
    for (const auto& [x, row] : rows.series(curve.prefix, curve.suffix))
      series.points.emplace_back(static_cast<double>(x), (*row)[counter] * scale);
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  if (chart.series.empty()) return;
  chart.x.scale = chart.y.scale = examples::SvgScale::log;
  examples::write_svg(file, chart);
}

inline void draw_all(const Rows& rows, const std::filesystem::path& folder,
                     const std::string& machine) {
  const std::vector<Curve> layers{{"retention, parallel, one call", "layer/parallel/T:"},
                                  {"retention, chunkwise", "layer/chunkwise/T:"},
                                  {"retention, recurrent", "layer/recurrent/T:"},
                                  {"softmax attention", "layer/attention/T:"}};
  const examples::SvgAxis length{.label = "tokens in the text"};
  const std::string where =
      machine + (rows.disturbed() > 0 ? " (other programs were at work: do not quote)" : "");
  draw(rows, folder / "throughput.svg",
       {.title = "Retention and attention operators, tokens a second",
        .subtitle = where + ", one thread",
        .x = length,
        .y = {.label = "tokens/s"}},
       {{"chunkwise", "op/chunkwise/T:"},
        {"recurrent", "op/recurrent/T:"},
        {"softmax attention", "op/attention/T:"},
        {"plain Eigen, chunkwise", "op/baseline_eigen_chunkwise/T:"},
        {"plain Eigen, parallel", "op/baseline_eigen_parallel/T:"},
        {"PyTorch, chunkwise", "torch/op/chunkwise/T:"},
        {"PyTorch, attention", "torch/op/attention/T:"}},
       "tokens/s", 1.0);
  draw(rows, folder / "latency.svg",
       {.title = "A whole layer: time for each token of a text",
        .subtitle = where + ", one thread; long texts go in 512 tokens at a time",
        .x = length,
        .y = {.label = "time a token", .unit = "s"}},
       layers, "ns/token", 1e-9);
  draw(rows, folder / "memory.svg",
       {.title = "A whole layer: memory for a text",
        .subtitle = "state or cache, and scratch; without weights, input and output",
        .x = length,
        .y = {.label = "memory", .unit = "B"}},
       {{"retention, parallel, one call", "layer/parallel/T:"},
        {"retention, chunkwise or recurrent, 512 tokens a call", "layer/chunkwise/T:"},
        {"softmax attention, 512 tokens a call", "layer/attention/T:"}},
       "memory", 1.0);
  draw(rows, folder / "decode.svg",
       {.title = "One more token: a retention layer and an attention layer",
        .subtitle = where,
        .x = {.label = "tokens before it"},
        .y = {.label = "time of the step", .unit = "s"}},
       {{"retention, one thread", "decode/retention/context:"},
        {"retention, two threads", "decode/retention/context:", on(2)},
        {"attention, one thread", "decode/attention/context:"},
        {"attention, two threads", "decode/attention/context:", on(2)}},
       "us", 1e-6);
}

}  // namespace bench_report
