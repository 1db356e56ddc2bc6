// SPDX-License-Identifier: MIT
// One layer, two forms, one answer.
#include <retnet/retnet.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>

int main() {
  using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
  retnet::MultiScaleRetention<float> layer({.d_model = 64, .heads = 4}, retnet::Seed{42});
  Tensor x(2, 12, 64);
  x.setRandom();

  const Tensor y = layer.forward_parallel(x);
  auto state = layer.initial_state(2);
  const Tensor y2 = layer.forward_chunkwise(x, state, 5);

  float largest = 0;
  bool equal = true;  // NaN is not
  for (Eigen::Index i = 0; i < y.size(); ++i) {
    largest = std::max(largest, std::abs(y.data()[i]));
    equal = equal && std::abs(y.data()[i] - y2.data()[i]) < 1e-4f;
  }
  std::printf("retnet %s: outputs up to %g, the two forms %s\n", RETNET_VERSION_STRING,
              static_cast<double>(largest), equal ? "agree" : "differ");
  return largest > 0 && equal ? 0 : 1;
}
