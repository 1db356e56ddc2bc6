// SPDX-License-Identifier: MIT
// CudaSession: text goes in at once, tokens come out one at a time. The state is of one size however
// long the text; scratch memory is that of the longest text given at once.
//
//   CudaSession session(ctx, model, {.sampler = {.temperature = 0.8}});
//   session.prompt(tokens);
//   while (auto token = session.next()) ...
//
// A step is a graph, captured once: tokens, positions and states stay on the device. With temperature 0
// the next token is chosen there too, so that likeliest(n) makes n tokens without asking the host.
#pragma once

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "retnet/cuda/graph.cuh"
#include "retnet/cuda/model.cuh"

namespace retnet {

namespace cuda {

// The likeliest token of each row, the first of equals; it becomes the next input and is remembered.
template <int Threads, int V>
__global__ void likeliest_kernel(DeviceMatrix<const float> logits, std::int32_t* tokens,
                                 std::int32_t* history, std::int32_t* made, std::int32_t room) {
  __shared__ float values[Threads];
  __shared__ int places[Threads];
  wait_for_previous_kernel();
  const float* z = logits.row(blockIdx.x);
  float best = -INFINITY;
  int at = 0;
#pragma unroll 4
  for (int j = threadIdx.x * V; j < logits.cols; j += Threads * V) {
    float x[V];
    load_floats(z + j, x);
#pragma unroll
    for (int e = 0; e < V; ++e)
      if (x[e] > best) best = x[e], at = j + e;
  }
  values[threadIdx.x] = best;
  places[threadIdx.x] = at;
  for (int step = Threads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x >= step) continue;
    const float other = values[threadIdx.x + step];
    const int place = places[threadIdx.x + step];
    if (other > values[threadIdx.x] ||
        (other == values[threadIdx.x] && place < places[threadIdx.x])) {
      values[threadIdx.x] = other;
      places[threadIdx.x] = place;
    }
  }
  if (threadIdx.x != 0) return;
  tokens[blockIdx.x] = places[0];
  const int step = made[blockIdx.x]++;
  if (step < room) history[step * gridDim.x + blockIdx.x] = places[0];
}

}  // namespace cuda

template <class T = __nv_bfloat16>
class CudaSession {
 public:
  using Model = CudaRetNetModel<T>;

  /// The model and the context must outlive the session; the context is this session's alone while
  /// it makes tokens. Sessions of other contexts may share the model, each in a thread of its own.
  CudaSession(CudaContext& ctx, const Model& model, GenerateConfig config = {}, int sequences = 1)
      : ctx_(ctx),
        model_(model),
        config_(std::move(config)),
        sampler_(config_.sampler, model.config().vocab),
        state_(model.initial_state(ctx, sequences)),
        tokens_(sequences),
        made_(sequences),
        history_(std::int64_t{kRoom} * sequences),
        logits_(sequences * model.config().vocab),
        hidden_(sequences * model.config().d_model),
        host_logits_(static_cast<std::size_t>(logits_.size())),
        host_tokens_(static_cast<std::size_t>(sequences), 0),
        drawn_(static_cast<std::size_t>(sequences), 0),
        finished_(static_cast<std::size_t>(sequences), false),
        recent_(static_cast<std::size_t>(sequences)) {}

  int sequences() const { return static_cast<int>(host_tokens_.size()); }
  /// May be read, and written to in place, of the same size; then give a prompt before the next token.
  CudaModelState& state() { return state_; }
  bool finished(int i = 0) const { return finished_[static_cast<std::size_t>(i)]; }
  /// Logits of the next token of sequence i, [V], on the host.
  std::span<const float> logits(int i = 0) {
    logits_.download(host_logits_, ctx_.stream());
    const auto v = static_cast<std::size_t>(model_.config().vocab);
    return std::span<const float>(host_logits_).subspan(static_cast<std::size_t>(i) * v, v);
  }

