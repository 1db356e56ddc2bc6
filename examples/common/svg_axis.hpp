// The arithmetic of a chart axis: its range, where the ticks go, what they say.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace examples {

enum class SvgScale { linear, log };

struct SvgAxis {
  std::string label = {};             // "training time"; the unit may be part of it
  SvgScale scale = SvgScale::linear;  // log shows positive values only
  std::string unit = {};              // "B" makes ticks like "10 MB"; empty makes "10M"
  std::optional<double> min = {};     // default: from the data, rounded to ticks
  std::optional<double> max = {};
};

namespace internal {

// Shortest text at the given number of decimals; independent of the locale.
inline std::string fixed(double value, int decimals) {
  std::array<char, 400> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value,
                                 std::chars_format::fixed, decimals);
  std::string out(text.data(), end.ptr);
  if (out.find('.') != out.npos) {
    out.erase(out.find_last_not_of('0') + 1);
    if (out.back() == '.') out.pop_back();
  }
  return out == "-0" ? "0" : out;
}

inline std::string superscript(int exponent) {
  static constexpr std::array<const char*, 10> digits = {"⁰", "¹", "²", "³", "⁴",
                                                         "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string out(exponent < 0 ? "⁻" : "");
  for (char digit : std::to_string(std::abs(exponent))) {
    out += digits[static_cast<std::size_t>(digit - '0')];
  }
  return out;
}

// 2500 -> "2.5k", 0.25 -> "0.25", 1e-12 -> "10⁻¹²"; with the unit "s", 0.002 -> "2 ms".
inline std::string tick_text(double value, const std::string& unit) {
  static constexpr std::array<const char*, 8> prefixes = {"n", "µ", "m", "", "k", "M", "G", "T"};
  constexpr double slack = 1.0 - 1e-9;  // 999.9999999 is 1k
  const double size = std::abs(value);
  const std::string gap = unit.empty() || unit == "%" ? "" : " ";
  if (size == 0.0) return "0" + gap + unit;
  const double smallest = unit == "s" ? 1e-9 : 1e-3;  // only seconds go by milli, micro, nano
  if (size < smallest * slack || size >= 1e15 * slack) {
    const int exponent = static_cast<int>(std::floor(std::log10(size) + 1e-9));
    const std::string mantissa = fixed(value / std::pow(10.0, exponent), 2);
    return (mantissa == "1" ? "" : mantissa + "·") + "10" + superscript(exponent) + gap + unit;
  }
  std::size_t prefix = 3;
  double scaled = value;
  for (; std::abs(scaled) >= 1e3 * slack && unit != "%" && prefix < 7; ++prefix) scaled /= 1e3;
  for (; std::abs(scaled) < slack && unit == "s" && prefix > 0; --prefix) scaled *= 1e3;
  return fixed(scaled, 6) + gap + prefixes[prefix] + unit;
}

// 1, 2 or 5 times a power of ten, about (high - low) / wanted and not less.
inline double linear_step(double low, double high, int wanted) {
  const double raw = (high - low) / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (double factor : {1.0, 2.0, 5.0}) {
    if (raw <= power * factor * (1.0 + 1e-9)) return power * factor;
  }
  return power * 10.0;
}

inline std::vector<double> linear_ticks(double low, double high, double step) {
  std::vector<double> ticks;
  const std::int64_t last = std::llround(std::floor(high / step + 1e-6));
  for (std::int64_t i = std::llround(std::ceil(low / step - 1e-6)); i <= last; ++i) {
    ticks.push_back(static_cast<double>(i) * step);
  }
  return ticks;
}

// Decades between two labels, so that there are about as many as wanted.
inline int log_every(double low, double high, int wanted) {
  return std::max(1, static_cast<int>(std::ceil((std::log10(high / low) - 1e-6) / wanted)));
}

// Less than a decade reads best with evenly stepped labels.
inline bool within_decade(double low, double high) { return high < low * 10.0 * (1.0 - 1e-9); }

// Powers of ten, every nth if they are many; with 2 and 5 between them if they are few.
inline std::vector<double> log_ticks(double low, double high, int wanted) {
  if (within_decade(low, high)) return linear_ticks(low, high, linear_step(low, high, wanted));
  const int every = log_every(low, high, wanted);
  const int first = static_cast<int>(std::floor(std::log10(low) / every)) * every;
  const bool dense = std::log10(high / low) < 2.5;
  std::vector<double> ticks;
  for (int exponent = first; exponent <= std::log10(high) + 1e-9; exponent += every) {
    ticks.push_back(std::pow(10.0, exponent));
    if (dense) ticks.insert(ticks.end(), {2.0 * ticks.back(), 5.0 * ticks.back()});
  }
  std::erase_if(ticks, [=](double t) { return t < low * (1.0 - 1e-9) || t > high * (1.0 + 1e-9); });
  return ticks;
}

// An axis fitted to data: a value's place on it, 0 at the low end and 1 at the high end.
class AxisMap {
 public:
  // Values that the scale cannot show do not count. A vertical axis is rounded out to ticks, so
  // that grid lines close the frame; a horizontal one only where that costs little of its width.
  AxisMap(const SvgAxis& axis, const std::vector<double>& values, int wanted, bool vertical)
      : log_(axis.scale == SvgScale::log), unit_(axis.unit) {
    fit(values);
    if (axis.min && shows(*axis.min)) low_ = *axis.min;
    if (axis.max && shows(*axis.max)) high_ = *axis.max;
    const double size = std::max(std::abs(low_), std::abs(high_));
    if (!(high_ - low_ > 1e-9 * size)) widen();
    const double low = rounded(low_, wanted, false);
    const double high = rounded(high_, wanted, true);
    const double step = linear_step(low_, high_, wanted);
    const double worth = vertical ? 2.0 : log_ ? 0.0 : 0.05;
    const bool round_low = !axis.min && -position(low) < worth;
    const bool round_high = !axis.max && position(high) - 1.0 < worth;
    if (round_low) low_ = low;
    if (round_high) high_ = high;
    ticks_ = log_ ? log_ticks(low_, high_, wanted) : linear_ticks(low_, high_, step);
  }

  // Not NaN, infinite or absurd, and positive on a log scale.
  bool shows(double value) const { return std::abs(value) < 1e150 && (!log_ || value > 1e-150); }

  bool contains(double value) const {
    return shows(value) && position(value) > -1e-9 && position(value) < 1.0 + 1e-9;
  }

  double position(double value) const {
    return log_ ? std::log(value / low_) / std::log(high_ / low_) : (value - low_) / (high_ - low_);
  }

  const std::vector<double>& ticks() const { return ticks_; }
  std::string text(double tick) const { return tick_text(tick, unit_); }

 private:
  void fit(const std::vector<double>& values) {
    low_ = std::numeric_limits<double>::infinity();
    high_ = -low_;
    for (double value : values) {
      if (!shows(value)) continue;
      low_ = std::min(low_, value);
      high_ = std::max(high_, value);
    }
    if (low_ > high_) {
      low_ = log_ ? 1.0 : 0.0;
      high_ = log_ ? 10.0 : 1.0;
    }
  }

  // All data at one value, or nearly, or limits the wrong way round.
  void widen() {
    const double pad = low_ == 0.0 ? 1.0 : std::abs(low_) * 0.5;
    high_ = log_ ? low_ * 2.0 : low_ + pad;
    low_ = log_ ? low_ / 2.0 : low_ - pad;
  }

  // The next tick outwards.
  double rounded(double value, int wanted, bool up) const {
    const auto round = [up](double v) { return up ? std::ceil(v - 1e-6) : std::floor(v + 1e-6); };
    const double step = linear_step(low_, high_, wanted);
    if (!log_) return round(value / step) * step;
    if (within_decade(low_, high_)) return std::max(round(value / step) * step, low_ / 2.0);
    const int every = log_every(low_, high_, wanted);
    if (std::log10(high_ / low_) >= 2.5) {
      return std::pow(10.0, round(std::log10(value) / every) * every);
    }
    const double power = std::pow(10.0, std::floor(std::log10(value) + 1e-6));
    return round(value / power) * power;
  }

  bool log_;
  std::string unit_;
  double low_ = 0.0;
  double high_ = 1.0;
  std::vector<double> ticks_;
};

}  // namespace internal
}  // namespace examples
