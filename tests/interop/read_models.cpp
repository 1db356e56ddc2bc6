// SPDX-License-Identifier: MIT
// Loads checkpoints that other packages saved, and compares the logits that they computed:
//
//   read_models FOLDER
//
// FOLDER/<dialect>__<name>/ holds a checkpoint and io.safetensors: input_ids [B,T], and some of the
// logits of common.hpp. Ends with 1 if a checkpoint does not load or a number differs.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <vector>

#include "interop/common.hpp"
#include "support/compare.hpp"

namespace retnet::interop {
namespace {

constexpr double kTolerance = 2e-5;  // of the largest logit

// The worst error over the logits of a folder.
double compare(const std::filesystem::path& folder, std::string& dialect, std::size_t& compared) {
  const golden::Archive io(folder / "io.safetensors");
  double worst = 0.0;
  for (const Compat compat : {Compat::exact, Compat::reference}) {
    PretrainedInfo info;
    const auto model = load_pretrained<float>(folder.string(), {.compat = compat}, &info);
    dialect = dialect_name(info.dialect);
    for (const auto& [name, form] : kForms) {
      const std::string key = logits_key(compat, name);
      if (!io.has(key)) continue;
      const auto logits = logits_of(model, form, io.at("input_ids"));
      worst = std::max(worst, test::relative_error(
                                  logits.span(), std::span<const double>(io.at(key).values)));
      ++compared;
    }
  }
  return worst;
}

bool run(const std::string& root) {
  std::vector<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(root))
    if (std::filesystem::exists(entry.path() / "io.safetensors")) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  bool good = !folders.empty();
  for (const auto& folder : folders) {
    const std::string name = folder.filename().string();
    std::string dialect;
    std::size_t compared = 0;
    try {
      const double error = compare(folder, dialect, compared);
      const bool same = error <= kTolerance && compared > 0 && name.starts_with(dialect + "__");
      std::printf("%-4s %-38s %zu outputs, %.1e%s%s\n", same ? "ok" : "BAD", name.c_str(), compared,
                  error, same ? "" : ", read as ", same ? "" : dialect.c_str());
      good &= same;
    } catch (const std::exception& e) {
      std::printf("BAD  %-38s %s\n", name.c_str(), e.what());
      good = false;
    }
  }
  return good;
}

}  // namespace
}  // namespace retnet::interop

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: read_models FOLDER\n");
    return 2;
  }
  return retnet::interop::run(argv[1]) ? 0 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
