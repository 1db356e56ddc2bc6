// SPDX-License-Identifier: MIT
// The command line of byte_lm.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <thread>

namespace byte_lm {

struct Options {
  double minutes = 2.0;
  int threads = 1;
  std::uint64_t seed = 1;
  bool resume = false;
  double temperature = 0.8;
  int sample = 600;  // bytes
  std::string prompt = "It was ";
  std::filesystem::path text;
  std::filesystem::path out;
};

// The folder of the running program, so that pictures land in the build folder.
inline std::filesystem::path program_folder() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::current_path() : self.parent_path();
}

inline void describe(CLI::App& app, Options& o) {
  o.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  o.text = std::filesystem::path(RETNET_EXAMPLES_DATA_DIR) / "austen.txt";
  o.out = program_folder() / "byte_lm_out";
  app.add_option("--minutes", o.minutes, "training time")
      ->check(CLI::Range(0.01, 1e5))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of weights, batches and the sample")->capture_default_str();
  app.add_flag("--resume", o.resume, "go on from the checkpoint in the output folder");
  app.add_option("--temperature", o.temperature, "of the sample; 0: greedy")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  app.add_option("--sample", o.sample, "bytes to stream")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--prompt", o.prompt, "the sample starts with it")
      ->check(
          [](const std::string& s) { return s.empty() ? std::string("is empty") : std::string(); })
      ->capture_default_str();
  app.add_option("--text", o.text, "training text; its last tenth is held out")
      ->check(CLI::ExistingFile)
      ->capture_default_str();
  app.add_option("--out", o.out, "folder for checkpoint and pictures")->capture_default_str();
}

}  // namespace byte_lm
