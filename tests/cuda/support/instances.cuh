// SPDX-License-Identifier: MIT
// The ops of retention are compiled once for all tests (retention_float.cu and its twins): their
// kernels are what takes nvcc longest. Without RETNET_SHARED_INSTANCES each file has its own.
#pragma once

#include "retnet/cuda/retention.cuh"

#define RETNET_RETENTION_OPS(keyword, T)                                                         \
  keyword template void retention_chunkwise<T>(CudaContext&, const DeviceRetention<T>&,          \
                                               const float*, float*, DeviceRows<T>);             \
  keyword template void retention_parallel<T>(CudaContext&, const DeviceRetention<T>&,           \
                                              const float*, float*, DeviceRows<T>);              \
  keyword template void retention_recurrent<T>(CudaContext&, const DeviceRetention<T>&,          \
                                               const float*, float*, DeviceRows<T>);             \
  keyword template void retention_chunkwise_backward<T>(CudaContext&, const DeviceRetention<T>&, \
                                                        const float*, DeviceRows<const T>,       \
                                                        const DeviceRetentionGradient<T>&);

namespace retnet {

#ifdef RETNET_SHARED_INSTANCES
RETNET_RETENTION_OPS(extern, float)
RETNET_RETENTION_OPS(extern, __nv_bfloat16)
RETNET_RETENTION_OPS(extern, __half)
#endif

}  // namespace retnet
