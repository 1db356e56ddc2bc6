// SPDX-License-Identifier: MIT
// A whole model in tokens/s: reading a prompt, generating, training. The size comes from flags; by
// default d 512, 6 layers, 4 heads, values 2d wide, GLU of 1024, vocabulary 1000 (torchscale_v2).
// The same with softmax attention in every layer stands beside it (it has fewer weights: 4 d^2 in
// an attention layer, 8 d^2 in this retention), and peers/torch_retnet.py measures the model in
// PyTorch.
//
//   prefill/     T tokens to the state and the logits of the last one, 512 tokens a call
//   decode/      one token more after a context, sampler included, float and bfloat16 weights. A
//                step is bytes: all weights once (of the embedding one row), the state twice
//   gradient/    forward and backward of a batch; training/ the same and clipping and AdamW
//   fingerprint  one number of the logits of a model whose weights follow the formula of
//                problems.hpp: peers that print another number do not run the same model
#include <algorithm>

#include "problems.hpp"
#include "report.hpp"
#include "retnet/model/session.hpp"
#include "retnet/train/trainer.hpp"

namespace {

using namespace retnet;

constexpr Index kPerCall = 512;
constexpr int kDecodeSteps = 32;

struct Options {
  RetNetConfig retention, attention;  // the same model with either mixer
  std::vector<Index> lengths, contexts;
  Index batch = 1, train_tokens = 512;
};

RetNetConfig with_attention(RetNetConfig c) {
  for (Index l = 0; l < c.layers; ++l) c.attention.push_back({l, {.heads = c.retention.heads}});
  return c;
}

std::vector<Token> text(Index n, Index vocab) {
  std::vector<Token> tokens(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<Token>(philox({1}, 0, i)[0] % static_cast<std::uint32_t>(vocab));
  return tokens;
}

// Weights of matrix products; what attention or retention adds grows with the text.
double product_weights(const RetNetModel<float>& model) {
  const auto& c = model.config();
  return static_cast<double>(model.count_params() - c.vocab * c.d_model);
}

bench::Shape mixer_shape(const RetNetConfig& c, Index tokens) {
  const Index heads = c.retention.heads, narrow = c.d_model / heads;
  if (!c.attention.empty()) return {1, tokens, heads, narrow, narrow};
  return {1, tokens, heads, c.block().mixer.key_dim(), c.block().mixer.value_dim()};
}

// FLOPs of all mixers for a text from its start: reading it, and a training step.
double prefill_flops(const RetNetConfig& c, Index tokens) {
  const auto s = mixer_shape(c, tokens);
  return static_cast<double>(c.layers) * (c.attention.empty()
                                              ? bench::retention_flops(s, bench::From::state)
                                              : bench::attention_flops(s));
}
double gradient_flops(const RetNetConfig& c, Index tokens) {
  using bench::From;
  const auto s = mixer_shape(c, tokens);
  return static_cast<double>(c.layers) *
         (c.attention.empty() ? bench::retention_flops(s, From::nothing) +
                                    bench::retention_backward_flops(s, From::nothing)
                              : bench::attention_flops(s) + bench::attention_backward_flops(s));
}

void read_text(Cpu& ctx, const RetNetModel<float>& model, std::span<const Token> tokens,
               ModelState<float>& state, Buffer<float>& h, Buffer<float>& logits) {
  const auto& c = model.config();
  const auto n = static_cast<Index>(tokens.size());
  for (Index i = 0; i < n; i += kPerCall) {
    const Index rows = std::min(kPerCall, n - i);
    model.hidden(ctx, model.weights(), {Form::chunkwise(), Sequences::dense(1, rows)},
                 {tokens.data() + i, {1, rows}}, &state, {h.data(), rows, c.d_model});
    if (i + rows == n)
      model.project(ctx, model.weights(), {Form::recurrent(), Sequences::dense(1, 1)},
                    Window<const float>(h.data() + (rows - 1) * c.d_model, 1, c.d_model),
                    Window<float>(logits.data(), 1, c.vocab));
  }
}

void add_prefill(const std::string& name, const RetNetConfig& config, Index tokens, int threads) {
  bench::add("prefill/" + name + "/T:" + std::to_string(tokens) + bench::threads_suffix(threads),
             [=](benchmark::State& state) {
               const RetNetModel<float> model(config);
               const auto words = text(tokens, config.vocab);
               Buffer<float> h(kPerCall * config.d_model), logits(config.vocab);
               auto memory = model.initial_state();
               const auto n = static_cast<double>(tokens);
               bench::measure(
                   state,
                   {.tokens = n,
                    .flops = 2.0 * n * product_weights(model) + prefill_flops(config, tokens),
                    .threads = threads},
                   [&] {
                     memory.reset();
                     read_text(bench::context(threads), model, words, memory, h, logits);
                     benchmark::DoNotOptimize(logits.data());
                   });
               state.counters["memory"] = static_cast<double>(memory.bytes());
             });
}

// A few steps only: a cache grows while it is measured.
template <class Weight>
void add_decode(const std::string& name, const RetNetConfig& config, Index past, int threads) {
  bench::add("decode/" + name + (std::same_as<Weight, float> ? "/float" : "/bfloat16") +
                 "/context:" + std::to_string(past) + bench::threads_suffix(threads),
             [=](benchmark::State& state) {
               const RetNetModel<float> wide(config);
               const auto model = wide.with_weights(wide.weight_buffer().template cast<Weight>());
               Session<float, Weight> session(model, {.prefill_chunk = kPerCall}, 1,
                                              &bench::context(threads));
               session.prompt(text(past, config.vocab));
               const double passes = config.attention.empty() ? 2.0 : 1.0;
               const double bytes = product_weights(wide) * sizeof(Weight) +
                                    passes * static_cast<double>(session.state().bytes());
               bench::measure(state,
                              {.tokens = 1, .bytes = bytes, .footprint = bytes, .threads = threads},
                              [&] { benchmark::DoNotOptimize(session.next()); });
               state.counters["memory"] = static_cast<double>(session.state().bytes());
             })
      ->Iterations(kDecodeSteps);
}

void add_training(const std::string& name, const RetNetConfig& config, const Options& o,
                  bool update, int threads) {
  bench::add(
      (update ? "training/" : "gradient/") + name + "/B:" + std::to_string(o.batch) +
          "/T:" + std::to_string(o.train_tokens) + bench::threads_suffix(threads),
      [=, batch = o.batch, tokens = o.train_tokens](benchmark::State& state) {
        const RetNetModel<float> model(config);
        Trainer<float> trainer(model, {});
        auto& ctx = bench::context(threads);
        const auto words = text(batch * tokens + 1, config.vocab);
        const Batch rows{
            batch, tokens, {words.begin(), words.end() - 1}, {words.begin() + 1, words.end()}};
        const auto n = static_cast<double>(batch * tokens);
        bench::measure(state,
                       {.tokens = n,
                        .flops = 6.0 * n * product_weights(model) +
                                 static_cast<double>(batch) * gradient_flops(config, tokens),
                        .threads = threads},
                       [&] {
                         trainer.accumulate(ctx, rows);
                         if (update) trainer.update(ctx, 1e-4);
                         benchmark::DoNotOptimize(trainer.gradient().flat().data());
                       });
      });
}

// Matrices [out,in] of uniform numbers in +-sqrt(3/in), parameter after parameter a stream of the
// formula from 16 on; norms as they start. The number is sum over j of logits_j formula(6, j), of
// the last of 64 tokens (7 i mod vocab).
void add_fingerprint(const RetNetConfig& config) {
  bench::add("fingerprint", [=](benchmark::State& state) {
    const RetNetModel<float> start(config);
    ParamBuffer<float> weights = start.weight_buffer();
    std::uint64_t stream = 16;
    for (const auto& e : start.layout().entries()) {
      const auto scale = std::sqrt(3.0F / static_cast<float>(e.place.cols));
      if (e.place.rows > 1)
        for (Index i = 0; i < e.place.size(); ++i)
          weights[e.place].data[i] = scale * bench::formula(stream, static_cast<std::uint64_t>(i));
      ++stream;
    }
    const auto model = start.with_weights(std::move(weights));
    std::vector<Token> words(64);
    for (std::size_t i = 0; i < words.size(); ++i)
      words[i] = static_cast<Token>(7 * i % static_cast<std::size_t>(config.vocab));
    Buffer<float> h(kPerCall * config.d_model), logits(config.vocab);
    auto memory = model.initial_state();
    for (auto _ : state) read_text(bench::context(1), model, words, memory, h, logits);
    double sum = 0.0;
    for (Index j = 0; j < config.vocab; ++j)
      sum += static_cast<double>(logits[j] * bench::formula(6, static_cast<std::uint64_t>(j)));
    state.counters["fingerprint"] = sum;
  })->Iterations(1);
}

RetNetConfig preset(const std::string& name, const ModelSize& size) {
  if (name == "paper") return presets::paper(size);
  if (name == "fla") return presets::fla(size);
  if (name == "torchscale_v2") return presets::torchscale_v2(size);
  throw std::invalid_argument("--preset=" + name + ", expected torchscale_v2, paper or fla");
}

Options options(bench::Flags& flags) {
  Options o;
  ModelSize size;
  size.vocab = flags.number("vocab", 1000);
  size.d_model = flags.number("d-model", flags.quick ? 128 : 512);
  size.layers = flags.number("layers", flags.quick ? 2 : 6);
  size.heads = flags.number("heads", 4);
  size.d_value = flags.number("d-value", 2 * size.d_model);
  size.ffn = flags.number("ffn", 2 * size.d_model);
  o.retention = preset(flags.word("preset", "torchscale_v2"), size);
  o.attention = with_attention(o.retention);
  using Sizes = std::vector<Index>;
  o.lengths = flags.list("tokens", flags.quick ? Sizes{512} : Sizes{512, 2048, 8192});
  o.contexts = flags.list("contexts", flags.quick ? Sizes{512} : Sizes{1024, 8192, 32768});
  o.batch = flags.number("batch", 1);
  o.train_tokens = flags.number("train-tokens", flags.quick ? 128 : 512);
  return o;
}

void add_rows(bench::Flags& flags) {
  const Options o = options(flags);
  add_fingerprint(o.retention);
  for (const int t : flags.threads) {
    for (const Index tokens : o.lengths) {
      add_prefill("retention", o.retention, tokens, t);
      add_prefill("attention", o.attention, tokens, t);
    }
    for (const Index past : o.contexts) {
      const bool first = past == o.contexts.front();  // of retention they are all alike
      if (first) add_decode<float>("retention", o.retention, past, t);
      if (first) add_decode<bfloat16>("retention", o.retention, past, t);
      add_decode<float>("attention", o.attention, past, t);
    }
    for (const bool update : {false, true}) {
      add_training("retention", o.retention, o, update, t);
      add_training("attention", o.attention, o, update, t);
    }
  }
}

constexpr const char* kHelp =
    "  --preset=torchscale_v2|paper|fla\n"
    "  --d-model=512 --layers=6 --heads=4 --d-value=1024 --ffn=1024 --vocab=1000\n"
    "  --tokens=512,2048,8192      prefill/\n"
    "  --contexts=1024,8192,32768  decode/\n"
    "  --batch=1 --train-tokens=512\n";

}  // namespace

int main(int argc, char** argv) {
  try {
    return bench::run(argc, argv, kHelp, add_rows);
  } catch (const std::exception& error) {  // of a size that is no model
    std::fprintf(stderr, "bench_model: %s\n", error.what());
    return 2;
  }
}
