// SPDX-License-Identifier: MIT
// A matrix inside a larger one: shows that an op reads and writes its window and nothing around it.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "retnet/core/buffer.hpp"
#include "retnet/core/window.hpp"
#include "support/random.hpp"

namespace retnet::test {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class S>
struct Framed {
  static constexpr Index kMargin = 3;
  Index rows, cols;
  Buffer<S> memory;

  /// Frame and window hold the same number at first.
  Framed(Index rows_, Index cols_, double frame = kNaN)
      : rows(rows_),
        cols(cols_),
        memory(filled<S>((rows_ + 2 * kMargin) * (cols_ + 2 * kMargin), frame)) {}
  /// Uniform numbers in a frame of NaN: reading the frame shows.
  static Framed random(Index rows, Index cols, std::uint64_t stream, double low = -1.0,
                       double high = 1.0) {
    return Framed(rows, cols).fill(stream, low, high);
  }

  Framed& fill(std::uint64_t stream, double low = -1.0, double high = 1.0) {
    const auto values = random_uniform<S>(rows * cols, stream, low, high);
    return assign(Window<const S>(values.data(), rows, cols));
  }
  Framed& assign(Window<const S> values) {
    const auto w = window();
    for (Index r = 0; r < rows; ++r) std::copy_n(values.row(r), cols, w.row(r));
    return *this;
  }

  Window<S> window() {
    return Window<S>(memory.data(), rows + 2 * kMargin, cols + 2 * kMargin)
        .block(kMargin, kMargin, rows, cols);
  }
  Window<const S> window() const {
    return Window<const S>(memory.data(), rows + 2 * kMargin, cols + 2 * kMargin)
        .block(kMargin, kMargin, rows, cols);
  }

  /// True when everything but the window still holds `frame`.
  bool frame_is(double frame) const {
    const Framed untouched(rows, cols, frame);
    Framed copy = *this;
    copy.assign(untouched.window());
    const auto bytes = static_cast<std::size_t>(memory.size()) * sizeof(S);
    return std::memcmp(copy.memory.data(), untouched.memory.data(), bytes) == 0;
  }
};

}  // namespace retnet::test
