// Progress of a long loop: one line that updates in place on a terminal, and a plain line every few
// seconds in a log. POSIX.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/interrupt.hpp"

namespace examples {

// 999 -> "999", 1234 -> "1.23k", 310000 -> "310k", up to "G".
inline std::string format_count(double value) {
  static constexpr const char* suffixes[] = {"", "k", "M", "G"};
  std::size_t power = 0;
  while (std::abs(value) >= 999.5 && power < 3) {
    value /= 1000.0;
    ++power;
  }
  const double magnitude = std::abs(value);
  const bool whole = magnitude >= 99.95 || value == std::floor(value);
  char text[64];
  std::snprintf(text, sizeof text, "%.*f%s",
                whole                ? 0
                : magnitude >= 9.995 ? 1
                                     : 2,
                value, suffixes[power]);
  return text;
}

// 48 -> "0:48", 3723 -> "1:02:03"; "-:--" while it is not known (negative, NaN, infinite).
inline std::string format_duration(double seconds) {
  if (!(seconds >= 0.0 && seconds < 1e9)) return "-:--";
  const long total = std::lround(seconds);
  char text[64];
  if (total < 3600) {
    std::snprintf(text, sizeof text, "%ld:%02ld", total / 60, total % 60);
  } else {
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
  }
  return text;
}

// Shown as "label value", or as the value alone if the label is empty.
struct ProgressField {
  std::string label;
  std::string value;
};

struct ProgressOptions {
  double live_seconds = 0.1;    // shortest time between two redraws on a terminal
  double plain_seconds = 10.0;  // time between two lines elsewhere
};

// Use from one thread. Ends with a newline, at the latest in the destructor.
class ProgressLine {
 public:
  explicit ProgressLine(std::FILE* out = stdout, ProgressOptions options = {})
      : out_(out),
        options_(options),
        live_(is_terminal(out)),
        colour_(live_ && wants_colour()),
        unicode_(live_ && locale_is_utf8()) {}

  ~ProgressLine() { finish(); }

  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // fraction is the part done, 0 to 1. Cheap enough for every step: most calls draw nothing.
  // On a narrow terminal the bar goes first, then the last fields.
  void update(double fraction, std::vector<ProgressField> fields) {
    fraction_ = std::isnan(fraction) ? 0.0 : std::clamp(fraction, 0.0, 1.0);
    fields_ = std::move(fields);
    pending_ = true;
    const std::chrono::duration<double> waited = Clock::now() - drawn_at_;
    const double interval = live_ ? options_.live_seconds : options_.plain_seconds;
    if (!drawn_ || waited.count() >= interval) draw();
  }

  // Prints a line of its own, above the progress line.
  void note(std::string_view text) {
    std::string line(live_ ? "\r" : "");
    line.append(text).append(live_ ? "\x1b[K\n" : "\n");
    write(line);
    if (live_ && drawn_) draw();
  }

  // Shows the last update and ends the line. A later update starts a new one.
  void finish() {
    if (pending_) draw();
    if (live_ && drawn_) write("\n");
    drawn_ = false;
  }

  bool live() const { return live_; }
  bool colour() const { return colour_; }

 private:
  using Clock = std::chrono::steady_clock;

  static constexpr std::size_t longest_bar = 24;
  static constexpr std::size_t shortest_bar = 8;

  // Empty where the variable is not set.
  static std::string_view environment(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  }

  static bool is_terminal(std::FILE* out) {
    return isatty(fileno(out)) != 0 && environment("TERM") != "dumb";
  }

  static bool wants_colour() { return environment("NO_COLOR").empty(); }  // no-color.org

  static bool locale_is_utf8() {
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
      const std::string_view value = environment(name);
      if (value.empty()) continue;
      return value.find("UTF-8") != value.npos || value.find("utf8") != value.npos;
    }
    return false;
  }

  // Columns to use: one less than there are, since a full line makes some terminals wrap.
  std::size_t columns() const {
    winsize size = {};
    if (ioctl(fileno(out_), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 79;
    return static_cast<std::size_t>(size.ws_col) - 1;
  }

  // Terminal columns of UTF-8 text: bytes that do not continue a character.
  static std::size_t width(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    }));
  }

  static std::size_t width(const ProgressField& field) {
    return 2 + width(field.label) + (field.label.empty() ? 0 : 1) + width(field.value);
  }

  std::string coloured(const char* code, std::string text) const {
    return colour_ && !text.empty() ? code + std::move(text) + "\x1b[0m" : text;
  }

  std::string bar(std::size_t cells) const {
    const auto done = static_cast<std::size_t>(std::lround(fraction_ * static_cast<double>(cells)));
    std::string full;
    std::string rest;
    for (std::size_t i = 0; i < done; ++i) full += unicode_ ? "━" : "#";
    for (std::size_t i = done; i < cells; ++i) rest += unicode_ ? "─" : "-";
    return coloured("\x1b[36m", full) + coloured("\x1b[2m", rest) + " ";
  }

  void draw() {
    char percent[8];
    std::snprintf(percent, sizeof percent, "%3d%%", static_cast<int>(fraction_ * 100.0));
    std::string line = percent;
    std::size_t shown = fields_.size();
    if (live_) {
      std::size_t used = line.size();
      for (const ProgressField& field : fields_) used += width(field);
      const std::size_t room = columns();
      while (shown > 0 && used > room) used -= width(fields_[--shown]);
      const std::size_t cells = used + 1 < room ? std::min(room - used - 1, longest_bar) : 0;
      if (cells >= shortest_bar) line = bar(cells) + line;
      line = "\r" + line;
    }
    for (std::size_t i = 0; i < shown; ++i) {
      const ProgressField& field = fields_[i];
      line += "  ";
      if (!field.label.empty()) line += coloured("\x1b[2m", field.label) + " ";
      line += field.value;
    }
    write(line + (live_ ? "\x1b[K" : "\n"));
    drawn_at_ = Clock::now();
    drawn_ = true;
    pending_ = false;
  }

  // One write per line: the terminal never shows half of one.
  void write(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), out_);
    std::fflush(out_);
  }

  std::FILE* out_;
  ProgressOptions options_;
  bool live_;
  bool colour_;
  bool unicode_;
  double fraction_ = 0.0;
  std::vector<ProgressField> fields_;
  bool pending_ = false;  // an update has not been drawn yet
  bool drawn_ = false;    // the current line has been drawn
  Clock::time_point drawn_at_ = {};
};

}  // namespace examples
