// SPDX-License-Identifier: MIT
// The retention operator on a whole text, and token by token.
//
// retention/  B = 1, H = 8, a text of T tokens in one call, from a state and to a state; gradients
//             without one.
// step/       one call, one token, as in generation: the states of several layers in turn, so many
//             that together they have the size in the row's name. In place a step reads and writes
//             its state once; with deferred writes it reads it and, on average, half of a window
//             of keys and values, and writes it once a window.
#include "baselines.hpp"
#include "bench_ops/ops.hpp"
#include "eigen_retention.hpp"
#include "retnet/ops/retention_deferred.hpp"
#include "retnet/ops/retention_recurrent.hpp"

namespace bench {
namespace {

constexpr Index kHeads = 8;
constexpr Index kWindow = 16;  // of deferred writes

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

void add_chunkwise(const Shape& shape) {
  add_text("chunkwise", shape, retention_flops(shape, From::state), [](Cpu& ctx, Problem<>& p) {
    retention_chunkwise(ctx, p.retention(), Index{64}, p.state.data(), p.output());
  });
}

// The gradients alone, or after their forward.
void add_backward(const std::string& name, const Shape& shape, bool forward) {
  const double flops = retention_backward_flops(shape, From::nothing) +
                       (forward ? retention_flops(shape, From::nothing) : 0.0);
  add("retention/" + name + shape.text(), [=](benchmark::State& state) {
    Problem<> p(shape);
    Gradients<> g(shape);
    auto& ctx = context(shape.threads);
    float* none = nullptr;
    measure(state,
            {.tokens = static_cast<double>(shape.rows()), .flops = flops, .threads = shape.threads},
            [&] {
              if (forward) retention_chunkwise(ctx, p.retention(), Index{64}, none, p.output());
              retention_chunkwise_backward(ctx, p.retention(), Index{64},
                                           static_cast<const float*>(none), g.upstream(),
                                           g.retention());
              benchmark::DoNotOptimize(g.dq.data());
            });
  });
}

#ifdef RETNET_BENCH_GGML
void add_ggml(const Shape& shape) {
  add("retention/baseline_ggml" + shape.text(), [=](benchmark::State& state) {
    Problem<> p(shape);
    const auto run = ggml_retention(p);
    retention_chunkwise(context(1), p.retention(), Index{64}, p.state.data(), p.output());
    const float* theirs = run();
    for (Index i = 0; i < p.o.size(); ++i)
      if (std::abs(theirs[i] - p.o[i]) > 1e-3F * (1.0F + std::abs(p.o[i])))
        return state.SkipWithError("another function than ours");
    measure(state,
            {.tokens = static_cast<double>(shape.rows()),
             .flops = recurrent_flops(shape),
             .threads = shape.threads},
            [&] { benchmark::DoNotOptimize(run()); });
  });
}
#endif

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

// One token on the state of that number.
using Step = std::function<void(Cpu& ctx, Index number)>;

Step in_place(Problem<>& p, float* states, Index) {
  return [&p, states](Cpu& ctx, Index number) {
    retention_recurrent(ctx, p.retention(), states + number * p.shape.state_size(), p.output());
  };
}

struct Pending {
  Pending(const Shape& s, Index states)
      : keys(states * s.heads * kWindow * s.key_dim),
        values(states * s.heads * kWindow * s.value_dim),
        log_decay(static_cast<std::size_t>(states * s.heads * kWindow)),
        counts(static_cast<std::size_t>(states)) {
    keys.fill(0.0F);
    values.fill(0.0F);
    // Every state is elsewhere in its window, so that writes come evenly.
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<Index>(i) % kWindow;
  }
  PendingTokens<float> operator()(const Shape& s, Index number) {
    const Index at = number * s.heads * kWindow;
    return {kWindow,
            keys.data() + at * s.key_dim,
            values.data() + at * s.value_dim,
            log_decay.data() + at,
            {counts.data() + number, 1}};
  }
  Buffer<float> keys, values;
  std::vector<double> log_decay;
  std::vector<Index> counts;
};

Step deferred(Problem<>& p, float* states, Index count) {
  return [&p, states, pending = std::make_shared<Pending>(p.shape, count)](Cpu& ctx, Index number) {
    retention_deferred(ctx, p.retention(), (*pending)(p.shape, number),
                       states + number * p.shape.state_size(), p.output());
  };
}

Step eigen_step(Problem<>& p, float* states, Index) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Row = Eigen::Matrix<float, 1, Eigen::Dynamic>;
  return [&p, states](Cpu&, Index number) {
    const Shape& s = p.shape;
    for (Index h = 0; h < s.heads; ++h) {
      Eigen::Map<Matrix> state(states + (number * s.heads + h) * s.key_dim * s.value_dim, s.key_dim,
                               s.value_dim);
      const Eigen::Map<const Row> q(p.q.data() + h * s.key_dim, s.key_dim);
      const Eigen::Map<const Row> k(p.k.data() + h * s.key_dim, s.key_dim);
      const Eigen::Map<const Row> v(p.v.data() + h * s.value_dim, s.value_dim);
      const auto gamma = static_cast<float>(std::exp(p.log_gamma[static_cast<std::size_t>(h)]));
      state = gamma * state + k.transpose() * v;
      Eigen::Map<Row>(p.o.data() + h * s.value_dim, s.value_dim).noalias() = q * state;
    }
  };
}

double bytes_in_place(const Shape& s) { return 8.0 * static_cast<double>(s.state_size()); }
double bytes_deferred(const Shape& s) {
  const Index rows = s.heads * (s.key_dim + s.value_dim);
  return 4.0 * (static_cast<double>(s.state_size()) * (1.0 + 1.0 / kWindow) +
                0.5 * static_cast<double>((kWindow + 1) * rows));
}

struct StepKind {
  const char* name;
  Step (*begin)(Problem<>& p, float* states, Index count);
  double (*bytes)(const Shape& s);
  Stream traffic;
  bool threads;
};
constexpr StepKind kSteps[] = {
    {"in_place", in_place, bytes_in_place, Stream::update, true},
    {"deferred", deferred, bytes_deferred, Stream::read, true},
    {"baseline_eigen", eigen_step, bytes_in_place, Stream::update, false},
};

void add_step(const StepKind& kind, const Shape& shape, Index total) {
  const std::string name = std::string("step/") + kind.name + "/" + shape.dims() +
                           "/KB:" + std::to_string(total >> 10) + threads_suffix(shape.threads);
  add(name, [=](benchmark::State& state) {
    Problem<> p(shape);
    const Index size = shape.state_size(), count = std::max<Index>(1, total / (size * 4));
    Buffer<float> states(size * count);
    states.fill(0.0F);
    const Step step = kind.begin(p, states.data(), count);
    auto& ctx = context(shape.threads);
    Index turn = 0;
    measure(state,
            {.tokens = 1,
             .flops = recurrent_flops(shape),
             .bytes = kind.bytes(shape),
             .traffic = kind.traffic,
             .footprint = static_cast<double>(total),
             .threads = shape.threads},
            [&] {
              step(ctx, turn);
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
      add_chunkwise(shape);
      add_text("recurrent", shape, recurrent_flops(shape), [](Cpu& ctx, Problem<>& p) {
        retention_recurrent(ctx, p.retention(), p.state.data(), p.output());
      });
      add_backward("chunkwise_backward", shape, false);
      add_backward("chunkwise_forward_backward", shape, true);
#ifdef RETNET_BENCH_GGML
      Shape short_text = shape;  // ggml goes through it token by token, at the same rate at any T
      short_text.tokens = 512;
      if (tokens != 512) add_chunkwise(short_text);
      add_ggml(short_text);
#endif
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
      for (const Index kb :
           {Index{256}, Index{1024}, Index{4096}, Index{16384}, kBeyondCaches >> 10}) {
        if (kb * 1024 < 4 * shape.state_size()) continue;
        if (flags.quick && kb != 256) continue;
        for (const auto& kind : kSteps)
          if (t == 1 || kind.threads) add_step(kind, shape, kb << 10);
      }
    }
}

}  // namespace bench
