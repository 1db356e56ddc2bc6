// SPDX-License-Identifier: MIT
// What is counted in nanoseconds an element, one thread: norms, gate, rotation and their gradients
// over a layer's rows, and the functions below them over 16 KB that stay in the first cache. The
// limit is a copy of as many bytes: where the arithmetic takes longer, the fraction is small.
#include <Eigen/Core>
#include <cmath>

#include "bench_ops/ops.hpp"
#include "retnet/ops/activation.hpp"
#include "retnet/ops/norm.hpp"
#include "retnet/ops/rotation.hpp"
#include "retnet/simd/math.hpp"

namespace bench {
namespace {

constexpr Index kWidth = 1024, kHeads = 8;

struct Operands {
  explicit Operands(Index r) : rows(r), x(r * kWidth), u(r * kWidth), y(r * kWidth), w(kWidth) {
    fill(x, 0, 4.0F);
    fill(u, 1);
    fill(w, 2);
  }
  Window<const float> in() const { return {x.data(), rows, kWidth}; }
  Window<const float> factor() const { return {u.data(), rows, kWidth}; }
  Window<const float> weight() const { return {w.data(), 1, kWidth}; }
  Window<float> out() { return {y.data(), rows, kWidth}; }

  Index rows;
  Buffer<float> x, u, y, w;
};

// `operands`: how many arrays of [rows,kWidth] the op reads and writes.
template <class Body>
void add_rows(const std::string& name, Index rows, double operands, Body body) {
  add(name + "/KB:" + std::to_string(rows * kWidth * 4 >> 10), [=](benchmark::State& state) {
    Operands c(rows);
    auto& ctx = context(1);
    const double elements = static_cast<double>(rows * kWidth);
    measure(state,
            {.elements = elements,
             .bytes = operands * 4.0 * elements,
             .traffic = Stream::copy,
             .footprint = operands * 4.0 * elements},
            [&] {
              body(ctx, c);
              benchmark::DoNotOptimize(c.y.data());
            });
  });
}

void add_layer_parts(Index rows) {
  const Window<const float> none;
  for (const auto& [name, kind] :
       {std::pair{"norm/rms", NormKind::rms}, {"norm/layer", NormKind::layer}})
    add_rows(name, rows, 2, [=, kind = kind](Cpu& ctx, Operands& c) {
      norm(ctx, kind, 1e-6, Index{1}, c.weight(), none, c.in(), c.out());
    });
  add_rows("norm/rms_per_head", rows, 2, [=](Cpu& ctx, Operands& c) {
    norm(ctx, NormKind::rms, 1e-6, kHeads, none, none, c.in(), c.out());
  });
  add_rows("norm/rms_backward", rows, 3, [=](Cpu& ctx, Operands& c) {
    norm_backward(ctx, NormKind::rms, 1e-6, Index{1}, none, c.in(), c.factor(), Window<float>(),
                  Window<float>(), c.out());
  });
  add_rows("gate/swish", rows, 3, [](Cpu& ctx, Operands& c) {
    gate(ctx, Activation::swish, c.in(), c.factor(), c.out());
  });
  const RotationTable table(RotationLayout::interleaved, theta_inclusive(kWidth / kHeads, 10000.0));
  add_rows("rotation/interleaved", rows, 2,
           [table, log_gamma = log_gamma_pow2(kHeads)](Cpu& ctx, Operands& c) {
             const std::int64_t position = 0;
             rotate(ctx, table, {0.125, log_gamma}, kHeads, Sequences::dense(1, c.rows), &position,
                    c.in(), c.out());
           });
}

using Array = Eigen::Map<Eigen::ArrayXf>;
using ConstArray = Eigen::Map<const Eigen::ArrayXf>;

void add_functions() {
  constexpr Index kRows = 4;
  const auto eigen = [](Operands& c, auto expression) {
    Array(c.y.data(), c.y.size()) = expression(ConstArray(c.x.data(), c.x.size()));
  };
  const auto plain = [](Operands& c, auto f) {
    for (Index i = 0; i < c.x.size(); ++i) c.y[i] = f(c.x[i]);
  };
  add_rows("exp/simd", kRows, 2, [](Cpu&, Operands& c) {
    simd::for_each_pack<float>(c.x.size(), [&](auto p, Index i) {
      exp(decltype(p)::load(c.x.data() + i)).store(c.y.data() + i);
    });
  });
  add_rows("exp/baseline_eigen", kRows, 2,
           [=](Cpu&, Operands& c) { eigen(c, [](auto x) { return x.exp(); }); });
  add_rows("exp/baseline_std", kRows, 2,
           [=](Cpu&, Operands& c) { plain(c, [](float x) { return std::exp(x); }); });
  for (const auto& [name, kind] : {std::pair{"sigmoid", Activation::sigmoid},
                                   {"swish", Activation::swish},
                                   {"gelu", Activation::gelu},
                                   {"gelu_tanh", Activation::gelu_tanh}})
    add_rows(name + std::string("/simd"), kRows, 2,
             [kind = kind](Cpu& ctx, Operands& c) { activation(ctx, kind, c.in(), c.out()); });
  add_rows("sigmoid/baseline_eigen", kRows, 2,
           [=](Cpu&, Operands& c) { eigen(c, [](auto x) { return 1.0F / (1.0F + (-x).exp()); }); });
  add_rows("swish/baseline_eigen", kRows, 2,
           [=](Cpu&, Operands& c) { eigen(c, [](auto x) { return x / (1.0F + (-x).exp()); }); });
  add_rows("gelu/baseline_std", kRows, 2, [=](Cpu&, Operands& c) {
    plain(c, [](float x) { return 0.5F * x * (1.0F + std::erf(x * 0.70710678F)); });
  });
}

}  // namespace

void add_elementwise(const Flags& flags) {
  add_layer_parts(flags.quick ? 16 : 64);
  if (!flags.quick) add_layer_parts(4096);
  add_functions();
}

}  // namespace bench
