// SPDX-License-Identifier: MIT
#include "support/model_cases.cuh"

namespace retnet::test {

class CudaModelFloat : public CudaModel<float> {};
RETNET_CUDA_MODEL_TESTS(CudaModelFloat)

}  // namespace retnet::test
