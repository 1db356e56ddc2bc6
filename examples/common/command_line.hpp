// SPDX-License-Identifier: MIT
// What the command-line tools have in common: exit codes, options, and how they are explained.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace examples {

inline constexpr int kInputError = 1;  // a file or a number in it
inline constexpr int kUsageError = 2;  // the command line

// The end of a --help: more about the tool, what its exit codes mean, a line to copy.
inline std::string help_footer(const std::string& text, const std::string& example) {
  return text +
         "\nExit codes: 0 done, 1 the input or the output is at fault (stderr says what), 2 usage."
         "\n\nExample: " +
         example + "\n";
}

// --help of a hundred columns: descriptions are broken where they are too long.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(32); }
  std::string make_option_desc(const CLI::Option* option) const override {
    constexpr std::size_t kWidth = 68;
    std::istringstream words(option->get_description());
    std::string text, word;
    std::size_t used = 0;
    while (words >> word) {
      const bool fits = used == 0 || used + 1 + word.size() <= kWidth;
      text += used == 0 ? "" : fits ? " " : "\n";
      used = fits && used > 0 ? used + 1 + word.size() : word.size();
      text += word;
    }
    return text;
  }
};

// A number in a range that --help need not show.
template <class T>
CLI::Validator between(T lowest, T highest) {
  return CLI::Range(lowest, highest).description("");
}

// Parses the command line, then runs. What `run` throws goes to stderr.
template <class Run>
int run_tool(CLI::App& app, int argc, char** argv, Run&& run) {
  app.formatter(std::make_shared<HelpFormatter>());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;  // --help is an "error" of code 0
  }
  try {
    return run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), error.what());
    return kInputError;
  }
}

// An option whose value is one of some words.
template <class T>
CLI::Option* add_word(CLI::App& app, const std::string& name, T& value,
                      std::vector<std::pair<std::string, T>> words,
                      const std::string& description) {
  std::vector<std::string> names;
  std::string choice, shown;
  for (const auto& [word, meaning] : words) {
    names.push_back(word);
    choice += (choice.empty() ? "" : "|") + word;
    if (meaning == value) shown = word;
  }
  const auto set = [&value, words = std::move(words)](const std::string& given) {
    for (const auto& [word, meaning] : words)
      if (word == given) value = meaning;
  };
  return app.add_option_function<std::string>(name, set, description)
      ->check(CLI::IsMember(names).description(""))
      ->type_name(choice)
      ->default_str(shown);
}

// --model: what is run.
inline void add_model(CLI::App& app, std::string& model) {
  app.add_option("--model", model,
                 "checkpoint: a folder with config.json and safetensors, or a file of save_model")
      ->required()
      ->type_name("DIR");
}

// --threads: all processors unless told otherwise.
inline void add_threads(CLI::App& app, int& threads) {
  threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  app.add_option("--threads", threads, "results do not depend on it")
      ->type_name("N")
      ->check(between(1, 1024))
      ->capture_default_str();
}

}  // namespace examples
