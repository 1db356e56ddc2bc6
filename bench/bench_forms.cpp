// SPDX-License-Identifier: MIT
// The three forms over the length of the text, T = 64 to 65536, beside softmax attention, the
// oracle and plain Eigen; B, H, Dk, Dv and threads by flags. Three kinds of rows:
//
//   op/      the operator alone. Attention has the same heads; its values are as wide as keys.
//   layer/   a whole layer, projections and norms included, d_model = H Dk; the same for
//            attention. The parallel form takes the text in one call; the others go on from a state
//            or a cache, 512 tokens a call, which is how long texts are read in constant memory.
//   decode/  one more token after a context of so many, a layer: what generation waits for
//
// memory is what the row holds beside inputs, outputs and weights, in bytes: scratch, and the state
// or the cache. ns/token is for one text (B texts run in the time given, divided by all tokens).
#include <cmath>

#include "eigen_retention.hpp"
#include "problems.hpp"
#include "report.hpp"
#include "retnet/layers/attention.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace {

using namespace retnet;
using bench::From;
using bench::Problem;
using bench::Shape;

constexpr Index kPerCall = 512;  // tokens of a long text at a time
constexpr int kDecodeSteps = 32;

struct Options {
  Shape shape;  // tokens are set by the row
  std::vector<Index> lengths, contexts;
  Index longest_quadratic = 0;  // rows that take time by the square of T
  Index longest_plain = 0;      // and those of them that are not optimised
};

std::string row_name(const std::string& name, const Shape& s) {
  return name + "/T:" + std::to_string(s.tokens) + bench::threads_suffix(s.threads);
}

// body() is one pass over the tokens; memory() is asked afterwards.
template <class Body, class Memory>
void measure_text(benchmark::State& state, const Shape& s, double flops, Body&& body,
                  Memory&& memory) {
  auto& ctx = bench::context(s.threads);
  ctx.reset_peak();
  const auto rows = static_cast<double>(s.rows());
  bench::measure(state, {.tokens = rows, .flops = flops, .threads = s.threads}, body);
  state.counters["ns/token"] = 1e9 / state.counters["tokens/s"].value;
  if (const double held = static_cast<double>(ctx.peak_bytes()) + static_cast<double>(memory());
      held > 0.0)
    state.counters["memory"] = held;
}

// ---- op/ ----

template <class Run>
void add_op(const std::string& name, const Shape& s, double flops, bool with_state, Run run) {
  bench::add(row_name("op/" + name, s), [=](benchmark::State& state) {
    Problem<> p(s);
    auto& ctx = bench::context(s.threads);
    measure_text(
        state, s, flops,
        [&] {
          run(ctx, p, with_state ? p.state.data() : nullptr);
          benchmark::DoNotOptimize(p.o.data());
        },
        [&] { return with_state ? p.state.size() * 4 : 0; });
  });
}

void add_training(const Shape& s) {
  const double flops =
      bench::retention_flops(s, From::nothing) + bench::retention_backward_flops(s, From::nothing);
  bench::add(row_name("op/chunkwise_forward_backward", s), [=](benchmark::State& state) {
    Problem<> p(s);
    bench::Gradients<> g(s);
    auto& ctx = bench::context(s.threads);
    float* none = nullptr;
    measure_text(
        state, s, flops,
        [&] {
          retention_chunkwise(ctx, p.retention(), Index{64}, none, p.output());
          retention_chunkwise_backward(ctx, p.retention(), Index{64},
                                       static_cast<const float*>(none), g.upstream(),
                                       g.retention());
          benchmark::DoNotOptimize(g.dq.data());
        },
        [] { return 0; });
  });
}

void add_eigen(const std::string& name, const Shape& s, Index chunk) {
  bench::add(row_name("op/baseline_eigen_" + name, s), [=](benchmark::State& state) {
    Problem<> p(s);
    bench::EigenRetention eigen(p, chunk);
    measure_text(
        state, s, bench::retention_flops(s, From::nothing),
        [&] {
          eigen.run();
          benchmark::DoNotOptimize(p.o.data());
        },
        [&] { return eigen.bytes(); });
  });
}

