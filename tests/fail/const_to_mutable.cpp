// SPDX-License-Identifier: MIT
// What the caller holds const, no callee writes.
#include "retnet/core/tensor.hpp"
#include "retnet/core/view.hpp"

#ifdef RETNET_EXPECT_FAIL
using Tensor = const Eigen::Tensor<float, 3, Eigen::RowMajor>;
#else
using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;
#endif

void write(retnet::View<float, 3> x);

void call(Tensor& x) { write(x); }
