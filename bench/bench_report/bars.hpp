// SPDX-License-Identifier: MIT
// What the CPU kernels are to reach, beside what they reached: fractions of the machine's limits, and
// ratios of rows of one run. A line holds as many figures as it names sizes; all of them have to
// pass. A figure is missing where the run had no such row.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "bench_report/markdown.hpp"
#include "bench_report/tables.hpp"

namespace bench_report {

class Bars {
 public:
  explicit Bars(const Rows& rows) : rows_(rows) {
    operators();
    products();
    states();
    model();
    long_texts();
    errors();
  }
  std::string text() const { return table_.text(); }

 private:
  using Names = std::vector<std::string>;
  static constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

  struct Figure {
    double reached = kMissing, bar = 0.0;
    Names rows;
  };
  enum class Pass { at_least, at_most };

  // ---- figures of rows ----

  Figure fraction(const std::string& row, double bar) const {
    return {rows_.value(row, "limit_fraction"), bar, {row}};
  }
  Figure faster(const std::string& fast, const std::string& slow, double bar) const {
    return {rows_.value(fast, "tokens/s") / rows_.value(slow, "tokens/s"), bar, {fast, slow}};
  }
  /// Against the fastest of the libraries that were found.
  Figure faster_than_libraries(const std::string& size, double bar) const {
    std::string best;
    for (const std::string library : {"openblas", "blis", "onednn"}) {
      const std::string row = "linear/baseline_" + library + size;
      if (rows_.has(row) &&
          (best.empty() || rows_.value(row, "tokens/s") > rows_.value(best, "tokens/s")))
        best = row;
    }
    return faster("linear/float" + size, best, bar);
  }

  // ---- lines ----

  void add(const std::string& work, const std::string& sizes, const std::vector<Figure>& figures,
           Pass pass = Pass::at_least) {
    std::string reached, bars, mark;
    bool all = true, any = false;
    for (const auto& f : figures) {
      const bool there = std::isfinite(f.reached);
      any = any || there;
      all = all && there && (pass == Pass::at_least ? f.reached >= f.bar : f.reached <= f.bar);
      for (const auto& row : f.rows)
        if (rows_.disturbed({row})) mark = kDisturbed;
      reached += (reached.empty() ? "" : " / ") + (there ? number(f.reached) : "?");
      const std::string bar = number(f.bar);
      if (bars.empty() || f.bar != figures.front().bar) bars += (bars.empty() ? "" : " / ") + bar;
    }
    const std::string sign = pass == Pass::at_least ? ">= " : "<= ";
    if (!any) return;
    const bool judged = figures.front().bar > 0.0;
    const char* passed = !judged ? "" : all ? "yes" : "no";
    table_.add({work, sizes, reached + mark, judged ? sign + bars : "none", passed});
  }

  static std::string threads_text(int t) { return t == 1 ? ", one thread" : ", two threads"; }
  static const std::vector<std::string>& dims() {
    static const std::vector<std::string> all{"64x128", "128x256", "256x512"};
    return all;
  }
  /// A line of one figure for each head size.
  template <class Make>
  void add_dims(const std::string& work, Make&& make, Pass pass = Pass::at_least) {
    std::vector<Figure> figures;
    for (std::size_t i = 0; i < dims().size(); ++i) figures.push_back(make(dims()[i], i));
    add(work, "Dk 64 / 128 / 256", figures, pass);
  }

  void operators() {
    const std::string forward = "retention/chunkwise/",
                      both = "retention/chunkwise_forward_backward/";
    const std::string text = "/T:2048", part = "/T:512";
    add_dims("chunkwise forward, of the multiply-add peak", [&](const auto& d, std::size_t i) {
      return fraction(forward + d + text + on(1), i == 0 ? 0.65 : 0.75);
    });
    add_dims("chunkwise forward, times plain Eigen", [&](const auto& d, std::size_t) {
      return faster(forward + d + text + on(1),
                    "retention/baseline_eigen_chunkwise/" + d + text + on(1), 2.0);
    });
    for (const int t : {1, 2})
      add_dims("chunkwise forward, times ggml's scan, T 512" + threads_text(t),
               [&](const auto& d, std::size_t) {
                 return faster(forward + d + part + on(t),
                               "retention/baseline_ggml/" + d + part + on(t), t == 1 ? 2.8 : 2.6);
               });
    add_dims("chunkwise forward and backward, of the peak",
             [&](const auto& d, std::size_t) { return fraction(both + d + text + on(1), 0.65); });
    for (const auto& [title, row] :
         {std::pair{"chunkwise forward", forward}, {"forward and backward", both}})
      add_dims(title + std::string(", two threads times one"), [&](const auto& d, std::size_t) {
        return faster(row + d + text + on(2), row + d + text + on(1), 1.85);
      });
  }

  static std::string product(long m, long d, bool cold, int t) {
    return "/M:" + std::to_string(m) + "/d:" + std::to_string(d) + (cold ? "/cold" : "/warm") +
           on(t);
  }