void add_oracle(const Shape& s) {
  bench::add(row_name("op/baseline_oracle_parallel", s), [=](benchmark::State& state) {
    Problem<> p(s);
    Reference ctx;
    measure_text(
        state, s, bench::retention_flops(s, From::nothing),
        [&] {
          retention_parallel(ctx, p.retention(), static_cast<float*>(nullptr), p.output());
          benchmark::DoNotOptimize(p.o.data());
        },
        [&] { return ctx.peak_bytes(); });
  });
}

void add_attention_op(const Shape& s) {
  add_op("attention", s, bench::attention_flops(s), false, [](Cpu& ctx, Problem<>& p, float*) {
    auto in = p.attention();
    in.scale = 1.0 / std::sqrt(static_cast<double>(p.shape.key_dim));
    attention(ctx, in, Index{0}, p.output());
  });
}

void add_ops(const Options& o, Shape s) {
  for (const Index tokens : o.lengths) {
    s.tokens = tokens;
    const double flops = bench::retention_flops(s, From::state);
    add_op("parallel", s, bench::retention_flops(s, From::nothing), false,
           [](Cpu& ctx, Problem<>& p, float*) {
             retention_parallel(ctx, p.retention(), static_cast<float*>(nullptr), p.output());
           });
    add_op("chunkwise", s, flops, true, [](Cpu& ctx, Problem<>& p, float* state) {
      retention_chunkwise(ctx, p.retention(), Index{64}, state, p.output());
    });
    add_op("recurrent", s, bench::recurrent_flops(s), true,
           [](Cpu& ctx, Problem<>& p, float* state) {
             retention_recurrent(ctx, p.retention(), state, p.output());
           });
    add_training(s);
    Shape narrow = s;
    narrow.value_dim = s.key_dim;
    if (tokens <= o.longest_quadratic) add_attention_op(narrow);
    if (s.threads > 1) continue;
    if (tokens <= o.longest_plain / 4) add_oracle(s);
    if (tokens <= o.longest_plain) add_eigen("parallel", s, tokens);
    add_eigen("chunkwise", s, std::min<Index>(64, tokens));
  }
}

// ---- layer/ ----

MultiScaleRetention<float> retention_layer(const Shape& s) {
  return MultiScaleRetention<float>({.d_model = s.keys(), .heads = s.heads, .d_value = s.values()},
                                    Seed{1});
}
Attention<float> attention_layer(const Shape& s) {
  return Attention<float>({.d_model = s.keys(), .heads = s.heads}, Seed{1});
}

struct Rows {
  explicit Rows(const Shape& s) : x(s.rows() * s.keys()), y(s.rows() * s.keys()) {
    bench::fill(x, 7);
  }
  Buffer<float> x, y;
};

// Tokens [first, first + n) of every text; texts lie one behind the other.
template <class Layer, class State>
void run_layer(Cpu& ctx, const Layer& layer, const Shape& s, Form form, Index first, Index n,
               Rows& rows, State* state) {
  const Index d = s.keys(), at = first * s.batch * d;
  const Sequences sequences = Sequences::dense(s.batch, n);
  layer.forward(ctx, layer.weights(), Pass{form, sequences},
                ConstView<float, 3>(rows.x.data() + at, {s.batch, n, d}), state,
                View<float, 3>(rows.y.data() + at, {s.batch, n, d}));
}

template <class Layer>
void add_layer(const std::string& name, const Shape& s, Form form, Index per_call, double flops,
               Layer (*make)(const Shape&)) {
  bench::add(row_name("layer/" + name, s), [=](benchmark::State& state) {
    const Layer layer = make(s);
    Rows rows(s);
    auto& ctx = bench::context(s.threads);
    auto memory = layer.initial_state(s.batch);
    const bool stateful = per_call < s.tokens || form.kind != Form::Kind::parallel;
    const double products =
        2.0 * static_cast<double>(s.rows()) * static_cast<double>(layer.layout().count());
    measure_text(
        state, s, products + flops,
        [&] {
          memory.reset();
          for (Index i = 0; i < s.tokens; i += per_call)
            run_layer(ctx, layer, s, form, i, std::min(per_call, s.tokens - i), rows,
                      stateful ? &memory : nullptr);
          benchmark::DoNotOptimize(rows.y.data());
        },
        [&] { return stateful ? memory.bytes() : 0; });
  });
}

