// SPDX-License-Identifier: MIT
// The retention operator on a whole text, and token by token.
//
// retention/  B = 1, H = 8, a text of T tokens in one call, from a state and to a state.
// step/       one call, one token, as in generation: the states of several layers in turn, so many
//             that together they have the size in the row's name. A step reads and writes its state
//             once; kinds of step that move less come with their own number in kSteps.
#include "bench_ops/ops.hpp"
#include "eigen_retention.hpp"
#include "retnet/ops/retention_recurrent.hpp"

namespace bench {
namespace {

constexpr Index kHeads = 8;

struct Dims {
  Index key, value;
};
std::vector<Dims> dims(const Flags& flags) {
  if (flags.quick) return {{64, 128}};
  return {{64, 128}, {128, 256}, {256, 512}};
}

// body(ctx, problem) is one pass over the text.
template <class Body>
void add_text(const std::string& name, const Shape& shape, double flops, Body body) {
  add("retention/" + name + shape.text(), [=](benchmark::State& state) {
    Problem<> p(shape);
    auto& ctx = context(shape.threads);
    measure(state,
            {.tokens = static_cast<double>(shape.rows()), .flops = flops, .threads = shape.threads},
            [&] {
              body(ctx, p);
              benchmark::DoNotOptimize(p.o.data());
            });
  });
}

void add_backward(const Shape& shape) {
  add("retention/chunkwise_backward" + shape.text(), [=](benchmark::State& state) {
    Problem<> p(shape);
    Gradients<> g(shape);
    auto& ctx = context(shape.threads);
    measure(state,
            {.tokens = static_cast<double>(shape.rows()),
             .flops = retention_backward_flops(shape, From::nothing),
             .threads = shape.threads},
            [&] {
              retention_chunkwise_backward(ctx, p.retention(), Index{64},
                                           static_cast<const float*>(nullptr), g.upstream(),
                                           g.retention());
              benchmark::DoNotOptimize(g.dq.data());
            });
  });
}

void add_eigen(const Shape& shape, const std::string& name, Index chunk) {
  add("retention/baseline_eigen_" + name + shape.text(), [=](benchmark::State& state) {
    Problem<> p(shape);
    EigenRetention eigen(p, chunk);
    measure(state,
            {.tokens = static_cast<double>(shape.rows()),
             .flops = retention_flops(shape, From::nothing)},
            [&] {
              eigen.run();
              benchmark::DoNotOptimize(p.o.data());
            });
  });
}

void add_oracle(const Shape& shape) {
  add("retention/baseline_oracle_parallel" + shape.text(), [=](benchmark::State& state) {
    Problem<> p(shape);
    Reference ctx;
    measure(
        state,
        {.tokens = static_cast<double>(shape.rows()), .flops = retention_flops(shape, From::state)},
        [&] {
          retention_parallel(ctx, p.retention(), p.state.data(), p.output());
          benchmark::DoNotOptimize(p.o.data());
        });
  });
}

// One token of `rows` sequences on the states given.
using Step = void (*)(Cpu& ctx, const Problem<>& p, float* state, Window<float> o);
struct StepKind {
  const char* name;
  Step run;
  double traffic;  // times the size of the state
};
constexpr StepKind kSteps[] = {
    {"in_place",
     [](Cpu& ctx, const Problem<>& p, float* state, Window<float> o) {
       retention_recurrent(ctx, p.retention(), state, o);
     },
     2.0},
};

void eigen_step(const Problem<>& p, float* states, Window<float> o) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Row = Eigen::Matrix<float, 1, Eigen::Dynamic>;
  const Shape& s = p.shape;
  for (Index h = 0; h < s.heads; ++h) {
    Eigen::Map<Matrix> state(states + h * s.key_dim * s.value_dim, s.key_dim, s.value_dim);
    const Eigen::Map<const Row> q(p.q.data() + h * s.key_dim, s.key_dim);
    const Eigen::Map<const Row> k(p.k.data() + h * s.key_dim, s.key_dim);
    const Eigen::Map<const Row> v(p.v.data() + h * s.value_dim, s.value_dim);
    const auto gamma = static_cast<float>(std::exp(p.log_gamma[static_cast<std::size_t>(h)]));
    state = gamma * state + k.transpose() * v;
    Eigen::Map<Row>(o.data + h * s.value_dim, s.value_dim).noalias() = q * state;
  }
}

template <class Run>
void add_step(const std::string& name, const Shape& shape, Index total, double traffic, Run run) {
  const std::string full = "step/" + name + "/" + shape.dims() +
                           "/KB:" + std::to_string(total >> 10) + threads_suffix(shape.threads);
  add(full, [=](benchmark::State& state) {
    Problem<> p(shape);
    const Index size = shape.state_size(), count = std::max<Index>(1, total / (size * 4));
    Buffer<float> states(size * count);
    states.fill(0.0F);
    auto& ctx = context(shape.threads);
    Index turn = 0;
    measure(state,
            {.tokens = 1,
             .flops = recurrent_flops(shape),
             .bytes = traffic * 4.0 * static_cast<double>(size),
             .traffic = Stream::update,
             .footprint = static_cast<double>(total),
             .threads = shape.threads},
            [&] {
              run(ctx, p, states.data() + turn * size, p.output());
              turn = turn + 1 == count ? 0 : turn + 1;
              benchmark::DoNotOptimize(p.o.data());
            });
  });
}

}  // namespace

void add_retention(const Flags& flags) {
  const Index tokens = flags.quick ? 512 : 2048;
  for (const Dims d : dims(flags)) {
    for (const int t : flags.threads) {
      const Shape shape{1, tokens, kHeads, d.key, d.value, t};
      add_text("parallel", shape, retention_flops(shape, From::state), [](Cpu& ctx, Problem<>& p) {
        retention_parallel(ctx, p.retention(), p.state.data(), p.output());
      });
      add_text("chunkwise", shape, retention_flops(shape, From::state), [](Cpu& ctx, Problem<>& p) {
        retention_chunkwise(ctx, p.retention(), Index{64}, p.state.data(), p.output());
      });
      add_text("recurrent", shape, recurrent_flops(shape), [](Cpu& ctx, Problem<>& p) {
        retention_recurrent(ctx, p.retention(), p.state.data(), p.output());
      });
      add_backward(shape);
    }
    const Shape one{1, tokens, kHeads, d.key, d.value, 1};
    add_eigen(one, "chunkwise", 64);
    add_eigen(one, "parallel", tokens);
    Shape few = one;
    few.tokens = 256;
    add_oracle(few);
  }
}

void add_steps(const Flags& flags) {
  for (const Dims d : dims(flags))
    for (const int t : flags.threads) {
      const Shape shape{1, 1, kHeads, d.key, d.value, t};
      for (const Index kb : {256, 1024, 4096, 16384, 262144}) {
        if (kb * 1024 < 4 * shape.state_size()) continue;
        if (flags.quick && kb != 256) continue;
        for (const auto& kind : kSteps)
          add_step(kind.name, shape, kb << 10, kind.traffic, kind.run);
        if (t == 1)
          add_step("baseline_eigen", shape, kb << 10, 2.0,
                   [](Cpu&, const Problem<>& p, float* state, Window<float> o) {
                     eigen_step(p, state, o);
                   });
      }
    }
}

}  // namespace bench
