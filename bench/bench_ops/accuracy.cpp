// SPDX-License-Identifier: MIT
// How far float results are from those in double, on inputs that peers/torch_retnet.py makes by the
// same formula (problems.hpp) and treats the same way: H = 8, Dk = 64, Dv = 128. Outputs are held
// against the recurrence; gradients, of sum over i of o_i formula(3, i), against our kernels in
// double, which the tests hold against the definition.
//
//   rms_error   sqrt(sum of squared differences / sum of squares)
//   max_error   largest difference / largest number
//   checksum    sum over i of o_i formula(6, i), in double: the same in both programs, or they did
//               not compute the same thing
#include <cmath>

#include "bench_ops/ops.hpp"
#include "retnet/ops/retention_recurrent.hpp"

namespace bench {
namespace {

Problem<double> truth(const Shape& shape) {
  Problem<double> p(shape);
  Reference ctx;
  retention_recurrent(ctx, p.retention(), p.state.data(), p.output());
  return p;
}

void compare(benchmark::State& state, const Buffer<double>& good, const Buffer<float>& o) {
  double difference = 0.0, squares = 0.0, worst = 0.0, largest = 0.0, checksum = 0.0;
  for (Index i = 0; i < o.size(); ++i) {
    const double d = std::abs(static_cast<double>(o[i]) - good[i]);
    difference += d * d;
    squares += good[i] * good[i];
    worst = std::max(worst, d);
    largest = std::max(largest, std::abs(good[i]));
    checksum += good[i] * static_cast<double>(formula(6, static_cast<std::uint64_t>(i)));
  }
  state.counters["rms_error"] = std::sqrt(difference / squares);
  state.counters["max_error"] = worst / largest;
  state.counters["checksum"] = checksum;
}

void gradients(Cpu& ctx, auto& p, auto& g) {
  using S = std::remove_pointer_t<decltype(g.dq.data())>;
  retention_chunkwise_backward(ctx, p.retention(), Index{64}, static_cast<const S*>(nullptr),
                               g.upstream(), g.retention());
}

void add_gradient_error(const std::string& name, Index tokens, auto member) {
  const Shape shape{1, tokens, 8, 64, 128, 1};
  add("error/" + name + shape.text(), [=](benchmark::State& state) {
    Problem<double> exact(shape);
    Problem<> p(shape);
    Gradients<double> good(shape);
    Gradients<> g(shape);
    gradients(context(1), exact, good);
    for (auto _ : state) gradients(context(1), p, g);
    compare(state, member(good), member(g));
  })->Iterations(1);
}

template <class Run>
void add_error(const std::string& form, Index tokens, Run run) {
  const Shape shape{1, tokens, 8, 64, 128, 1};
  add("error/" + form + shape.text(), [=](benchmark::State& state) {
    const Problem<double> good = truth(shape);
    Problem<> p(shape);
    for (auto _ : state) run(context(1), p);
    compare(state, good.o, p.o);
  })->Iterations(1);
}

}  // namespace

void add_accuracy(const Flags& flags) {
  for (const Index tokens : {512, 4096}) {
    if (flags.quick && tokens > 512) continue;
    add_error("parallel", tokens, [](Cpu& ctx, Problem<>& p) {
      retention_parallel(ctx, p.retention(), static_cast<float*>(nullptr), p.output());
    });
    add_error("chunkwise", tokens, [](Cpu& ctx, Problem<>& p) {
      retention_chunkwise(ctx, p.retention(), Index{64}, static_cast<float*>(nullptr), p.output());
    });
    add_error("recurrent", tokens, [](Cpu& ctx, Problem<>& p) {
      retention_recurrent(ctx, p.retention(), static_cast<float*>(nullptr), p.output());
    });
    add_gradient_error(
        "chunkwise_dq", tokens, [](const auto& g) -> const auto& { return g.dq; });
    add_gradient_error(
        "chunkwise_dk", tokens, [](const auto& g) -> const auto& { return g.dk; });
    add_gradient_error(
        "chunkwise_dv", tokens, [](const auto& g) -> const auto& { return g.dv; });
  }
}

}  // namespace bench
