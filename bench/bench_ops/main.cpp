// SPDX-License-Identifier: MIT
// The operators that a layer is made of, float, each beside what a user would take instead, and
// each as a fraction of what the machine can do (report.hpp). Rows, in the order of the files:
//
//   retention/   three forms and backward at head sizes 64x128, 128x256, 256x512
//   step/        one token of many states, in and out of the caches
//   linear/      products of 1 to 512 rows with weights in and out of the caches
//   norm/ gate/ rotation/ exp/ ...   what is counted in nanoseconds an element
//   attention/   the library's own, as carefully written as the retention
//   error/       distance of float results from those in double
//
// Rows named baseline_* are of others: the oracle, plain Eigen, the matrix libraries found.
#include "baselines.hpp"
#include "bench_ops/ops.hpp"

int main(int argc, char** argv) {
  return bench::run(argc, argv, "", [](bench::Flags& flags) {
    bench::add_retention(flags);
    bench::add_steps(flags);
    bench::add_linear(flags);
    bench::add_elementwise(flags);
    bench::add_attention(flags);
    bench::add_accuracy(flags);
    for (const auto& library : bench::matrix_libraries())
      benchmark::AddCustomContext(library.name, library.version);
  });
}
