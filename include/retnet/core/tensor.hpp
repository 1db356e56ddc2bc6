// SPDX-License-Identifier: MIT
// The only file that includes Eigen's Tensor module: it costs each translation unit seconds.
#pragma once

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include "retnet/version.hpp"

namespace retnet::inline RETNET_ABI {

/// [B,T,C], the shape of every activation at the public door.
template <class Scalar>
using Tensor3 = Eigen::Tensor<Scalar, 3, Eigen::RowMajor>;

/// A column-major tensor, copied into the layout that the library reads.
template <class Scalar, int Rank>
Eigen::Tensor<Scalar, Rank, Eigen::RowMajor> to_row_major(
    const Eigen::Tensor<Scalar, Rank, Eigen::ColMajor>& x) {
  Eigen::array<int, Rank> reversed;
  for (int i = 0; i < Rank; ++i) reversed[static_cast<std::size_t>(i)] = Rank - 1 - i;
  return x.swap_layout().shuffle(reversed);  // swap_layout reverses the order of dimensions
}

}  // namespace retnet::inline RETNET_ABI
