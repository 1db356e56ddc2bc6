// SPDX-License-Identifier: MIT
// Loss and greedy generation of a golden case.
#pragma once

#include "golden/golden.hpp"

namespace retnet::golden {

inline constexpr double kLossTolerance = 2e-5;  // relative, in float; data/README.md

/// The next token of each row; the last token of a sequence has none.
inline Buffer<Token> next_tokens(const Array& ids) {
  const Index batch = ids.shape.at(0), length = ids.shape.at(1);
  const auto tokens = tokens_of(ids);
  Buffer<Token> out(batch * length);
  for (Index r = 0; r < batch * length; ++r)
    out[r] = (r + 1) % length == 0 ? kIgnore : tokens[r + 1];
  return out;
}

template <class S, class W, class Context>
double loss_of(Context& ctx, const RetNetModel<S, W>& model, Form form, const Array& ids) {
  const auto tokens = tokens_of(ids), targets = next_tokens(ids);
  const Sequences sequences = sequences_of(ids, nullptr);
  const LossSum loss = model.loss(ctx, model.weights(), Pass{form, sequences},
                                  TokenView(tokens.data(), {1, tokens.size()}),
                                  TokenView(targets.data(), {1, targets.size()}));
  if (loss.rows != ids.shape[0] * (ids.shape[1] - 1)) throw std::runtime_error("rows of the loss");
  return loss.mean();
}

/// generated_ids [B,P+n], prompt included.
inline std::vector<Token> generated(const Case& c) {
  const auto ids = tokens_of(c.io().at("generated_ids"));
  return {ids.begin(), ids.end()};
}

/// Greedy: the prompts at once in the given form, then one token at a time.
template <class S, class W>
std::vector<Token> generate(const RetNetModel<S, W>& model, const Case& c, Form prefill) {
  Cpu ctx;
  const Array& prompt = c.io().at("prompt_ids");
  const Array* mask = c.io().has("prompt_mask") ? &c.io().at("prompt_mask") : nullptr;
  if ((mask != nullptr) != c.io().has("attention_mask")) throw std::runtime_error("prompt_mask");
  const Index batch = prompt.shape.at(0), length = prompt.shape.at(1);
  const Index total = c.io().at("generated_ids").shape.at(1), vocab = model.config().vocab;
  if (total != length + c.info().at("generation").at("new_tokens").get<Index>())
    throw std::runtime_error("new_tokens");

  std::vector<Token> out(static_cast<std::size_t>(batch * total));
  const auto tokens = tokens_of(prompt);
  for (Index b = 0; b < batch; ++b)
    std::copy_n(tokens.data() + b * length, length, out.begin() + b * total);
  auto state = model.initial_state(batch);
  auto logits = logits_of(ctx, model, prefill, sequences_of(prompt, mask), tokens, &state);
  Index rows = length;  // of logits, for each sequence
  Buffer<Token> now(batch);
  for (Index t = length; t < total; ++t) {
    for (Index b = 0; b < batch; ++b) {
      const S* z = logits.data() + ((b + 1) * rows - 1) * vocab;
      now[b] = static_cast<Token>(std::max_element(z, z + vocab) - z);
      out[static_cast<std::size_t>(b * total + t)] = now[b];
    }
    logits = logits_of(ctx, model, Form::recurrent(), Sequences::dense(batch, 1), now, &state);
    rows = 1;
  }
  return out;
}

}  // namespace retnet::golden