void add_layers(const Options& o, Shape s) {
  for (const Index tokens : o.lengths) {
    s.tokens = tokens;
    const double flops = bench::retention_flops(s, From::state);
    add_layer("parallel", s, Form::parallel(), tokens, bench::retention_flops(s, From::nothing),
              retention_layer);
    add_layer("chunkwise", s, Form::chunkwise(), kPerCall, flops, retention_layer);
    add_layer("recurrent", s, Form::recurrent(), kPerCall, bench::recurrent_flops(s),
              retention_layer);
    Shape narrow = s;
    narrow.value_dim = s.key_dim;
    if (tokens <= o.longest_quadratic)
      add_layer("attention", narrow, Form::chunkwise(kPerCall), kPerCall,
                bench::attention_flops(narrow), attention_layer);
  }
}

// ---- decode/ ----

std::string decode_name(const std::string& name, Index context, int threads) {
  return "decode/" + name + "/context:" + std::to_string(context) + bench::threads_suffix(threads);
}

// The state of one text after so many tokens. What the numbers are costs nothing in time.
void give_past(RetentionState<float>& state, Index context) {
  for (auto& position : state.positions()) position = context;
}
void give_past(KeyValueState<float>& state, Index context) {
  Buffer<float> k(context * state.key_width()), v(context * state.value_width());
  bench::fill(k, 8, 0.125F);
  bench::fill(v, 9);
  state.reserve(context + 2 * kDecodeSteps);
  for (Index i = 0; i < state.sequences(); ++i)
    state.restore(i, context, {k.data(), context, state.key_width()},
                  {v.data(), context, state.value_width()});
}

// A few steps only: a cache grows while it is measured.
template <class Layer>
void add_layer_decode(const std::string& name, Shape s, Index past, Layer (*make)(const Shape&)) {
  s.tokens = 1;
  bench::add(decode_name(name, past, s.threads), [=](benchmark::State& state) {
    const Layer layer = make(s);
    Rows rows(s);
    auto& ctx = bench::context(s.threads);
    auto memory = layer.initial_state(s.batch);
    give_past(memory, past);
    const double bytes =
        4.0 * static_cast<double>(layer.layout().count()) +
        (std::same_as<Layer, Attention<float>> ? 1.0 : 2.0) * static_cast<double>(memory.bytes());
    bench::measure(state,
                   {.tokens = static_cast<double>(s.batch),
                    .bytes = bytes,
                    .footprint = bytes,
                    .threads = s.threads},
                   [&] {
                     run_layer(ctx, layer, s, Form::recurrent(), 0, 1, rows, &memory);
                     benchmark::DoNotOptimize(rows.y.data());
                   });
    state.counters["memory"] = static_cast<double>(memory.bytes());
  })->Iterations(kDecodeSteps);
}

void add_decode(const Options& o, const Shape& s) {
  for (const Index past : o.contexts) {
    add_layer_decode("retention", s, past, retention_layer);
    add_layer_decode("attention", s, past, attention_layer);
  }
}

void add_rows(bench::Flags& flags) {
  Options o;
  const std::vector<Index> all{64, 256, 1024, 2048, 4096, 8192, 16384, 65536}, few{64, 256, 1024};
  o.shape.batch = flags.number("batch", 1);
  o.shape.heads = flags.number("heads", 8);
  o.shape.key_dim = flags.number("key-dim", 64);
  o.shape.value_dim = flags.number("value-dim", 128);
  o.lengths = flags.list("tokens", flags.quick ? few : all);
  o.contexts = flags.list("contexts",
                          flags.quick ? std::vector<Index>{1024}
                                      : std::vector<Index>{1024, 2048, 4096, 8192, 16384, 32768});
  o.longest_quadratic = flags.number("longest-attention", 16384);
  o.longest_plain = flags.number("longest-plain", flags.quick ? 256 : 4096);
  for (const int t : flags.threads) {
    o.shape.threads = t;
    add_ops(o, o.shape);
    add_layers(o, o.shape);
    add_decode(o, o.shape);
  }
}

constexpr const char* kHelp =
    "  --batch=1 --heads=8 --key-dim=64 --value-dim=128\n"
    "  --tokens=64,256,1024,2048,...,65536     lengths of the text\n"
    "  --contexts=1024,...,32768               tokens before the one that decode/ rows time\n"
    "  --longest-attention=16384               attention is left out where the text is longer\n"
    "  --longest-plain=4096                    so is plain Eigen's parallel form; the oracle at a\n"
    "                                          quarter of it\n";

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, kHelp, add_rows); }
