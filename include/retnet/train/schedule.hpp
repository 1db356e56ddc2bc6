// SPDX-License-Identifier: MIT
// Learning rate: linear warm-up, then half a cosine down to a floor (Loshchilov & Hutter 2017).
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "retnet/core/check.hpp"

namespace retnet::inline RETNET_ABI {

struct CosineSchedule {
  double peak = 1e-3;
  double warmup = 0.02;  // fraction of the run
  double floor = 0.1;    // fraction of the peak that is left at the end

  void validate() const {
    constexpr const char* kWhere = "CosineSchedule";
    RETNET_CHECK(std::isfinite(peak) && peak >= 0.0, kWhere, "peak = ", peak, ", expected >= 0");
    RETNET_CHECK(warmup >= 0.0 && warmup < 1.0, kWhere, "warmup = ", warmup,
                 ", expected in [0, 1)");
    RETNET_CHECK(floor >= 0.0 && floor <= 1.0, kWhere, "floor = ", floor, ", expected in [0, 1]");
  }

  /// progress in [0, 1]: step / steps, or time spent / time given.
  double at(double progress) const {
    progress = std::clamp(progress, 0.0, 1.0);
    if (progress < warmup) return peak * std::max(progress / warmup, 1e-3);
    const double down = (progress - warmup) / (1.0 - warmup);
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * down)));
  }
};

}  // namespace retnet::inline RETNET_ABI
