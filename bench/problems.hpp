// SPDX-License-Identifier: MIT
// What the operators are given in every bench, and how much useful work that is.
//
// Inputs follow a formula that any program can repeat (peers/torch_retnet.py does): element i of
// stream n is the upper 24 bits of the splitmix64 mix of n 2^32 + i, mapped to [-1, 1), which float
// holds exactly. Streams 0, 1, 2 are q, k, v; keys are an eighth of their stream.
//
// Useful FLOPs, two for a multiply-add, of a token and head; C is the kernel's own block of rows:
//
//   retention     4 Dk Dv + (C+1)(Dk+Dv): the state once for reading and once for writing, and the
//                 causal half of the scores. Recurrent: 4 Dk Dv.
//   its backward  10 Dk Dv + (C+1)(3 Dk + 2 Dv): dQ reads S, dK and dV read dS, both states are
//                 written; of the five causal halves three have the width of keys
//   attention     (T+1)(Dk+Dv), its backward (T+1)(3 Dk + 2 Dv)
//
// Without a state to start from or to keep, the first block reads none and the last one writes
// none: the terms in Dk Dv then count for T - C of the T tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "retnet/core/params.hpp"
#include "retnet/ops/attention.hpp"
#include "retnet/ops/retention_chunkwise.hpp"

namespace bench {

using namespace retnet;

inline float formula(std::uint64_t stream, std::uint64_t i) {
  std::uint64_t z = (stream << 32) + i + 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) * 0x1p-23F - 1.0F;
}

template <class S>
void fill(Buffer<S>& x, std::uint64_t stream, float scale = 1.0F) {
  for (Index i = 0; i < x.size(); ++i)
    x[i] = scalar_cast<S>(scale * formula(stream, static_cast<std::uint64_t>(i)));
}

/// Sizes of one operator.
struct Shape {
  Index batch = 1, tokens = 1, heads = 8, key_dim = 64, value_dim = 128;
  int threads = 1;

  Index rows() const { return batch * tokens; }
  Index keys() const { return heads * key_dim; }
  Index values() const { return heads * value_dim; }
  Index state_size() const { return batch * heads * key_dim * value_dim; }
  std::string dims() const { return std::to_string(key_dim) + "x" + std::to_string(value_dim); }
  std::string text() const {
    return "/" + dims() + "/T:" + std::to_string(tokens) + "/threads:" + std::to_string(threads);
  }
};

/// Is there a state to start from and to keep?
enum class From { state, nothing };

namespace detail {
inline double sum_over_blocks(const Shape& s, From from, double widths, double state_widths) {
  const Index block = std::min(retnet::detail::FusedShape<float>::kBlock, s.tokens);
  const Index with_state = from == From::state ? s.tokens : s.tokens - block;
  const auto state = static_cast<double>(s.key_dim * s.value_dim * with_state);
  return static_cast<double>(s.batch * s.heads) *
         (static_cast<double>(s.tokens * (block + 1)) * widths + state_widths * state);
}
}  // namespace detail

inline double retention_flops(const Shape& s, From from) {
  return detail::sum_over_blocks(s, from, static_cast<double>(s.key_dim + s.value_dim), 4.0);
}
inline double retention_backward_flops(const Shape& s, From from) {
  return detail::sum_over_blocks(s, from, static_cast<double>(3 * s.key_dim + 2 * s.value_dim),
                                 10.0);
}
inline double recurrent_flops(const Shape& s) {
  return 4.0 * static_cast<double>(s.rows() * s.heads * s.key_dim * s.value_dim);
}
inline double attention_flops(const Shape& s) {
  return static_cast<double>(s.rows() * s.heads * (s.tokens + 1) * (s.key_dim + s.value_dim));
}
inline double attention_backward_flops(const Shape& s) {
  return static_cast<double>(s.rows() * s.heads * (s.tokens + 1) *
                             (3 * s.key_dim + 2 * s.value_dim));
}

/// Operands of one retention or attention, forward and backward.
template <class S = float>
struct Problem {
  explicit Problem(const Shape& s)
      : shape(s),
        rows(Sequences::dense(s.batch, s.tokens)),
        q(s.rows() * s.keys()),
        k(s.rows() * s.keys()),
        v(s.rows() * s.values()),
        o(s.rows() * s.values()),
        state(s.state_size()),
        log_gamma(log_gamma_pow2(s.heads)) {
    fill(q, 0);
    fill(k, 1, 0.125F);
    fill(v, 2);
    o.fill(S(0));
    state.fill(S(0));
  }

  RetentionInput<S> retention() const {
    return {keys(q), keys(k), values(v), shape.heads, shape.heads, {log_gamma, {}}, &rows};
  }
  AttentionInput<S> attention() const {
    return {keys(q), keys(k), values(v), shape.heads, shape.heads, &rows};
  }
  Window<S> output() { return {o.data(), shape.rows(), shape.values()}; }
  Window<const S> keys(const Buffer<S>& x) const { return {x.data(), shape.rows(), shape.keys()}; }
  Window<const S> values(const Buffer<S>& x) const {
    return {x.data(), shape.rows(), shape.values()};
  }

  Shape shape;
  Sequences rows;
  Buffer<S> q, k, v, o, state;
  std::vector<double> log_gamma;
};

/// The gradients of a Problem.
template <class S = float>
struct Gradients {
  explicit Gradients(const Shape& s)
      : dq(s.rows() * s.keys()),
        dk(s.rows() * s.keys()),
        dv(s.rows() * s.values()),
        d_o(s.rows() * s.values()),
        keys{s.rows(), s.keys()},
        values{s.rows(), s.values()} {
    fill(d_o, 3);
  }
  RetentionGradient<S> retention() {
    return {window(dq), window(dk), value_window(dv), nullptr, {}};
  }
  AttentionGradient<S> attention() { return {window(dq), window(dk), value_window(dv)}; }
  Window<const S> upstream() const { return {d_o.data(), values[0], values[1]}; }

  Buffer<S> dq, dk, dv, d_o;

 private:
  Window<S> window(Buffer<S>& x) const { return {x.data(), keys[0], keys[1]}; }
  Window<S> value_window(Buffer<S>& x) const { return {x.data(), values[0], values[1]}; }
  Index keys[2], values[2];
};

}  // namespace bench
