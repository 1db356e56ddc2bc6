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
  Eigen::Tensor<Scalar, Rank, Eigen::RowMajor> y(x.dimensions());
  Eigen::array<Eigen::Index, Rank> at{};  // counts up with the last index fastest
  for (Eigen::Index i = 0; i < y.size(); ++i) {
    y.data()[i] = x(at);
    for (std::size_t d = Rank; d-- > 0 && ++at[d] == x.dimension(static_cast<int>(d));) at[d] = 0;
  }
  return y;
}

}  // namespace retnet::inline RETNET_ABI
