// SPDX-License-Identifier: MIT
// The groups of rows; each in a file of its own.
#pragma once

#include "measure.cuh"
#include "report.hpp"

namespace bench {

void add_retention(CudaContext& ctx, const Limits& limits, Report& report);
void add_row_ops(CudaContext& ctx, const Limits& limits, Report& report);
void add_decode(CudaContext& ctx, const Limits& limits, Report& report);

}  // namespace bench
