// SPDX-License-Identifier: MIT
// Eigen::MatrixXf is column-major: as one sequence [T,C] it would be read transposed.
#include <Eigen/Core>

#include "retnet/core/view.hpp"

#ifdef RETNET_EXPECT_FAIL
constexpr int layout = Eigen::ColMajor;
#else
constexpr int layout = Eigen::RowMajor;
#endif

void read(retnet::ConstView<float, 3> x);

void call(const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, layout>& x) { read(x); }
