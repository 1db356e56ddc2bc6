// SPDX-License-Identifier: MIT
// Session: text goes in chunk by chunk, tokens come out one at a time, memory stays constant.
//
//   Session session(model, {.sampler = {.temperature = 0.8}});
//   session.prompt(tokens);
//   while (auto token = session.next()) ...
//
// A session holds its own state, sampler and random numbers: sessions never see each other. One
// model serves any number of them, on any number of threads.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "retnet/model/retnet_model.hpp"
#include "retnet/model/sampler.hpp"

namespace retnet::inline RETNET_ABI {

struct GenerateConfig {
  SamplerConfig sampler = {};
  std::vector<Token> stop = {};  // any of these ends a sequence; it is not returned
  Seed seed = {};
  Index prefill_chunk = 64;
};

template <class Scalar, class Weight = Scalar>
class Session {
 public:
  using Model = RetNetModel<Scalar, Weight>;

  /// `sequences` texts at once, on `context` or on the calling thread's default_context(). The
  /// model and the context must outlive the session.
  explicit Session(const Model& model, GenerateConfig config = {}, Index sequences = 1,
                   Cpu* context = nullptr)
      : model_(&model),
        context_(context),
        config_(std::move(config)),
        state_(model.initial_state(sequences)),
        logits_(sequences * model.config().vocab),
        hidden_(sequences * model.config().d_model),
        tokens_(static_cast<std::size_t>(sequences), 0),
        drawn_(static_cast<std::size_t>(sequences), 0),
        finished_(static_cast<std::size_t>(sequences), false),
        recent_(static_cast<std::size_t>(sequences)) {
    RETNET_CHECK(config_.prefill_chunk > 0, kName, "prefill_chunk = ", config_.prefill_chunk,
                 ", expected at least 1");
    reserve();
  }

  Index sequences() const { return static_cast<Index>(tokens_.size()); }
  const ModelState<Scalar>& state() const { return state_; }
  bool finished(Index i = 0) const { return finished_[static_cast<std::size_t>(i)]; }
  /// Logits of the next token of sequence i, [V].
  std::span<const Scalar> logits(Index i = 0) const {
    const auto v = static_cast<std::size_t>(model_->config().vocab);
    return logits_.span().subspan(static_cast<std::size_t>(i) * v, v);
  }

  /// Reads text before the next token, chunk by chunk. May be called again at any time: the text
  /// then follows the tokens drawn so far, a stop token included.
  void prompt(std::span<const Token> text) {
    RETNET_CHECK(sequences() == 1, kName, "prompt: one text for ", sequences(),
                 " sequences, expected one text each");
    prompt({&text, 1});
  }
  /// One text for each sequence; lengths may differ.
  void prompt(std::span<const std::span<const Token>> texts) {
    RETNET_CHECK(static_cast<Index>(texts.size()) == sequences(), kName, "prompt: ", texts.size(),
                 " texts for ", sequences(), " sequences");
    std::vector<Token> packed;
    std::vector<Index> ends{0};
    for (const auto& text : texts) {
      RETNET_CHECK(!text.empty(), kName, "prompt: a text has no tokens, expected at least one");
      packed.insert(packed.end(), text.begin(), text.end());
      ends.push_back(static_cast<Index>(packed.size()));
    }
    if (stale_) read_drawn();
    const Sequences rows = Sequences::packed<Index>(ends);
    const auto total = static_cast<Index>(packed.size());
    const Index width = model_->config().d_model;
    Buffer<Scalar> h(total * width);
    model_->hidden(context(), model_->weights(), {Form::chunkwise(config_.prefill_chunk), rows},
                   TokenView(packed.data(), {1, total}), &state_,
                   Window<Scalar>(h.data(), total, width));
    for (std::size_t i = 0; i < texts.size(); ++i) {
      std::copy_n(h.data() + (ends[i + 1] - 1) * width, width,
                  hidden_.data() + static_cast<Index>(i) * width);
      finished_[i] = false;
      for (const Token t : texts[i]) remember(i, t);
    }
    project();
    ready_ = true;
  }

  /// The next token of the one sequence, or nothing once a stop token was drawn.
  std::optional<Token> next() {
    RETNET_CHECK(sequences() == 1, kName, "next: the session holds ", sequences(),
                 " sequences, expected 1: use next_all");
    const Token t = next_all()[0];
    return finished() ? std::nullopt : std::optional<Token>(t);
  }

  /// One more token of every sequence; those that have finished repeat their stop token until all
  /// have. O(1) time and memory a token; allocates nothing.
  std::span<const Token> next_all() {
    RETNET_CHECK(ready_, kName, "next: nothing was read, expected a prompt of at least one token");
    if (std::find(finished_.begin(), finished_.end(), false) == finished_.end()) return tokens_;
    if (stale_) {
      read_drawn();
      project();
    }
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (finished_[i]) continue;
      const double draw = uniform(config_.seed, i, drawn_[i]++);
      tokens_[i] = sampler_(logits(static_cast<Index>(i)), recent_[i], draw);
      remember(i, tokens_[i]);
      for (const Token stop : config_.stop)
        if (tokens_[i] == stop) finished_[i] = true;
    }
    stale_ = true;
    return tokens_;
  }

  /// A copy that goes on by itself: a snapshot, a second try.
  Session fork() const {
    Session copy = *this;
    copy.reserve();
    return copy;
  }
  Session(Session&&) noexcept = default;
  Session& operator=(Session&&) noexcept = default;

 private:
  static constexpr const char* kName = "Session";
  Session(const Session&) = default;

  // So that no later step allocates. A copied vector keeps its size, not its capacity.
  void reserve() {
    for (auto& r : recent_)
      r.reserve(static_cast<std::size_t>(config_.sampler.repetition_window) + 1);
    sampler_ = Sampler(config_.sampler, model_->config().vocab);
  }
  // The state takes in the tokens that were drawn last; done late, so that a session that stops has
  // not computed a token too many.
  void read_drawn() {
    const Sequences rows = Sequences::dense(sequences(), 1);
    model_->hidden(context(), model_->weights(), {Form::recurrent(), rows},
                   TokenView(tokens_.data(), {sequences(), 1}), &state_,
                   Window<Scalar>(hidden_.data(), sequences(), model_->config().d_model));
    stale_ = false;
  }
  void project() {
    const Sequences rows = Sequences::dense(sequences(), 1);
    const auto& c = model_->config();
    model_->project(context(), model_->weights(), {Form::recurrent(), rows},
                    Window<const Scalar>(hidden_.data(), sequences(), c.d_model),
                    Window<Scalar>(logits_.data(), sequences(), c.vocab));
  }
  void remember(std::size_t i, Token t) {
    auto& r = recent_[i];
    r.push_back(t);
    if (static_cast<Index>(r.size()) > config_.sampler.repetition_window) r.erase(r.begin());
  }

  Cpu& context() const { return context_ ? *context_ : default_context(); }

  const Model* model_;
  Cpu* context_;
  GenerateConfig config_;
  Sampler sampler_;
  ModelState<Scalar> state_;
  Buffer<Scalar> logits_;
  Buffer<Scalar> hidden_;
  std::vector<Token> tokens_;
  std::vector<std::uint64_t> drawn_;
  std::vector<bool> finished_;
  std::vector<std::vector<Token>> recent_;
  bool ready_ = false;
  bool stale_ = false;  // tokens_ are not in the state yet
};

}  // namespace retnet::inline RETNET_ABI
