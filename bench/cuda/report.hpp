// SPDX-License-Identifier: MIT
// Rows of a bench on a device: printed as they come, written as CSV and as Markdown tables, beside
// what peers reached on the same rows.
#pragma once

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

struct Row {
  std::string table, name;
  double ms = 0.0;
  double floor_ms = 0.0;  // what the limits of this run allow; 0: not said
  std::string extra;      // "4.1 TB/s"
};

class Report {
 public:
  Report(std::string filter, bool quick) : quick(quick), filter_(std::move(filter)) {}

  const bool quick;

  bool wants(const std::string& name) const { return name.find(filter_) != std::string::npos; }

  void add(Row row) {
    std::printf("%-12s %-34s %10.4f ms", row.table.c_str(), row.name.c_str(), row.ms);
    if (row.floor_ms > 0.0)
      std::printf("   floor %8.4f   %5.2f of it", row.floor_ms, row.ms / row.floor_ms);
    std::printf("   %s\n", row.extra.c_str());
    std::fflush(stdout);
    rows_.push_back(std::move(row));
  }

  /// Lines who,"row",milliseconds as peers/torch_cuda.py writes them.
  void read_peers(const std::string& path) {
    std::ifstream in(path);
    if (!in) throw std::runtime_error("cannot read " + path);
    std::string line;
    std::getline(in, line);
    while (std::getline(in, line)) {
      const auto open = line.find(",\""), close = line.rfind("\",");
      if (open == std::string::npos || close <= open) throw std::runtime_error(path + ": " + line);
      const std::string who = line.substr(0, open);
      if (peers_.find(who) == peers_.end()) order_.push_back(who);
      peers_[who][line.substr(open + 2, close - open - 2)] = std::stod(line.substr(close + 2));
    }
  }

  void write(const std::string& folder, const std::string& head) const {
    std::ofstream csv(folder + "/bench_cuda.csv");
    csv << "table,row,milliseconds,floor_milliseconds,note\n";
    for (const auto& r : rows_)
      csv << r.table << ",\"" << r.name << "\"," << r.ms << ',' << r.floor_ms << ",\"" << r.extra
          << "\"\n";
    std::ofstream out(folder + "/README.md");
    out << head;
    std::string table;
    for (const auto& r : rows_) {
      if (r.table != table) out << title(r.table);
      table = r.table;
      out << line(r);
    }
    if (!csv || !out) throw std::runtime_error("cannot write to " + folder);
  }

 private:
  std::string title(const std::string& table) const {
    std::string out = "\n## " + table + "\n\n| | ms | floor ms | of the floor |",
                rule = "|---|---|---|---|";
    for (const auto& who : order_) out += " " + who + " ms (times ours) |", rule += "---|";
    return out + " |\n" + rule + "---|\n";
  }

  std::string line(const Row& r) const {
    std::string out = "| " + r.name + " | **" + number(r.ms) + "** | ";
    out += r.floor_ms > 0.0 ? number(r.floor_ms) + " | " + number(r.ms / r.floor_ms, 2) : "| ";
    for (const auto& who : order_) {
      const auto& theirs = peers_.at(who);
      const auto found = theirs.find(r.name);
      out += " | ";
      if (found != theirs.end())
        out += number(found->second) + " (" + number(found->second / r.ms, 2) + ")";
    }
    return out + " | " + r.extra + " |\n";
  }

  static std::string number(double x, int digits = 4) {
    char text[32];
    std::snprintf(text, sizeof text, "%.*f", x >= 100.0 ? 1 : digits, x);
    return text;
  }

  std::string filter_;
  std::vector<Row> rows_;
  std::vector<std::string> order_;
  std::map<std::string, std::map<std::string, double>> peers_;
};

}  // namespace bench
