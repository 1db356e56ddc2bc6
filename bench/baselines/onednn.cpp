// SPDX-License-Identifier: MIT
// oneDNN: dnnl_sgemm, which takes plain matrices like the others and packs nothing ahead.
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "baselines.hpp"

namespace bench {

MatrixLibrary onednn() {
  const dnnl_version_t* v = dnnl_version();
  return {
      "onednn",
      std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch),
      [](int threads) { omp_set_num_threads(threads); },
      [](int m, int n, int k, const float* x, const float* w, float* y) {
        dnnl_sgemm('N', 'T', m, n, k, 1.0F, x, k, w, k, 0.0F, y, n);
      }};
}

}  // namespace bench
