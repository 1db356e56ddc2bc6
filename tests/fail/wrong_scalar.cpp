// SPDX-License-Identifier: MIT
// Doubles never turn into floats behind the caller's back.
#include "retnet/core/tensor.hpp"
#include "retnet/core/view.hpp"

#ifdef RETNET_EXPECT_FAIL
using Scalar = double;
#else
using Scalar = float;
#endif

void read(retnet::ConstView<float, 3> x);

void call(const Eigen::Tensor<Scalar, 3, Eigen::RowMajor>& x) { read(x); }
