// SPDX-License-Identifier: MIT
// The flags of a bench program beside those of Google Benchmark: --name=value, lists with commas.
#pragma once

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/core/scalar.hpp"

namespace bench {

using retnet::Index;

class Flags {
 public:
  /// What Google Benchmark left of the command line.
  Flags(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string_view arg(argv[i]);
      const auto equals = arg.find('=');
      if (!arg.starts_with("--")) fail(arg);
      given_[std::string(arg.substr(2, equals - 2))] =
          equals == arg.npos ? "" : std::string(arg.substr(equals + 1));
    }
    quick = take("quick", "no") != "no";
    for (const Index t : list("threads", {1, 2})) threads.push_back(static_cast<int>(t));
  }

  bool quick = false;        // --quick: fewer and smaller rows
  std::vector<int> threads;  // --threads=1,2

  std::string word(const std::string& name, const std::string& fallback) {
    return take(name, fallback);
  }
  Index number(const std::string& name, Index fallback) { return list(name, {fallback}).front(); }
  std::vector<Index> list(const std::string& name, std::vector<Index> fallback) {
    const std::string text = take(name, "");
    if (text.empty()) return fallback;
    std::vector<Index> out;
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t end = std::min(text.find(',', at), text.size());
      Index value = 0;
      const auto done = std::from_chars(text.data() + at, text.data() + end, value);
      if (done.ec != std::errc() || done.ptr != text.data() + end || value <= 0)
        fail("--" + name + "=" + text);
      out.push_back(value);
      at = end + 1;
    }
    return out;
  }

  /// Ends the program if the command line holds a flag that nobody asked for.
  void check() const {
    if (!given_.empty()) fail("--" + given_.begin()->first);
  }

 private:
  [[noreturn]] static void fail(std::string_view what) {
    std::fprintf(stderr, "%.*s: no such flag, or not a value for it; see --help\n",
                 static_cast<int>(what.size()), what.data());
    std::exit(2);
  }
  std::string take(const std::string& name, const std::string& fallback) {
    const auto it = given_.find(name);
    if (it == given_.end()) return fallback;
    std::string value = std::move(it->second);
    given_.erase(it);
    return value;
  }

  std::map<std::string, std::string> given_;
};

}  // namespace bench
