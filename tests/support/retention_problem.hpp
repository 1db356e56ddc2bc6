// SPDX-License-Identifier: MIT
// Inputs of one retention, its results and its gradients, for tests and benchmarks.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "retnet/ops/retention_chunkwise.hpp"
#include "retnet/ops/retention_parallel.hpp"
#include "retnet/ops/retention_recurrent.hpp"
#include "support/cases.hpp"
#include "support/random.hpp"

namespace retnet::test {

/// Heads take turns at these: no decay, the paper's, a fast one, one that underflows within a chunk.
inline constexpr double kGammas[] = {1.0, 1.0 - 1.0 / 32, 0.3, 0.001};

enum class DecayCase { fixed, gated, strongly_gated };

template <class S>
struct RetentionProblem {
  Index heads, kv_heads, key_dim, value_dim;
  Sequences sequences;
  DecayCase decay;
  std::vector<double> log_gamma;  // [H]
  Buffer<S> log_gate;             // [R,H], when gated
  Buffer<S> q, k, v;              // [R,H*Dk], [R,Hk*Dk], [R,Hk*Dv]
  Buffer<S> state;                // [N,H,Dk,Dv]
  Buffer<S> d_o, dstate;          // gradients of output and final state

  /// `turn` selects the gamma of the first head.
  RetentionProblem(const RetentionShape& s, DecayCase decay_case, std::size_t turn = 0)
      : RetentionProblem(s, Sequences::dense(s.batch, s.tokens), decay_case, turn) {}

  RetentionProblem(const RetentionShape& s, Sequences rows_of_sequences, DecayCase decay_case,
                   std::size_t turn = 0)
      : heads(s.heads),
        kv_heads(s.kv_heads),
        key_dim(s.key_dim),
        value_dim(s.value_dim),
        sequences(std::move(rows_of_sequences)),
        decay(decay_case) {
    const double q_size = 1.0 / std::sqrt(static_cast<double>(key_dim));
    q = random_normal<S>(rows() * heads * key_dim, 1, q_size);
    k = random_normal<S>(rows() * kv_heads * key_dim, 2);
    v = random_normal<S>(rows() * kv_heads * value_dim, 3);
    state = random_normal<S>(sequences.count() * heads * key_dim * value_dim, 4);
    d_o = random_normal<S>(rows() * heads * value_dim, 5);
    dstate = random_normal<S>(state.size(), 6);
    for (Index h = 0; h < heads; ++h)
      log_gamma.push_back(std::log(kGammas[(turn + static_cast<std::size_t>(h)) % 4]));
    if (decay == DecayCase::fixed) return;
    const double strongest = decay == DecayCase::gated ? -0.2 : -8.0;
    log_gate = random_uniform<S>(rows() * heads, 7, strongest, 0.0);
  }

  Index rows() const { return sequences.rows(); }
  bool gated() const { return decay != DecayCase::fixed; }
  Window<const S> gate() const {
    return gated() ? Window<const S>(log_gate.data(), rows(), heads) : Window<const S>();
  }
  RetentionInput<S> input() const {
    return {{q.data(), rows(), heads * key_dim},
            {k.data(), rows(), kv_heads * key_dim},
            {v.data(), rows(), kv_heads * value_dim},
            heads,
            kv_heads,
            {gated() ? std::span<const double>() : std::span<const double>(log_gamma), gate()},
            &sequences};
  }
  Window<const S> output_gradient() const { return {d_o.data(), rows(), heads * value_dim}; }

  /// The same numbers in another scalar.
  template <class U>
  RetentionProblem<U> cast() const {
    RetentionProblem<U> p({1, 1, heads, kv_heads, key_dim, value_dim}, sequences, decay);
    const auto convert = [](const Buffer<S>& from, Buffer<U>& to) {
      for (Index i = 0; i < from.size(); ++i) to[i] = scalar_cast<U>(from[i]);
    };
    convert(q, p.q), convert(k, p.k), convert(v, p.v), convert(state, p.state);
    convert(d_o, p.d_o), convert(dstate, p.dstate);
    if (gated()) convert(log_gate, p.log_gate);
    p.log_gamma = log_gamma;
    return p;
  }
};

enum class RetentionForm { parallel, recurrent, chunkwise };

template <class S>
struct RetentionResult {
  Buffer<S> o;      // [R,H*Dv]
  Buffer<S> state;  // after the last token; empty when none was given
  Window<const S> output(const RetentionProblem<S>& p) const {
    return {o.data(), p.rows(), p.heads * p.value_dim};
  }
};

/// What a result holds before the op writes it; rows of no sequence keep it.
inline constexpr double kUnwritten = 77.0;

template <class Context, class S>
RetentionResult<S> run(Context& ctx, RetentionForm form, const RetentionProblem<S>& p,
                       bool with_state, Index chunk = 0) {
  RetentionResult<S> result{filled<S>(p.rows() * p.heads * p.value_dim, kUnwritten), {}};
  if (with_state) result.state = p.state;
  S* state = with_state ? result.state.data() : nullptr;
  const Window<S> o(result.o.data(), p.rows(), p.heads * p.value_dim);
  if (form == RetentionForm::parallel) retention_parallel(ctx, p.input(), state, o);
  if (form == RetentionForm::recurrent) retention_recurrent(ctx, p.input(), state, o);
  if (form == RetentionForm::chunkwise) retention_chunkwise(ctx, p.input(), chunk, state, o);
  return result;
}

template <class S>
struct RetentionGradients {
  Buffer<S> dq, dk, dv, dstate, dlog_decay;

  explicit RetentionGradients(const RetentionProblem<S>& p, bool with_state = true)
      : dq(filled<S>(p.q.size(), kUnwritten)),
        dk(filled<S>(p.k.size(), kUnwritten)),
        dv(filled<S>(p.v.size(), kUnwritten)),
        dlog_decay(filled<S>(p.rows() * p.heads, kUnwritten)) {
    if (with_state) dstate = p.dstate;
  }
  RetentionGradient<S> places(const RetentionProblem<S>& p, bool with_decay = true) {
    return {{dq.data(), p.rows(), p.heads * p.key_dim},
            {dk.data(), p.rows(), p.kv_heads * p.key_dim},
            {dv.data(), p.rows(), p.kv_heads * p.value_dim},
            dstate.empty() ? nullptr : dstate.data(),
            with_decay ? Window<S>(dlog_decay.data(), p.rows(), p.heads) : Window<S>()};
  }
};

/// The gradients of <d_o, o> + <dstate, final state>. Chunk 0 runs the backward of the parallel form.
template <class Context, class S>
RetentionGradients<S> run_backward(Context& ctx, const RetentionProblem<S>& p, bool with_state,
                                   Index chunk = 0, bool with_decay = true) {
  RetentionGradients<S> g(p, with_state);
  const S* state = with_state ? p.state.data() : nullptr;
  const auto places = g.places(p, with_decay);
  if (chunk == 0) {
    retention_parallel_backward(ctx, p.input(), state, p.output_gradient(), places);
  } else {
    retention_chunkwise_backward(ctx, p.input(), chunk, state, p.output_gradient(), places);
  }
  return g;
}

}  // namespace retnet::test
