// SPDX-License-Identifier: MIT
// An expression has no memory yet; evaluating it here would be a hidden copy.
#include "retnet/core/tensor.hpp"
#include "retnet/core/view.hpp"

void read(retnet::ConstView<float, 3> x);

void call(const Eigen::Tensor<float, 3, Eigen::RowMajor>& x) {
#ifdef RETNET_EXPECT_FAIL
  read(x + x);
#else
  read(x);
#endif
}
