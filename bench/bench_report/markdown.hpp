// SPDX-License-Identifier: MIT
// Markdown tables, and numbers as a reader wants them.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace bench_report {

/// Stands behind a number of a row that had no undisturbed sample.
inline constexpr const char* kDisturbed = " ~";

/// Three significant digits: "1230", "12.3", "0.123"; empty for NaN.
inline std::string number(double x) {
  if (!std::isfinite(x)) return "";
  const double size = std::abs(x);
  char text[32];
  const int decimals = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
  std::snprintf(text, sizeof text, "%.*f", decimals, x);
  return text;
}
inline std::string scientific(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", x);
  return std::isfinite(x) ? text : "";
}
inline std::string percent(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f %%", 100.0 * x);
  return std::isfinite(x) ? text : "";
}
inline std::string times(double x) { return std::isfinite(x) ? number(x) + "x" : ""; }

/// "a (b)", or what there is of the two.
inline std::string with(const std::string& a, const std::string& b) {
  return b.empty() ? a : a + " (" + b + ")";
}

/// Rows whose cells are all empty but the first are left out.
class MarkdownTable {
 public:
  explicit MarkdownTable(std::vector<std::string> head) : head_(std::move(head)) {}

  void add(std::vector<std::string> row) {
    for (std::size_t i = 1; i < row.size(); ++i)
      if (!row[i].empty()) return rows_.push_back(std::move(row));
  }
  bool empty() const { return rows_.empty(); }
  std::string text() const {
    if (empty()) return "";
    std::string out = line(head_) + "|";
    for (std::size_t i = 0; i < head_.size(); ++i) out += "---|";
    out += "\n";
    for (const auto& row : rows_) out += line(row);
    return out;
  }

 private:
  static std::string line(const std::vector<std::string>& cells) {
    std::string out = "|";
    for (const auto& cell : cells) out += " " + cell + " |";
    return out + "\n";
  }

  std::vector<std::string> head_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace bench_report
