// SPDX-License-Identifier: MIT
// Compiled several times, under different names and for different instruction sets.
#include "unit.hpp"

#include <retnet/retnet.hpp>

#include <cmath>
#include <typeinfo>

UnitResult RETNET_ODR_UNIT() {
  using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
  retnet::MultiScaleRetention<float> layer({.d_model = 64, .heads = 4}, retnet::Seed{42});
  Tensor x(2, 12, 64);
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    x.data()[i] = std::sin(0.37f * static_cast<float>(i));
  }

  const Tensor y = layer.forward_parallel(x);
  auto state = layer.initial_state(2);
  const Tensor y2 = layer.forward_chunkwise(x, state, 5);

  const auto size = static_cast<std::size_t>(y.size());
  return {typeid(layer).name(), largest_difference(y.data(), y2.data(), size),
          std::vector<float>(y.data(), y.data() + size)};
}
