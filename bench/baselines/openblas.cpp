// SPDX-License-Identifier: MIT
// OpenBLAS: sgemm, and sgemv for one row.
#include <cblas-openblas.h>

#include "baselines.hpp"

namespace bench {

MatrixLibrary openblas() {
  return {"openblas", openblas_get_config(), [](int threads) { openblas_set_num_threads(threads); },
          [](int m, int n, int k, const float* x, const float* w, float* y) {
            if (m == 1) {
              cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1.0F, w, k, x, 1, 0.0F, y, 1);
            } else {
              cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0F, x, k, w, k, 0.0F,
                          y, n);
            }
          }};
}

}  // namespace bench
