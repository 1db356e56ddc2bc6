// SPDX-License-Identifier: MIT
// What byte_lm shows of the trained model: the three forms against each other, and what a token
// costs early and late in a text.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "byte_lm/training.hpp"

namespace byte_lm {

// ---- the three forms agree ----

// max |a - b| / max |b|; what is not a number counts as infinitely wrong.
template <class S>
double relative_error(const retnet::RowMatrix<S>& a, const retnet::RowMatrix<S>& b) {
  S difference(0), largest(0);
  for (Index i = 0; i < a.size(); ++i) {
    const S d = std::abs(a.data()[i] - b.data()[i]);
    if (!(d <= difference)) difference = d;  // NaN as well
    largest = std::max(largest, std::abs(b.data()[i]));
  }
  return std::isfinite(difference) ? static_cast<double>(difference / largest) : HUGE_VAL;
}

// Logits of `text` in one form after the other; returns the largest difference from the parallel
// form.
template <class S>
double print_forms(const retnet::RetNetModel<S>& model, Bytes text, const char* scalar) {
  using Tokens = retnet::RowMatrix<retnet::Token>;
  Tokens tokens(1, static_cast<Index>(text.size()));
  std::copy(text.begin(), text.end(), tokens.data());
  const auto expected = model.forward_parallel(tokens);
  double worst = 0.0;
  const auto row = [&](const char* name, const retnet::RowMatrix<S>& logits) {
    const double error = relative_error(logits, expected);
    std::printf("  %-8s %-34s %.1e\n", scalar, name, error);
    worst = std::max(worst, error);
  };
  for (const Index chunk : {Index{1}, Index{3}, Index{64}, tokens.cols()}) {
    auto state = model.initial_state();
    char name[40];
    std::snprintf(name, sizeof name, "chunkwise, chunks of %td", chunk);
    row(name, model.forward_chunkwise(tokens, state, chunk));
  }
  auto state = model.initial_state();
  row("recurrent", model.forward_recurrent(tokens, state));

  const Index cut = tokens.cols() / 2;  // the form changes in the middle of the text
  state = model.initial_state();
  retnet::RowMatrix<S> both(expected.rows(), expected.cols());
  both.topRows(cut) = model.forward_chunkwise(Tokens(tokens.leftCols(cut)), state, 16);
  both.bottomRows(tokens.cols() - cut) =
      model.forward_recurrent(Tokens(tokens.rightCols(tokens.cols() - cut)), state);
  row("chunkwise, then recurrent", both);
  return worst;
}

// ---- what a token costs ----

struct Cost {
  double seconds = 0.0;   // a token
  std::size_t bytes = 0;  // state and scratch
};

inline double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Recurrent steps at `position`, reached chunk by chunk: the two forms share the state.
inline Cost token_cost(const Model& model, Bytes text, Index position, int threads) {
  retnet::Cpu ctx(threads);
  auto state = model.initial_state();
  constexpr Index kRead = 4096, kSteps = 200;
  std::vector<retnet::Token> tokens(kRead);
  std::vector<float> h(static_cast<std::size_t>(kRead * model.config().d_model));
  const auto run = [&](retnet::Form form, Index n) {
    for (Index i = 0; i < n; ++i)
      tokens[static_cast<std::size_t>(i)] =
          text[static_cast<std::size_t>(state.position() + i) % text.size()];
    model.hidden(ctx, model.weights(), {form, retnet::Sequences::dense(1, n)},
                 {tokens.data(), {1, n}}, &state, {h.data(), n, model.config().d_model});
  };
  while (state.position() < position)
    run(retnet::Form::chunkwise(), std::min<Index>(kRead, position - state.position()));
  run(retnet::Form::recurrent(), 1);
  ctx.reset_peak();
  const auto start = std::chrono::steady_clock::now();
  for (Index i = 0; i < kSteps; ++i) run(retnet::Form::recurrent(), 1);
  return {since(start) / kSteps, state.bytes() + ctx.peak_bytes()};
}

// A whole text of `length` tokens in one form, as that form is used: parallel at once, chunkwise in
// pieces of one chunk, recurrent token by token.
inline Cost text_cost(const Model& model, Bytes text, Index length, retnet::Form form,
                      int threads) {
  retnet::Cpu ctx(threads);
  auto state = model.initial_state();
  const Index piece = form.kind == retnet::Form::Kind::parallel    ? length
                      : form.kind == retnet::Form::Kind::chunkwise ? form.chunk
                                                                   : 1;
  std::vector<retnet::Token> tokens(static_cast<std::size_t>(length));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = text[i % text.size()];
  retnet::Buffer<float> h(piece * model.config().d_model);
  const auto start = std::chrono::steady_clock::now();
  for (Index i = 0; i < length; i += piece) {
    const Index n = std::min(piece, length - i);
    model.hidden(ctx, model.weights(), {form, retnet::Sequences::dense(1, n)},
                 {tokens.data() + i, {1, n}}, &state, {h.data(), n, model.config().d_model});
  }
  return {since(start),
          state.bytes() + ctx.peak_bytes() + static_cast<std::size_t>(h.size()) * sizeof(float)};
}

}  // namespace byte_lm
