// SPDX-License-Identifier: MIT
#include "support/model_cases.cuh"

namespace retnet::test {

class CudaModelBfloat16 : public CudaModel<__nv_bfloat16> {};
RETNET_CUDA_MODEL_TESTS(CudaModelBfloat16)

}  // namespace retnet::test
