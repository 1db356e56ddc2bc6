// SPDX-License-Identifier: MIT
#include "cuda/support/instances.cuh"

namespace retnet {

RETNET_RETENTION_OPS(, __nv_bfloat16)

}  // namespace retnet
