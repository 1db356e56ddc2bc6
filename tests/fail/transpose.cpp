// SPDX-License-Identifier: MIT
// The transpose of a row-major matrix has its numbers in column order.
#include <Eigen/Core>

#include "retnet/core/view.hpp"

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void read(retnet::ConstView<float, 3> x);

void call(const Matrix& x) {
#ifdef RETNET_EXPECT_FAIL
  read(x.transpose());
#else
  read(x);
#endif
}
