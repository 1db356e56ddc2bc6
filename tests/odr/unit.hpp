// SPDX-License-Identifier: MIT
// What one translation unit computed, and how two are compared. Nothing of the library is in here.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

struct UnitResult {
  std::string layer_name;      // mangled name of the layer's type; holds the instruction set
  float difference_of_forms;   // largest difference between parallel and chunkwise outputs
  std::vector<float> outputs;  // of the parallel form
};

/// Largest difference of n pairs. NaN counts as infinity: std::max alone would pass over it.
inline float largest_difference(const float* a, const float* b, std::size_t n) {
  float largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const float difference = std::abs(a[i] - b[i]);
    if (std::isnan(difference)) return std::numeric_limits<float>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}
