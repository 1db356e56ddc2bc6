// SPDX-License-Identifier: MIT
// Eigen's tensors are column-major unless told otherwise; read as row-major they would be scrambled
// in silence.
#include "retnet/core/tensor.hpp"
#include "retnet/core/view.hpp"

#ifdef RETNET_EXPECT_FAIL
constexpr int layout = Eigen::ColMajor;
#else
constexpr int layout = Eigen::RowMajor;
#endif

void read(retnet::ConstView<float, 3> x);

void call(const Eigen::Tensor<float, 3, layout>& x) { read(x); }
