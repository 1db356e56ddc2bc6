// SPDX-License-Identifier: MIT
// What retention on a device is tested against: the library's own loops in double. Declared without
// Eigen, for .cu files; retention_oracle.cpp is compiled by the host's compiler alone.
#pragma once

#include <cstdint>
#include <ostream>
#include <vector>

namespace retnet::test {

enum class Gate { none, mild, strong };

/// The letters are those of retnet/fwd.hpp.
struct RetentionCase {
  int batch = 1, tokens = 1, heads = 1, kv_heads = 1, key_dim = 1, value_dim = 1;
  Gate gate = Gate::none;
  bool with_state = true;                // initial state, and a gradient of the final one
  std::vector<std::int32_t> cu_seqlens = {};  // not empty: packed, `batch` and `tokens` follow from it
  int turn = 0;                          // gamma of the first head: 1, 1 - 1/32, 0.3, 0.001 in turn
  std::vector<double> gammas = {};            // not empty: these instead

  int rows() const { return cu_seqlens.empty() ? batch * tokens : cu_seqlens.back(); }
  int sequences() const {
    return cu_seqlens.empty() ? batch : static_cast<int>(cu_seqlens.size()) - 1;
  }
  int longest() const;
  std::size_t size(int per_row) const {
    return static_cast<std::size_t>(rows()) * static_cast<std::size_t>(per_row);
  }
  std::size_t states() const {
    return static_cast<std::size_t>(sequences()) *
           static_cast<std::size_t>(heads * key_dim * value_dim);
  }
  friend std::ostream& operator<<(std::ostream& out, const RetentionCase& c) {
    return out << "B" << c.batch << " T" << c.tokens << " H" << c.heads << " Hk" << c.kv_heads
               << " Dk" << c.key_dim << " Dv" << c.value_dim
               << (c.gate == Gate::none ? "" : " gated") << (c.with_state ? " with state" : "")
               << (c.cu_seqlens.empty() ? "" : " packed");
  }
};

struct RetentionNumbers {
  std::vector<double> log_gamma;  // [H]
  std::vector<double> log_gate;   // [R,H], when gated
  std::vector<double> q, k, v, state, d_o, dstate;
};

struct RetentionExpected {
  std::vector<double> o, state;
  std::vector<double> dq, dk, dv, dstate, dlog_decay;
};

/// Shapes of tests/support/cases.hpp, each without and with a gate, with and without states in turn.
std::vector<RetentionCase> table_of_cases();

/// The same numbers on every machine; another `stream`, other numbers.
RetentionNumbers random_numbers(const RetentionCase& c, std::uint64_t stream = 0);

RetentionExpected expected_forward(const RetentionCase& c, const RetentionNumbers& n);
RetentionExpected expected_backward(const RetentionCase& c, const RetentionNumbers& n);

/// Rows [from, to) of a dense batch of one sequence on the CPU kernels in float, from `state` on.
std::vector<float> forward_on_cpu(const RetentionCase& c, const RetentionNumbers& n, int from,
                                  int to, std::vector<float>& state);

/// |given - expected| / |expected|, infinite for NaN and unequal sizes; absolute where |expected| = 0.
double relative_rms(const std::vector<double>& given, const std::vector<double>& expected);

}  // namespace retnet::test