  /// Reads text before the next token; may be called again at any time.
  void prompt(std::span<const Token> text) { prompt({&text, 1}); }
  /// One text for each sequence; lengths may differ.
  void prompt(std::span<const std::span<const Token>> texts) {
    RETNET_CUDA_REQUIRE(std::ssize(texts) == sequences(), kName, texts.size(), " texts for ",
                        sequences(), " sequences");
    for (std::size_t i = 0; i < texts.size(); ++i)
      RETNET_CUDA_REQUIRE(!texts[i].empty(), kName, "prompt: text ", i, " is empty");
    if (stale_) run_step();
    std::vector<Token> all;
    std::vector<Index> ends = {0};
    for (const auto& text : texts) {
      all.insert(all.end(), text.begin(), text.end());
      ends.push_back(static_cast<Index>(all.size()));
    }
    const auto width = model_.config().d_model;
    const auto scope = ctx_.workspace().scope();
    const auto h = cuda::take<T>(ctx_, std::ssize(all), width);
    model_.hidden(ctx_, Form::chunkwise(), Sequences::packed(std::span<const Index>(ends)), all,
                  &state_, h);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      for (const Token t : texts[i]) remember(i, t);
      finished_[i] = false;
    }
    for (int i = 0; i < sequences(); ++i)
      RETNET_CUDA(cudaMemcpyAsync(hidden_.data() + i * width,
                                  h.row(ends[static_cast<std::size_t>(i) + 1] - 1),
                                  sizeof(T) * width, cudaMemcpyDeviceToDevice, ctx_.stream()));
    model_.project(ctx_, DeviceMatrix<const T>(hidden_rows()), logit_rows());
    ready_ = true;
    stale_ = false;
  }

  /// The next token of the one sequence, or nothing once a stop token was drawn.
  std::optional<Token> next() {
    RETNET_CUDA_REQUIRE(sequences() == 1, kName, "next: ", sequences(),
                        " sequences, expected 1: use next_all");
    const Token t = next_all()[0];
    return finished() ? std::nullopt : std::optional<Token>(t);
  }

  /// One more token of every sequence, drawn on the host as Session does it; those that have finished
  /// repeat their stop token until all have.
  std::span<const Token> next_all() {
    RETNET_CUDA_REQUIRE(ready_, kName, "nothing was read, expected a prompt");
    if (std::find(finished_.begin(), finished_.end(), false) == finished_.end())
      return host_tokens_;
    if (stale_) run_step();
    logits_.download(host_logits_, ctx_.stream());
    const auto v = static_cast<std::size_t>(model_.config().vocab);
    for (std::size_t i = 0; i < host_tokens_.size(); ++i) {
      if (finished_[i]) continue;
      const double draw = uniform(config_.seed, i, drawn_[i]++);
      host_tokens_[i] =
          sampler_(std::span<const float>(host_logits_).subspan(i * v, v), recent_[i], draw);
      remember(i, host_tokens_[i]);
      for (const Token stop : config_.stop)
        if (host_tokens_[i] == stop) finished_[i] = true;
    }
    tokens_.upload(host_tokens_, ctx_.stream());
    stale_ = true;
    return host_tokens_;
  }

  /// The `count` likeliest tokens, one after the other, of every sequence: [count][N]. Chosen on the
  /// device; stop tokens do not stop it.
  std::vector<Token> likeliest(int count) {
    RETNET_CUDA_REQUIRE(ready_ && count > 0, kName, "likeliest(", count,
                        "), expected a prompt before and a positive count");
    std::vector<Token> out;
    while (count > 0) {
      const int n = std::min(count, kRoom);
      made_.zero(ctx_.stream());
      for (int i = 0; i < n; ++i) {
        if (stale_) {
          run_step(true);
        } else {
          choose();
        }
        stale_ = true;
      }
      const auto start = out.size();
      out.resize(start + static_cast<std::size_t>(n * sequences()));
      RETNET_CUDA(cudaMemcpyAsync(out.data() + start, history_.data(),
                                  sizeof(Token) * (out.size() - start), cudaMemcpyDeviceToHost,
                                  ctx_.stream()));
      ctx_.synchronize();
      count -= n;
    }
    std::copy(out.end() - sequences(), out.end(), host_tokens_.begin());
    for (std::size_t i = 0; i < out.size(); ++i)
      remember(i % static_cast<std::size_t>(sequences()), out[i]);
    return out;
  }

 private:
  static constexpr const char* kName = "CudaSession";
  static constexpr int kRoom = 1024;

  DeviceMatrix<T> hidden_rows() { return {hidden_.data(), sequences(), model_.config().d_model}; }
  DeviceMatrix<float> logit_rows() { return {logits_.data(), sequences(), model_.config().vocab}; }

  // The state takes in the tokens that were drawn last, and the likeliest next ones are chosen where
  // asked for: as it is the first time, then as a graph.
  void run_step(bool and_choose = false) {
    for (int i = 0; i < sequences(); ++i)
      model_.check_end(i, state_.positions()[static_cast<std::size_t>(i)] + 1);
    const auto step = [&] {
      model_.hidden_step(ctx_, tokens_.data(), state_, hidden_rows());
      model_.project(ctx_, DeviceMatrix<const T>(hidden_rows()), logit_rows());
      if (and_choose) choose();
    };
    auto& graph = and_choose ? step_and_choice_ : step_;
    if (!warm_) {
      step();
      warm_ = true;
    } else {
      if (!graph) graph.capture(ctx_, step);
      graph.launch(ctx_);
    }
    for (int i = 0; i < sequences(); ++i) state_.advance(i, 1);
    stale_ = false;
  }
  void choose() {
    const DeviceMatrix<const float> logits = logit_rows();
    const auto kernel =
        cuda::packs(logits) ? cuda::likeliest_kernel<1024, 4> : cuda::likeliest_kernel<1024, 1>;
    cuda::launch(ctx_, true, kernel, static_cast<unsigned>(sequences()), 1024, 0, logits,
                 tokens_.data(), history_.data(), made_.data(), kRoom);
  }
  void remember(std::size_t i, Token t) {
    auto& r = recent_[i];
    r.push_back(t);
    if (static_cast<Index>(r.size()) > config_.sampler.repetition_window) r.erase(r.begin());
  }

  CudaContext& ctx_;
  const Model& model_;
  GenerateConfig config_;
  Sampler sampler_;
  CudaModelState state_;
  DeviceBuffer<std::int32_t> tokens_, made_, history_;
  DeviceBuffer<float> logits_;
  DeviceBuffer<T> hidden_;
  std::vector<float> host_logits_;
  std::vector<Token> host_tokens_;
  std::vector<std::uint64_t> drawn_;
  std::vector<bool> finished_;
  std::vector<std::vector<Token>> recent_;
  cuda::Graph step_, step_and_choice_;
  bool ready_ = false, stale_ = false, warm_ = false;
};

}  // namespace retnet
