// SPDX-License-Identifier: MIT
// What the kernels for Hopper, forward and backward, ask before they serve.
#pragma once

#include "retnet/cuda/ptx.cuh"
#include "retnet/cuda/retention_problem.cuh"

namespace retnet::cuda {

/// A Hopper device, a program with code for it, and nobody who forbids it. The program is asked once.
inline bool sm90_context_serves(const CudaContext& ctx) {
  if (!ctx.hopper() || ctx.portable_only) return false;
  static const bool compiled = compiled_for_sm90a();
  return compiled;
}

/// Bulk copies want addresses and distances that are multiples of 16 bytes; elements have two.
template <class T>
bool sm90_rows_serve(DeviceRows<T> rows) {
  return rows.stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(rows.data) % 16 == 0;
}

}  // namespace retnet::cuda
