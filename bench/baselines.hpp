// SPDX-License-Identifier: MIT
// What a user would take instead of the library's product: y[M,N] = x[M,K] W[N,K]^T of the matrix
// libraries that CMake found, each behind its own file in baselines/. They are called as their
// manuals say, on row-major float, with a matrix-vector product for one row where there is one.
// Of ggml it is the whole operator.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "machine.hpp"
#include "problems.hpp"

namespace bench {

struct MatrixLibrary {
  const char* name;
  std::string version;
  void (*set_threads)(int);
  void (*product)(int m, int n, int k, const float* x, const float* w, float* y);
};

#ifdef RETNET_BENCH_OPENBLAS
MatrixLibrary openblas();
#endif
#ifdef RETNET_BENCH_BLIS
MatrixLibrary blis();
#endif
#ifdef RETNET_BENCH_ONEDNN
MatrixLibrary onednn();
#endif

#ifdef RETNET_BENCH_GGML
/// A function that computes the retention of p from empty states and says where [B,T,H*Dv] lies.
std::function<const float*()> ggml_retention(const Problem<>& p);
#endif

inline std::span<const MatrixLibrary> matrix_libraries() {
  static const std::vector<MatrixLibrary> all{
#ifdef RETNET_BENCH_OPENBLAS
      openblas(),
#endif
#ifdef RETNET_BENCH_BLIS
      blis(),
#endif
#ifdef RETNET_BENCH_ONEDNN
      onednn(),
#endif
  };
  return all;
}

/// Sets the number of threads, and lets them start where they may choose their processor: started
/// from a pinned thread they would all share its one.
inline void wake(const MatrixLibrary& library, int threads) {
  const Unpinned guard;
  static const std::vector<float> x(256 * 256, 1.0F), w(256 * 256, 1.0F);
  static std::vector<float> y(256 * 256);
  library.set_threads(threads);
  library.product(256, 256, 256, x.data(), w.data(), y.data());
}

}  // namespace bench
