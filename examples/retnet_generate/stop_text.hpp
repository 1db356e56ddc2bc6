// SPDX-License-Identifier: MIT
// Ends streamed text at the first of some texts, and never shows a part of one.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retnet_generate {

class StopText {
 public:
  // Throws std::invalid_argument for an empty text, which would stand everywhere.
  explicit StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
    for (const auto& stop : stops_)
      if (stop.empty()) throw std::invalid_argument("[StopText] a stop text is empty");
  }

  // More text; returns what may be shown by now. Nothing more comes once found().
  std::string add(std::string_view text) {
    if (found_) return {};
    held_ += text;
    std::size_t end = std::string::npos;
    for (const auto& stop : stops_) end = std::min(end, held_.find(stop));
    found_ = end != std::string::npos;
    std::string shown = held_.substr(0, found_ ? end : held_.size() - longest_beginning());
    held_.erase(0, found_ ? held_.size() : shown.size());
    return shown;
  }
  bool found() const { return found_; }

  // The end of the text: what was held back because a stop text could have begun there.
  std::string finish() { return std::exchange(held_, {}); }

 private:
  // Bytes at the end of what is held that begin a stop text.
  std::size_t longest_beginning() const {
    std::size_t longest = 0;
    for (const std::string_view stop : stops_)
      for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n)
        if (held_.ends_with(stop.substr(0, n))) longest = n;
    return longest;
  }

  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace retnet_generate
