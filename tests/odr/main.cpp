// SPDX-License-Identifier: MIT
// Both units must agree with themselves and with each other; and with different instruction sets, they must not share
// a name, or the linker would give both the same code.
#include <cstdio>

#include "unit.hpp"

UnitResult RETNET_ODR_FIRST();
UnitResult RETNET_ODR_SECOND();

int main() {
  const UnitResult first = RETNET_ODR_FIRST();
  const UnitResult second = RETNET_ODR_SECOND();

  const std::vector<float> zeros(first.outputs.size());
  if (second.outputs.size() != zeros.size()) return 1;
  const float size = largest_difference(first.outputs.data(), zeros.data(), zeros.size());
  const float difference =
      largest_difference(first.outputs.data(), second.outputs.data(), zeros.size());
  std::printf("%s\n%s\noutputs up to %g, forms differ by %g and %g, units by %g\n",
              first.layer_name.c_str(), second.layer_name.c_str(), static_cast<double>(size),
              static_cast<double>(first.difference_of_forms),
              static_cast<double>(second.difference_of_forms), static_cast<double>(difference));

  const float tolerance = 1e-4f;
  const bool good = size > 0 && first.difference_of_forms < tolerance &&
                    second.difference_of_forms < tolerance && difference < tolerance &&
                    (first.layer_name == second.layer_name) == RETNET_ODR_SAME_NAMES;
  return good ? 0 : 1;
}
