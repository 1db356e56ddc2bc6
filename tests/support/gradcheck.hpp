// SPDX-License-Identifier: MIT
// Hand-written gradients against finite differences, for ops, layers and models, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "retnet/core/rng.hpp"

namespace retnet::test {

/// max |fd - analytic| / max |fd| over `samples` elements of x (all of them when x is small), for
/// the scalar function loss() that reads x. Two central differences and one Richardson step: the
/// error of the formula is h^4, so h can be large enough that rounding does not hide an error of
/// 1e-6.
template <class F>
double gradient_error(std::span<double> x, std::span<const double> analytic, F&& loss,
                      int samples = 48) {
  if (x.size() != analytic.size() || x.empty()) return std::numeric_limits<double>::infinity();
  const std::size_t count = std::min(x.size(), static_cast<std::size_t>(samples));
  const double width = static_cast<double>(x.size()) / static_cast<double>(count);
  double difference = 0.0;
  // Gradients smaller than the noise of the difference itself count as zero.
  double size = 1e-5 * std::fmax(1.0, std::fabs(loss()));
  for (std::size_t n = 0; n < count; ++n) {
    const double jitter = count == x.size() ? 0.0 : uniform(Seed{7}, 0, n);  // one in each stratum
    const auto i =
        std::min(static_cast<std::size_t>((static_cast<double>(n) + jitter) * width), x.size() - 1);
    const double kept = x[i], step = 1e-4 * std::fmax(1.0, std::fabs(kept));
    const auto central = [&](double h) {
      x[i] = kept + h;
      const double above = loss();
      x[i] = kept - h;
      const double below = loss();
      return (above - below) / (2.0 * h);
    };
    const double coarse = central(step), fine = central(step / 2.0);
    x[i] = kept;
    const double fd = (4.0 * fine - coarse) / 3.0;
    if (!std::isfinite(fd) || !std::isfinite(analytic[i]))
      return std::numeric_limits<double>::infinity();
    difference = std::fmax(difference, std::fabs(fd - analytic[i]));
    size = std::fmax(size, std::fabs(fd));
  }
  return difference / size;
}

}  // namespace retnet::test
