// SPDX-License-Identifier: MIT
// A result written into a temporary is lost at the end of the line.
#include <utility>

#include "retnet/core/tensor.hpp"
#include "retnet/core/view.hpp"

void write(retnet::View<float, 3> x);

void call(Eigen::Tensor<float, 3, Eigen::RowMajor> x) {
#ifdef RETNET_EXPECT_FAIL
  write(std::move(x));
#else
  write(x);
#endif
}
