// SPDX-License-Identifier: MIT
// [B,T,C] has three dimensions; a batch of heads [B,H,T,D] is something else.
#include "retnet/core/tensor.hpp"
#include "retnet/core/view.hpp"

#ifdef RETNET_EXPECT_FAIL
constexpr int rank = 4;
#else
constexpr int rank = 3;
#endif

void read(retnet::ConstView<float, 3> x);

void call(const Eigen::Tensor<float, rank, Eigen::RowMajor>& x) { read(x); }
