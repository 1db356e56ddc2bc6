// SPDX-License-Identifier: MIT
// Tokens to standard output as they come: whole characters, up to a stop text.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/tokenizers/tokenizer.hpp"
#include "retnet_generate/stop_text.hpp"

namespace retnet_generate {

class TextOutput {
 public:
  TextOutput(const retnet::Tokenizer& tokenizer, std::vector<std::string> stops)
      : stream_(tokenizer, {.skip_special = true}), stop_(std::move(stops)) {}

  // False once a stop text was found.
  bool add(std::int32_t id) {
    show(stop_.add(text_of(id)));
    return !stop_.found();
  }
  // Text that is no token, such as the prompt.
  void show(std::string_view text) {
    if (text.empty()) return;
    last_ = text.back();
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
      throw std::runtime_error("cannot write to standard output");
  }
  // What was held back. A terminal gets its own prompt on a new line; a pipe gets
  // the text alone.
  void finish() {
    show(stop_.add(stream_.finish()));
    show(stop_.finish());
    if (last_ != '\n' && isatty(STDOUT_FILENO) != 0) show("\n");
  }

 private:
  // A model may have ids that no token belongs to.
  std::string text_of(std::int32_t id) {
    try {
      return stream_.add(id);
    } catch (const std::invalid_argument&) {
      return "\xEF\xBF\xBD";  // U+FFFD
    }
  }

  retnet::TextStream stream_;
  StopText stop_;
  char last_ = '\n';
};

}  // namespace retnet_generate
