// SPDX-License-Identifier: MIT
// The door of a layer is a view as well: no overload of it takes a column-major tensor.
#include "retnet/retnet.hpp"

#ifdef RETNET_EXPECT_FAIL
constexpr int layout = Eigen::ColMajor;
#else
constexpr int layout = Eigen::RowMajor;
#endif

void call(const retnet::MultiScaleRetention<float>& layer,
          const Eigen::Tensor<float, 3, layout>& x) {
  layer.forward_parallel(x);
}
