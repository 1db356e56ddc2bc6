// SPDX-License-Identifier: MIT
// y[M,d] = x[M,d] W[d,d]^T: M = 1 to 16 are the batches of generation and short prompts, 64 and 512
// long texts. Warm rows use one W over and over; cold rows go through 1 GB of them, as a model
// larger than the caches does, and are given for the M where that decides. Up to 16 rows the call
// is that of a generation step.
#include <Eigen/Core>

#include "baselines.hpp"
#include "bench_ops/ops.hpp"
#include "retnet/ops/linear.hpp"

namespace bench {
namespace {

constexpr Index kStepRows = 16;

template <class W>
const Buffer<W>& weights();
template <>
const Buffer<float>& weights<float>() {
  static const Buffer<float> memory = [] {
    Buffer<float> m(kBeyondCaches / 4);
    fill(m, 4, 0.0625F);
    return m;
  }();
  return memory;
}
template <>
const Buffer<bfloat16>& weights<bfloat16>() {
  static const Buffer<bfloat16> memory = [] {
    Buffer<bfloat16> m(kBeyondCaches / 2);
    const auto& from = weights<float>();
    for (Index i = 0; i < m.size(); ++i) m[i] = scalar_cast<bfloat16>(from[i % from.size()]);
    return m;
  }();
  return memory;
}

struct Case {
  Index m, d;
  bool cold;
  int threads;
  std::string text() const {
    return "/M:" + std::to_string(m) + "/d:" + std::to_string(d) + (cold ? "/cold" : "/warm") +
           threads_suffix(threads);
  }
};

// start() is called when the row starts and gives run(x, w, y), one product.
template <class W, class Start>
void add_product(const std::string& name, const Case& c, Start start) {
  add("linear/" + name + c.text(), [=](benchmark::State& state) {
    const auto run = start();
    const Index size = c.d * c.d, count = c.cold ? weights<W>().size() / size : 1;
    Buffer<float> x(c.m * c.d), y(c.m * c.d);
    fill(x, 5);
    Index turn = 0;
    const double bytes = static_cast<double>(size) * sizeof(W);
    measure(state,
            {.tokens = static_cast<double>(c.m),
             .flops = 2.0 * static_cast<double>(c.m * size),
             .bytes = bytes,
             .footprint = c.cold ? static_cast<double>(kBeyondCaches) : bytes,
             .threads = c.threads},
            [&] {
              run(x.data(), weights<W>().data() + turn * size, y.data());
              turn = turn + 1 == count ? 0 : turn + 1;
              benchmark::DoNotOptimize(y.data());
            });
  });
}

template <class W>
void add_ours(const std::string& name, const Case& c) {
  add_product<W>(name, c, [c] {
    return [c, &ctx = context(c.threads)](const float* x, const W* w, float* y) {
      linear(ctx, Window<const W>(w, c.d, c.d), Window<const W>(), Window<const float>(x, c.m, c.d),
             Window<float>(y, c.m, c.d), c.m <= kStepRows);
    };
  });
}

void eigen_product(const Case& c, const float* x, const float* w, float* y) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> a(x, c.m, c.d), b(w, c.d, c.d);
  if (c.m == 1) {  // as a vector, so that Eigen takes its matrix-vector product
    Eigen::Map<Eigen::VectorXf>(y, c.d).noalias() = b * Eigen::Map<const Eigen::VectorXf>(x, c.d);
  } else {
    Eigen::Map<Matrix>(y, c.m, c.d).noalias() = a * b.transpose();
  }
}

void add_eigen(const Case& c) {
  add_product<float>("baseline_eigen", c, [c] {
    return [c](const float* x, const float* w, float* y) { eigen_product(c, x, w, y); };
  });
}

void add_library(const MatrixLibrary& library, const Case& c) {
  add_product<float>(std::string("baseline_") + library.name, c, [&library, c] {
    wake(library, c.threads);
    return [&library, m = static_cast<int>(c.m), d = static_cast<int>(c.d)](
               const float* x, const float* w, float* y) { library.product(m, d, d, x, w, y); };
  });
}

}  // namespace

void add_linear(const Flags& flags) {
  for (const Index d : {512, 1024, 2048}) {
    if (flags.quick && d != 512) continue;
    for (const Index m : {1, 2, 4, 8, 16, 64, 512})
      for (const int t : flags.threads)
        for (const bool cold : {false, true}) {
          const Case c{m, d, cold, t};
          if ((cold && m > kStepRows) || (flags.quick && m != 1 && m != 8 && m != 64)) continue;
          add_ours<float>("float", c);
          add_ours<bfloat16>("bfloat16", c);
          if (t == 1) add_eigen(c);
          for (const auto& library : matrix_libraries()) add_library(library, c);
        }
  }
}

}  // namespace bench
