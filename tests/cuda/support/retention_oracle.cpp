// SPDX-License-Identifier: MIT
#include "cuda/support/retention_oracle.hpp"

#include <cmath>
#include <limits>
#include <span>

#include "support/cases.hpp"
#include "support/retention_problem.hpp"

namespace retnet::test {
namespace {

Sequences sequences_of(const RetentionCase& c) {
  if (c.cu_seqlens.empty()) return Sequences::dense(c.batch, c.tokens);
  return Sequences::packed<std::int32_t>(c.cu_seqlens);
}

/// The places of a case's numbers, as the ops of the CPU see them.
RetentionInput<double> input_of(const RetentionCase& c, const RetentionNumbers& n,
                                const Sequences& sequences) {
  const Index rows = c.rows();
  Window<const double> gate;
  if (c.gate != Gate::none) gate = {n.log_gate.data(), rows, c.heads};
  return {{n.q.data(), rows, c.heads * c.key_dim},
          {n.k.data(), rows, c.kv_heads * c.key_dim},
          {n.v.data(), rows, c.kv_heads * c.value_dim},
          c.heads,
          c.kv_heads,
          {n.log_gamma, gate},
          &sequences};
}

/// The loops of the definition are quadratic: longer sequences go through the kernels in double,
/// which are tested against them.
bool short_enough(const RetentionCase& c) { return c.longest() <= 300; }

}  // namespace

int RetentionCase::longest() const {
  return cu_seqlens.empty()
             ? tokens
             : static_cast<int>(Sequences::packed<std::int32_t>(cu_seqlens).longest());
}

std::vector<RetentionCase> table_of_cases() {
  std::vector<RetentionCase> cases;
  int turn = 0;
  for (const auto& s : kRetentionShapes) {
    for (const Gate gate : {Gate::none, turn % 2 == 0 ? Gate::mild : Gate::strong}) {
      RetentionCase c;
      c.batch = static_cast<int>(s.batch), c.tokens = static_cast<int>(s.tokens);
      c.heads = static_cast<int>(s.heads), c.kv_heads = static_cast<int>(s.kv_heads);
      c.key_dim = static_cast<int>(s.key_dim), c.value_dim = static_cast<int>(s.value_dim);
      c.gate = gate;
      c.with_state = turn % 3 != 0;
      c.turn = turn;
      cases.push_back(c);
    }
    ++turn;
  }
  return cases;
}

RetentionNumbers random_numbers(const RetentionCase& c, std::uint64_t stream) {
  RetentionNumbers n;
  const auto normals = [&](std::size_t size, std::uint64_t which, double deviation) {
    std::vector<double> x(size);
    fill_normal(std::span<double>(x), 16 * stream + which, deviation);
    return x;
  };
  n.q = normals(c.size(c.heads * c.key_dim), 1, 1.0 / std::sqrt(static_cast<double>(c.key_dim)));
  n.k = normals(c.size(c.kv_heads * c.key_dim), 2, 1.0);
  n.v = normals(c.size(c.kv_heads * c.value_dim), 3, 1.0);
  n.d_o = normals(c.size(c.heads * c.value_dim), 5, 1.0);
  if (c.with_state) n.state = normals(c.states(), 4, 1.0), n.dstate = normals(c.states(), 6, 1.0);
  for (int h = 0; h < c.heads; ++h)
    n.log_gamma.push_back(std::log(c.gammas.empty() ? kGammas[(c.turn + h) % 4]
                                                    : c.gammas[static_cast<std::size_t>(h)]));
  if (c.gate != Gate::none) {
    n.log_gate.resize(c.size(c.heads));
    fill_uniform(std::span<double>(n.log_gate), 16 * stream + 7, c.gate == Gate::mild ? -0.2 : -8.0,
                 0.0);
  }
  return n;
}

RetentionExpected expected_forward(const RetentionCase& c, const RetentionNumbers& n) {
  const Sequences sequences = sequences_of(c);
  RetentionExpected e;
  e.o.resize(c.size(c.heads * c.value_dim));
  e.state = c.with_state ? n.state : std::vector<double>(c.states(), 0.0);
  Reference ctx;
  retention_recurrent(ctx, input_of(c, n, sequences), e.state.data(),
                      Window<double>(e.o.data(), c.rows(), c.heads * c.value_dim));
  return e;
}

RetentionExpected expected_backward(const RetentionCase& c, const RetentionNumbers& n) {
  const Sequences sequences = sequences_of(c);
  const Index rows = c.rows();
  RetentionExpected e;
  e.dq.resize(n.q.size()), e.dk.resize(n.k.size()), e.dv.resize(n.v.size());
  e.dlog_decay.resize(c.size(c.heads));
  e.dstate = n.dstate;
  const RetentionGradient<double> grad{{e.dq.data(), rows, c.heads * c.key_dim},
                                       {e.dk.data(), rows, c.kv_heads * c.key_dim},
                                       {e.dv.data(), rows, c.kv_heads * c.value_dim},
                                       c.with_state ? e.dstate.data() : nullptr,
                                       {e.dlog_decay.data(), rows, c.heads}};
  const double* state = c.with_state ? n.state.data() : nullptr;
  const Window<const double> d_o(n.d_o.data(), rows, c.heads * c.value_dim);
  if (short_enough(c)) {
    Reference ctx;
    retention_parallel_backward(ctx, input_of(c, n, sequences), state, d_o, grad);
  } else {
    Cpu ctx(1);
    retention_chunkwise_backward(ctx, input_of(c, n, sequences), 64, state, d_o, grad);
  }
  return e;
}

std::vector<float> forward_on_cpu(const RetentionCase& c, const RetentionNumbers& n, int from,
                                  int to, std::vector<float>& state) {
  const auto rows = [&](const std::vector<double>& x, int per_row) {
    return std::vector<float>(x.begin() + from * per_row, x.begin() + to * per_row);
  };
  const auto q = rows(n.q, c.heads * c.key_dim), k = rows(n.k, c.kv_heads * c.key_dim),
             v = rows(n.v, c.kv_heads * c.value_dim);
  const Index length = to - from;
  const Sequences sequences = Sequences::dense(1, length);
  const RetentionInput<float> in{{q.data(), length, c.heads * c.key_dim},
                                 {k.data(), length, c.kv_heads * c.key_dim},
                                 {v.data(), length, c.kv_heads * c.value_dim},
                                 c.heads,
                                 c.kv_heads,
                                 {n.log_gamma, {}},
                                 &sequences};
  std::vector<float> o(static_cast<std::size_t>(length * c.heads * c.value_dim));
  Cpu ctx(1);
  retention_chunkwise(ctx, in, 64, state.data(),
                      Window<float>(o.data(), length, c.heads * c.value_dim));
  return o;
}

double relative_rms(const std::vector<double>& given, const std::vector<double>& expected) {
  if (given.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const double d = given[i] - expected[i];
    difference += d * d, size += expected[i] * expected[i];
  }
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  return std::sqrt(size > 0.0 ? difference / size : difference);
}

}  // namespace retnet::test
