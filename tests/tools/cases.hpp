// SPDX-License-Identifier: MIT
// Golden model cases as the tools see them: a folder, and what shall come out of it.
// RETNET_GOLDEN_CASES in the environment names another folder of cases.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "golden/archive.hpp"
#include "support/compare.hpp"
#include "tools/process.hpp"

namespace tools {

using retnet::golden::Archive;
using retnet::golden::Array;

inline fs::path golden_folder() {
  const char* given = std::getenv("RETNET_GOLDEN_CASES");
  return given != nullptr ? fs::path(given) : fs::path(RETNET_TEST_DATA_DIR) / "golden/data";
}

inline std::vector<std::string> model_cases() {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(golden_folder()))
    if (fs::exists(entry.path() / "model.safetensors") ||
        fs::exists(entry.path() / "model.safetensors.index.json"))
      out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

struct Case {
  explicit Case(const std::string& name)
      : folder(golden_folder() / name),
        info(nlohmann::json::parse(text_of(folder / "case.json"))),
        io(folder / "io.safetensors") {}

  // Whether the forms of the original are different functions.
  bool scaled() const { return info.at("format") != "fla"; }
  std::vector<std::string> tensors(const std::string& prefix) const {
    std::vector<std::string> out;
    for (const auto& [key, array] : io.arrays())
      if (key.starts_with(prefix)) out.push_back(key);
    return out;
  }
  double tolerance(const std::string& what) const {
    const auto& all = info.at("tolerance_rel");
    return all.at(all.contains(what) ? what : "recurrent").get<double>();
  }
  // What every form gives where all are one function.
  std::string exact_logits() const {
    return scaled() ? "logits.float64_reference.recurrent" : "logits.float64_oracle";
  }

  fs::path folder;
  nlohmann::json info;
  Archive io;
};

inline double error(const Array& given, const Array& expected) {
  if (given.shape != expected.shape) return HUGE_VAL;
  return retnet::test::relative_error(std::span(given.values), std::span(expected.values));
}

// The largest error of each kind in parts of its tolerance, for a table at the end.
class Worst {
 public:
  void note(const std::string& kind, double error, double tolerance, const std::string& where) {
    Row& row = rows_[kind];
    ++row.count;
    if (row.where.empty() || error / tolerance > row.error / row.tolerance) {
      row.error = error;
      row.tolerance = tolerance;
      row.where = where;
    }
  }
  void print() const {
    for (const auto& [kind, row] : rows_)
      std::printf("%-34s %4d compared, worst %.2e of %.1e in %s\n", kind.c_str(), row.count,
                  row.error, row.tolerance, row.where.c_str());
  }

 private:
  struct Row {
    int count = 0;
    double error = 0.0, tolerance = 1.0;
    std::string where;
  };
  std::map<std::string, Row> rows_;
};

}  // namespace tools
