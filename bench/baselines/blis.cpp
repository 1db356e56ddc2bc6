// SPDX-License-Identifier: MIT
// BLIS by its own typed interface: its BLAS symbols would clash with those of another library.
#include <blis.h>

#include "baselines.hpp"

namespace bench {

namespace {

void product(int m, int n, int k, const float* x, const float* w, float* y) {
  float one = 1.0F, zero = 0.0F;
  auto* a = const_cast<float*>(x);  // the interface knows no const
  auto* b = const_cast<float*>(w);
  if (m == 1) {
    bli_sgemv(BLIS_NO_TRANSPOSE, BLIS_NO_CONJUGATE, n, k, &one, b, k, 1, a, 1, &zero, y, 1);
  } else {
    bli_sgemm(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, m, n, k, &one, a, k, 1, b, 1, k, &zero, y, n,
              1);
  }
}

}  // namespace

MatrixLibrary blis() {
  bli_init();  // or the question below ends the program where BLIS_ARCH_TYPE is set
  const std::string version(bli_info_get_version_str());
  return {"blis", version + " " + bli_arch_string(bli_arch_query_id()),
          [](int threads) { bli_thread_set_num_threads(threads); }, product};
}

}  // namespace bench
