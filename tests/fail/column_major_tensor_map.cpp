// SPDX-License-Identifier: MIT
// The layout of a map over foreign memory counts as much as that of a tensor.
#include "retnet/core/tensor.hpp"
#include "retnet/core/view.hpp"

#ifdef RETNET_EXPECT_FAIL
constexpr int layout = Eigen::ColMajor;
#else
constexpr int layout = Eigen::RowMajor;
#endif

void write(retnet::View<float, 3> x);

void call(Eigen::TensorMap<Eigen::Tensor<float, 3, layout>> x) { write(x); }
