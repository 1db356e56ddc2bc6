// SPDX-License-Identifier: MIT
// The tables: what is measured, beside what, in which unit. A table without rows is left out.
#pragma once

#include <string>
#include <vector>

#include "bench_report/markdown.hpp"
#include "bench_report/rows.hpp"

namespace bench_report {

struct Named {
  std::string title, row;  // what the reader sees; the row's name in part
};

inline std::string section(const std::string& title, const std::string& note,
                           const MarkdownTable& table) {
  return table.empty() ? "" : "## " + title + "\n\n" + note + "\n\n" + table.text() + "\n";
}

/// The cell, marked if one of its rows was disturbed.
inline std::string cell(const Rows& rows, const std::string& text,
                        std::initializer_list<std::string> names) {
  return text.empty() || !rows.disturbed(names) ? text : text + kDisturbed;
}

inline std::string on(int threads) { return "/threads:" + std::to_string(threads); }

/// Thousand tokens/s (GFLOP/s) of the operator over T.
inline MarkdownTable lengths(const Rows& rows, const std::vector<Named>& lines,
                             const std::vector<long>& tokens, int threads) {
  std::vector<std::string> head{"T"};
  for (const long t : tokens) head.push_back(std::to_string(t));
  MarkdownTable table(head);
  for (const auto& [title, row] : lines) {
    std::vector<std::string> cells{title};
    for (const long t : tokens) {
      const std::string name = row + "/T:" + std::to_string(t) + on(threads);
      cells.push_back(cell(rows,
                           with(number(rows.value(name, "tokens/s") * 1e-3),
                                number(rows.value(name, "FLOP/s") * 1e-9)),
                           {name}));
    }
    table.add(std::move(cells));
  }
  return table;
}

inline const std::vector<Named>& operator_lines() {
  static const std::vector<Named> lines{
      {"parallel", "op/parallel"},
      {"chunkwise", "op/chunkwise"},
      {"recurrent", "op/recurrent"},
      {"chunkwise, forward and backward", "op/chunkwise_forward_backward"},
      {"softmax attention, ours (Dv = Dk)", "op/attention"},
      {"naive loops, parallel", "op/baseline_oracle_parallel"},
      {"plain Eigen, parallel", "op/baseline_eigen_parallel"},
      {"plain Eigen, chunkwise", "op/baseline_eigen_chunkwise"},
      {"PyTorch, chunkwise", "torch/op/chunkwise"},
      {"PyTorch, softmax attention", "torch/op/attention"}};
  return lines;
}

/// Rows of the operators against the machine: rate, fraction of the limit, which limit.
inline MarkdownTable against_limits(const Rows& rows, const std::string& prefix) {
  MarkdownTable table({"row", "us", "GFLOP/s", "GB/s", "ns an element", "of the limit", "limit"});
  for (const auto& [name, row] : rows.all()) {
    if (!name.starts_with(prefix)) continue;
    const std::string label = row.label.starts_with("limit: ") ? row.label.substr(7) : row.label;
    table.add({name + (row.disturbed ? kDisturbed : ""), number(row["us"]),
               number(row["FLOP/s"] * 1e-9), number(row["bytes/s"] * 1e-9),
               number(row["ns/element"]), percent(row["limit_fraction"]), label});
  }
  return table;
}

/// Products: GFLOP/s of warm rows, GB/s of weights of cold ones.
inline MarkdownTable products(const Rows& rows, bool cold, int threads) {
  const std::vector<Named> who{
      {"ours", "linear/float"},           {"ours, bfloat16", "linear/bfloat16"},
      {"Eigen", "linear/baseline_eigen"}, {"OpenBLAS", "linear/baseline_openblas"},
      {"BLIS", "linear/baseline_blis"},   {"oneDNN", "linear/baseline_onednn"},
      {"PyTorch", "torch/linear/float"},  {"PyTorch, bfloat16", "torch/linear/bfloat16"}};
  std::vector<std::string> head{"d", "M"};
  for (const auto& w : who) head.push_back(w.title);
  MarkdownTable table(head);
  for (const long d : {512, 1024, 2048})
    for (const long m : {1, 2, 4, 8, 16, 64, 512}) {
      std::vector<std::string> cells{std::to_string(d), ""};
      for (const auto& w : who) {
        const std::string name = w.row + "/M:" + std::to_string(m) + "/d:" + std::to_string(d) +
                                 (cold ? "/cold" : "/warm") + on(threads);
        const bool half = w.row.ends_with("bfloat16");
        const double flops = rows.value(name, "FLOP/s");
        const double bytes = flops / (2.0 * static_cast<double>(m)) * (half ? 2.0 : 4.0);
        cells.push_back(cell(rows, number((cold ? bytes : flops) * 1e-9), {name}));
      }
      MarkdownTable any(head);
      any.add(cells);
      cells[1] = std::to_string(m);
      if (!any.empty()) table.add(std::move(cells));
    }
  return table;
}

/// How many times faster one row is than another, over T.
inline MarkdownTable ratios(const Rows& rows, const std::vector<long>& tokens) {
  struct Pair {
    std::string title, fast, slow;
    int fast_threads = 1, slow_threads = 1;
  };
  const std::vector<Pair> pairs{
      {"chunkwise / plain Eigen chunkwise", "op/chunkwise", "op/baseline_eigen_chunkwise"},
      {"chunkwise / recurrent", "op/chunkwise", "op/recurrent"},
      {"chunkwise / softmax attention", "op/chunkwise", "op/attention"},
      {"chunkwise / PyTorch chunkwise", "op/chunkwise", "torch/op/chunkwise"},
      {"chunkwise / PyTorch attention", "op/chunkwise", "torch/op/attention"},
      {"our attention / PyTorch attention", "op/attention", "torch/op/attention"},
      {"layer, chunkwise / attention layer", "layer/chunkwise", "layer/attention"},
      {"chunkwise, two threads / one", "op/chunkwise", "op/chunkwise", 2, 1},
      {"recurrent, two threads / one", "op/recurrent", "op/recurrent", 2, 1},
      {"attention, two threads / one", "op/attention", "op/attention", 2, 1},
      {"layer, two threads / one", "layer/chunkwise", "layer/chunkwise", 2, 1}};
  std::vector<std::string> head{"tokens/s of A / tokens/s of B, T ="};
  for (const long t : tokens) head.push_back(std::to_string(t));
  MarkdownTable table(head);
  for (const auto& p : pairs) {
    std::vector<std::string> cells{p.title};
    for (const long t : tokens) {
      const std::string at = "/T:" + std::to_string(t);
      const std::string fast = p.fast + at + on(p.fast_threads);
      const std::string slow = p.slow + at + on(p.slow_threads);
      const double ratio = rows.value(fast, "tokens/s") / rows.value(slow, "tokens/s");
      cells.push_back(cell(rows, times(ratio), {fast, slow}));
    }
    table.add(std::move(cells));
  }
  return table;
}

/// Microseconds of one more token after a context.
inline MarkdownTable decoding(const Rows& rows) {
  MarkdownTable table({"context", "retention, 1 thread", "2 threads", "attention, 1 thread",
                       "2 threads", "attention / retention, 1 thread"});
  for (const auto& [context, row] : rows.series("decode/attention/context:", on(1))) {
    const std::string at = "/context:" + std::to_string(context);
    const auto name = [&at](const std::string& who, int threads) {
      return "decode/" + who + at + on(threads);
    };
    std::vector<std::string> cells{std::to_string(context)};
    for (const std::string who : {"retention", "attention"})
      for (const int threads : {1, 2})
        cells.push_back(
            cell(rows, number(rows.value(name(who, threads), "us")), {name(who, threads)}));
    const std::string retention = name("retention", 1), attention = name("attention", 1);
    cells.push_back(
        cell(rows, times((*row)["us"] / rows.value(retention, "us")), {retention, attention}));
    table.add(std::move(cells));
  }
  return table;
}

/// The names of one row of the model in our two variants and in the peer's program.
struct ModelRow {
  std::string title, threads, ours, attention, peer;
};

/// "prefill/retention/T:512/threads:1" and the like; of decode/ the rows that name their weights.
inline bool is_model_row(const std::string& name) {
  for (const char* start : {"prefill/retention/", "gradient/retention/", "training/retention/",
                            "decode/retention/float/", "decode/retention/bfloat16/"})
    if (name.starts_with(start)) return true;
  return false;
}
inline ModelRow model_row(const std::string& name) {
  const std::string mixer = "/retention/";
  const auto at = name.find(mixer), threads = name.find("/threads:");
  ModelRow r{name.substr(0, threads), name.substr(threads + 9), name, name, "torch/" + name};
  r.title.replace(at, mixer.size(), "/");
  r.attention.replace(at, mixer.size(), "/attention/");
  if (const auto context = r.peer.find("/context:"); context != r.peer.npos)
    r.peer.erase(context, r.peer.find('/', context + 1) - context);
  return r;
}

/// Tokens/s of a whole model: ours, PyTorch, and how many times faster.
inline MarkdownTable model(const Rows& rows) {
  MarkdownTable table({"tokens/s", "threads", "retention", "of the limit", "with attention",
                       "PyTorch, same model", "faster"});
  for (const auto& [name, row] : rows.all()) {
    if (!is_model_row(name)) continue;
    const ModelRow r = model_row(name);
    const auto rate = [&](const std::string& who) {
      return cell(rows, number(rows.value(who, "tokens/s")), {who});
    };
    const double faster = row["tokens/s"] / rows.value(r.peer, "tokens/s");
    table.add({r.title, r.threads, rate(name), percent(row["limit_fraction"]), rate(r.attention),
               rate(r.peer), cell(rows, times(faster), {name, r.peer})});
  }
  return table;
}

inline MarkdownTable errors(const Rows& rows) {
  MarkdownTable table({"float against double", "T", "ours: rms", "largest", "PyTorch: rms",
                       "largest", "same inputs"});
  for (const std::string form :
       {"parallel", "chunkwise", "recurrent", "chunkwise_dq", "chunkwise_dk", "chunkwise_dv"})
    for (const auto& [tokens, row] : rows.series("error/" + form + "/64x128/T:", on(1))) {
      const std::string peer =
          "torch/error/" + form + "/64x128/T:" + std::to_string(tokens) + on(1);
      const double ours = (*row)["checksum"], theirs = rows.value(peer, "checksum");
      const bool same = std::abs(ours - theirs) <= 1e-9 * std::abs(ours);
      table.add({form, std::to_string(tokens), scientific((*row)["rms_error"]),
                 scientific((*row)["max_error"]), scientific(rows.value(peer, "rms_error")),
                 scientific(rows.value(peer, "max_error")),
                 std::isfinite(theirs) ? (same ? "yes" : "NO") : ""});
    }
  return table;
}

}  // namespace bench_report
