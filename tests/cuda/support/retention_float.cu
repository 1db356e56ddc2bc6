// SPDX-License-Identifier: MIT
#include "cuda/support/instances.cuh"

namespace retnet {

RETNET_RETENTION_OPS(, float)

}  // namespace retnet
