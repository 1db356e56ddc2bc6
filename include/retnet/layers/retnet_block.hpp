// SPDX-License-Identifier: MIT
// The block of a RetNet: multi-scale retention and a feed-forward network (Sun et al. 2023, Eq. 9).
#pragma once

#include "retnet/layers/block.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet::inline RETNET_ABI {

template <ComputeScalar Scalar, class Weight = Scalar>
using RetNetBlock = Block<MultiScaleRetention<Scalar, Weight>>;

}  // namespace retnet::inline RETNET_ABI
