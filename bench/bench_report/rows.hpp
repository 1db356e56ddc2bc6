// SPDX-License-Identifier: MIT
// What the bench programs wrote (JSON of Google Benchmark), one row a name: the median over its
// repetitions, of those in which threads did not wait for a processor if there are any.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench_report {

struct Row {
  std::map<std::string, double> values;  // counters, and "us" of one iteration
  std::string label;
  int samples = 0, used = 0;
  double spread = 0.0;     // (slowest - fastest) / median of the samples used
  bool disturbed = false;  // no sample was free of waiting

  /// NaN if the row has no such counter.
  double operator[](const std::string& counter) const {
    const auto it = values.find(counter);
    return it == values.end() ? std::numeric_limits<double>::quiet_NaN() : it->second;
  }
};

class Rows {
 public:
  void read(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + " cannot be read");
    const auto json = nlohmann::json::parse(file);
    for (const auto& [key, value] : json.at("context").items())
      keep(key, value.is_string() ? value.get<std::string>() : value.dump());
    std::map<std::string, std::vector<nlohmann::json>> samples;
    for (const auto& row : json.at("benchmarks"))
      if (row.value("run_type", "") == "iteration" && !row.value("error_occurred", false))
        samples[plain_name(row.at("run_name"))].push_back(row);
    for (auto& [name, all] : samples) rows_[name] = median(std::move(all));
  }

  const std::map<std::string, Row>& all() const { return rows_; }
  std::string context(const std::string& key) const {
    const auto it = context_.find(key);
    return it == context_.end() ? "" : it->second;
  }
  bool has(const std::string& name) const { return rows_.contains(name); }
  /// NaN if there is no such row or counter.
  double value(const std::string& name, const std::string& counter) const {
    const auto it = rows_.find(name);
    return it == rows_.end() ? std::numeric_limits<double>::quiet_NaN() : it->second[counter];
  }
  /// Was any of the rows disturbed? Rows that are not there were not.
  bool disturbed(std::initializer_list<std::string> names) const {
    return std::ranges::any_of(names, [this](const std::string& name) {
      const auto it = rows_.find(name);
      return it != rows_.end() && it->second.disturbed;
    });
  }
  /// The rows <prefix><number><suffix>, by number.
  std::map<long, const Row*> series(const std::string& prefix, const std::string& suffix) const {
    std::map<long, const Row*> out;
    for (auto it = rows_.lower_bound(prefix); it != rows_.end(); ++it) {
      const std::string& name = it->first;
      if (!name.starts_with(prefix)) break;
      long number = 0;
      const char* end = name.data() + name.size();
      const auto done = std::from_chars(name.data() + prefix.size(), end, number);
      if (done.ec == std::errc() && std::string(done.ptr, end) == suffix) out[number] = &it->second;
    }
    return out;
  }
  int disturbed() const {
    return static_cast<int>(
        std::ranges::count_if(rows_, [](const auto& r) { return r.second.disturbed; }));
  }

 private:
  static constexpr double kQuiet = 0.05;  // of the time spent waiting

  // Every program measures the limits; the best of them counts.
  void keep(const std::string& key, const std::string& text) {
    std::string& kept = context_[key];
    const bool limit = key.ends_with("_thread") || key.ends_with("_threads");
    if (kept.empty() || !limit || std::stod(text) > std::stod(kept)) kept = text;
  }

  // Without what Google Benchmark adds: "/real_time", "/iterations:32".
  static std::string plain_name(std::string name) {
    for (const char* tail : {"/real_time", "/iterations:"})
      if (const auto at = name.find(tail); at != name.npos) name.resize(at);
    return name;
  }

  static double middle(std::vector<double> x) {
    std::ranges::sort(x);
    const std::size_t n = x.size();
    return n % 2 == 1 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
  }

  static Row median(std::vector<nlohmann::json> all) {
    Row row;
    row.samples = static_cast<int>(all.size());
    const auto waited = [](const nlohmann::json& s) { return s.value("waited", 0.0); };
    std::vector<nlohmann::json> quiet;
    std::ranges::copy_if(all, std::back_inserter(quiet),
                         [&](const auto& s) { return waited(s) <= kQuiet; });
    row.disturbed = quiet.empty();
    const auto& used = quiet.empty() ? all : quiet;
    row.used = static_cast<int>(used.size());
    std::map<std::string, std::vector<double>> columns;
    for (const auto& s : used) {
      for (const auto& [key, value] : s.items())
        if (value.is_number()) columns[key].push_back(value.get<double>());
      columns["us"].push_back(s.at("real_time").get<double>() * unit(s.value("time_unit", "ns")));
      row.label = s.value("label", "");
    }
    for (const auto& [key, values] : columns) row.values[key] = middle(values);
    const auto [least, most] = std::ranges::minmax(columns["us"]);
    if (row["us"] > 0.0) row.spread = (most - least) / row["us"];
    return row;
  }
  static double unit(const std::string& name) {
    return name == "ns" ? 1e-3 : name == "us" ? 1.0 : name == "ms" ? 1e3 : 1e6;
  }

  std::map<std::string, Row> rows_;
  std::map<std::string, std::string> context_;
};

}  // namespace bench_report