  void products() {
    const std::string widths = "d 512 / 1024 / 2048";
    const auto add_widths = [&](const std::string& work, auto make) {
      add(work, widths, {make(512), make(1024), make(2048)});
    };
    for (const long m : {64, 512}) {
      const std::string rows = "projection of " + std::to_string(m) + " rows, ";
      add_widths(rows + "of the peak",
                 [&](long d) { return fraction("linear/float" + product(m, d, false, 1), 0.8); });
      add_widths(rows + "times the best library",
                 [&](long d) { return faster_than_libraries(product(m, d, false, 1), 1.0); });
    }
    for (const int t : {1, 2})
      for (const long m : {2, 4, 8, 16})
        add_widths(std::to_string(m) + " rows, weights in memory, times the best library" +
                       threads_text(t),
                   [&](long d) { return faster_than_libraries(product(m, d, true, t), 2.0); });
    for (const int t : {1, 2}) {
      add_widths("one row, weights in memory, of the read rate" + threads_text(t),
                 [&](long d) { return fraction("linear/float" + product(1, d, true, t), 0.9); });
      add_widths("one row of bfloat16, of the read rate" + threads_text(t), [&](long d) {
        return fraction("linear/bfloat16" + product(1, d, true, t), 0.85);
      });
    }
  }

  void states() {
    for (const int t : {1, 2}) {
      const std::string size = "/KB:1048576" + on(t);
      add_dims(
          "recurrent step, states in memory, of the update rate" + threads_text(t),
          [&](const auto& d, std::size_t) { return fraction("step/in_place/" + d + size, 0.9); });
      add_dims("recurrent step with deferred writes, times that" + threads_text(t),
               [&](const auto& d, std::size_t) {
                 return faster("step/deferred/" + d + size, "step/in_place/" + d + size, 1.6);
               });
    }
  }

  void model() {
    const std::string size = "d 512, 6 layers", train = "/retention/B:1/T:512";
    const auto peer = [&](const std::string& work, const std::string& row, double bar,
                          const std::string& theirs) {
      add(work, size, {faster(row, "torch/" + theirs, bar)});
    };
    const std::string prefill = "prefill/retention/T:2048" + on(2);
    peer("model, prefill T 2048, times PyTorch, two threads", prefill, 2.0, prefill);
    for (const std::string step : {"gradient", "training"})
      peer("model, " + step + " T 512, times PyTorch, two threads", step + train + on(2), 2.3,
           step + train + on(2));
    const std::string decode = "decode/retention/float", half = "decode/retention/bfloat16";
    const std::string context = "/context:1024";
    peer("model, decode, times PyTorch, two threads", decode + context + on(2), 5.0,
         decode + on(2));
    peer("model, decode with bfloat16, times PyTorch's float, two threads", half + context + on(2),
         9.0, decode + on(2));
    for (const std::string step : {"gradient", "training"})
      add("model, " + step + ", two threads times one", size,
          {faster(step + train + on(2), step + train + on(1), 1.85)});
  }

  void long_texts() {
    Figure flat{kMissing, 0.05, {}};
    double least = std::numeric_limits<double>::infinity(), most = 0.0;
    for (const long t : {2048, 4096, 8192, 16384, 65536}) {
      const std::string row = "op/chunkwise/T:" + std::to_string(t) + on(1);
      if (!rows_.has(row)) continue;
      flat.rows.push_back(row);
      least = std::min(least, rows_.value(row, "ns/token"));
      most = std::max(most, rows_.value(row, "ns/token"));
    }
    if (flat.rows.size() > 1) flat.reached = (most - least) / (most + least);
    add("chunkwise time of a token, +- around the middle", "T 2048 to 65536", {flat},
        Pass::at_most);
    const auto pair = [&](const std::string& level, double at_2k, double at_8k) {
      const auto at = [&](const std::string& t, double bar) {
        return faster(level + "/chunkwise/T:" + t + on(1), level + "/attention/T:" + t + on(1),
                      bar);
      };
      return std::vector{at("2048", at_2k), at("8192", at_8k)};
    };
    add("operator times our attention, Dk 64", "T 2048 / 8192", pair("op", 6.0, 23.0));
    add("whole layer times our attention layer", "T 2048 / 8192", pair("layer", 0.0, 0.0));
  }

  Figure error(const std::string& ours, const std::string& theirs,
               const std::string& tokens) const {
    const auto row = [&](const std::string& form) {
      return "error/" + form + "/64x128/T:" + tokens + on(1);
    };
    return {rows_.value(row(ours), "rms_error") / rows_.value("torch/" + row(theirs), "rms_error"),
            1.0,
            {row(ours)}};
  }

  void errors() {
    for (const std::string t : {"512", "4096"}) {
      const std::string where = ", T " + t;
      add("rms error over PyTorch's" + where, "parallel / chunkwise / recurrent",
          {error("parallel", "parallel", t), error("chunkwise", "chunkwise", t),
           error("recurrent", "recurrent", t)},
          Pass::at_most);
      // Ours are the same kernels for both forms.
      for (const std::string form : {"parallel", "chunkwise"}) {
        std::vector<Figure> figures;
        for (const std::string d : {"_dq", "_dk", "_dv"})
          figures.push_back(error("chunkwise" + d, form + d, t));
        add("gradients' rms error over PyTorch's " + form + where, "dQ / dK / dV", figures,
            Pass::at_most);
      }
    }
  }

  const Rows& rows_;
  MarkdownTable table_{{"work", "sizes", "reached", "bar", "passed"}};
};

}  // namespace bench_report
