// SPDX-License-Identifier: MIT
// The bodies of evaluation.hpp.
#pragma once

#include <algorithm>
#include <type_traits>

#include "retnet/io/pretrained.hpp"
#include "retnet/model/sampler.hpp"
#include "retnet_eval/evaluation.hpp"

namespace retnet_eval {

template <class Scalar, class Weight>
class Evaluation {
  using Model = retnet::RetNetModel<Scalar, Weight>;
  using Rows = retnet::Window<Scalar>;

 public:
  Evaluation(const Options& o, const Inputs& in)
      : o_(o),
        in_(in),
        tokens_(tokens_of(in)),
        ctx_(o.threads),
        model_(retnet::load_pretrained<Scalar, Weight>(o.model, {.compat = o.compat}, &info_)) {}

  Outputs run() {
    out_.vocab = model_.config().vocab;
    if (o_.greedy > 0) {
      generate();
      return std::move(out_);
    }
    logits();
    if (o_.gradient) gradient();
    return std::move(out_);
  }

 private:
  retnet::TokenView tokens() const { return {tokens_.data(), {in_.batch, in_.length}}; }
  retnet::Pass pass() const { return {o_.form, in_.sequences}; }

  void logits() {
    const Index size = in_.rows() * out_.vocab;
    retnet::Buffer<Scalar> z(size);
    model_.forward(ctx_, model_.weights(), pass(), tokens(), nullptr,
                   retnet::View<Scalar, 3>(z.data(), {in_.batch, in_.length, out_.vocab}));
    if (o_.loss && !o_.gradient) {
      const auto targets = targets_of(in_);
      out_.loss =
          retnet::cross_entropy(ctx_, targets.data(), Rows(z.data(), in_.rows(), out_.vocab));
    }
    out_.logits.assign(static_cast<std::size_t>(size), 0.0F);
    for_each_segment(in_.sequences, [&](retnet::Segment s) {
      const Index first = s.first_row * out_.vocab;
      std::transform(z.data() + first, z.data() + first + s.length * out_.vocab,
                     out_.logits.begin() + first, [](Scalar x) { return static_cast<float>(x); });
    });
  }

  void gradient() {
    if constexpr (std::is_same_v<Scalar, Weight>) {
      const auto targets = targets_of(in_);
      const auto counted =
          std::ranges::count_if(targets, [](auto t) { return t != retnet::kIgnore; });
      retnet::ParamBuffer<Scalar> dw(model_.layout());
      typename Model::Saved saved;
      out_.loss = model_.loss_and_gradient(
          ctx_, model_.weights(), pass(), tokens(),
          retnet::TokenView(targets.data(), {in_.batch, in_.length}), nullptr, saved, dw.ref(),
          1.0 / static_cast<double>(std::max<Index>(1, counted)));
      for (const auto& tensor : retnet::keyed_tensors(info_.keys, model_.layout()))
        out_.gradients[tensor.key] = {tensor.shape, retnet::gather<float>(tensor, dw)};
    }
  }

  // The prompt in the chosen form, then one token at a time.
  void generate() {
    const Index batch = in_.batch, total = in_.length + o_.greedy;
    const Index width = model_.config().d_model;
    out_.generated.resize(static_cast<std::size_t>(batch * total));
    for (Index b = 0; b < batch; ++b)
      std::copy_n(in_.ids.begin() + b * in_.length, in_.length, out_.generated.begin() + b * total);

    auto state = model_.initial_state(batch);
    retnet::Buffer<Scalar> h(in_.rows() * width), last(batch * width);
    model_.hidden(ctx_, model_.weights(), pass(), tokens(), &state,
                  Rows(h.data(), in_.rows(), width));
    for (Index b = 0; b < batch; ++b)
      std::copy_n(h.data() + ((b + 1) * in_.length - 1) * width, width, last.data() + b * width);

    const retnet::Sequences one = retnet::Sequences::dense(batch, 1);
    const retnet::Pass step{retnet::Form::recurrent(), one};
    std::vector<retnet::Token> now(static_cast<std::size_t>(batch));
    for (Index t = in_.length; t < total; ++t) {
      if (t > in_.length)
        model_.hidden(ctx_, model_.weights(), step, {now.data(), {batch, 1}}, &state,
                      Rows(last.data(), batch, width));
      choose(step, last, now);
      for (Index b = 0; b < batch; ++b)
        out_.generated[static_cast<std::size_t>(b * total + t)] = now[static_cast<std::size_t>(b)];
    }
  }

  // The likeliest token of each sequence; the lowest id among equals.
  void choose(const retnet::Pass& step, const retnet::Buffer<Scalar>& last,
              std::vector<retnet::Token>& now) {
    const auto& c = model_.config();
    retnet::Buffer<Scalar> z(in_.batch * c.vocab);
    model_.project(ctx_, model_.weights(), step,
                   retnet::Window<const Scalar>(last.data(), in_.batch, c.d_model),
                   Rows(z.data(), in_.batch, c.vocab));
    retnet::Sampler likeliest({.temperature = 0.0}, c.vocab);
    const auto vocab = static_cast<std::size_t>(c.vocab);
    for (std::size_t b = 0; b < now.size(); ++b)
      now[b] = likeliest(std::span<const Scalar>(z.span()).subspan(b * vocab, vocab), {}, 0.0);
  }

  const Options& o_;
  const Inputs& in_;
  const std::vector<retnet::Token> tokens_;
  retnet::Cpu ctx_;
  retnet::PretrainedInfo info_;
  Model model_;
  Outputs out_;
};

template <class Scalar, class Weight>
Outputs evaluate_as(const Options& o, const Inputs& in) {
  return Evaluation<Scalar, Weight>(o, in).run();
}

}  // namespace retnet_eval
