// SPDX-License-Identifier: MIT
// Retention as one would write it with Eigen: the equations of the parallel and the chunkwise form
// (Sun et al. 2023, Eq. 5 and 7), one head after the other, the decay matrices made beforehand. One
// thread.
#pragma once

#include <Eigen/Core>
#include <cmath>

#include "problems.hpp"

namespace bench {

class EigenRetention {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Rows = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
  using Out = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;

 public:
  /// chunk = T is the parallel form. T must be a multiple of the chunk.
  EigenRetention(Problem<>& p, Index chunk) : p_(p), chunk_(chunk) {
    for (const double log_gamma : p.log_gamma) {
      Head head{Matrix::Zero(chunk, chunk), Eigen::VectorXf(chunk), Eigen::VectorXf(chunk)};
      const auto power = [&](Index n) {
        return static_cast<float>(std::exp(static_cast<double>(n) * log_gamma));
      };
      for (Index i = 0; i < chunk; ++i) {
        for (Index j = 0; j <= i; ++j) head.decay(i, j) = power(i - j);
        head.from_start(i) = power(i + 1);
        head.to_end(i) = power(chunk - 1 - i);
      }
      heads_.push_back(std::move(head));
    }
  }

  void run() {
    const Shape& s = p_.shape;
    Matrix state(s.key_dim, s.value_dim);
    for (Index b = 0; b < s.batch; ++b)
      for (Index h = 0; h < s.heads; ++h) {
        state.setZero();
        for (Index i = 0; i < s.tokens; i += chunk_) step(b * s.tokens + i, h, state);
      }
  }

  /// Beside inputs and outputs.
  std::size_t bytes() const {
    const auto c = static_cast<std::size_t>(chunk_);
    return sizeof(float) * (c * c * (heads_.size() + 1) +
                            static_cast<std::size_t>(p_.shape.key_dim * p_.shape.value_dim));
  }

 private:
  struct Head {
    Matrix decay;
    Eigen::VectorXf from_start, to_end;
  };

  static Rows rows(const Buffer<float>& x, Index first, Index n, Index h, Index width,
                   Index stride) {
    return {x.data() + first * stride + h * width, n, width, Eigen::OuterStride<>(stride)};
  }

  void step(Index first, Index h, Matrix& state) {
    const Shape& s = p_.shape;
    const Head& head = heads_[static_cast<std::size_t>(h)];
    const auto q = rows(p_.q, first, chunk_, h, s.key_dim, s.keys());
    const auto k = rows(p_.k, first, chunk_, h, s.key_dim, s.keys());
    const auto v = rows(p_.v, first, chunk_, h, s.value_dim, s.values());
    Out o(p_.o.data() + first * s.values() + h * s.value_dim, chunk_, s.value_dim,
          Eigen::OuterStride<>(s.values()));
    scores_.noalias() = q * k.transpose();
    scores_.array() *= head.decay.array();
    o.noalias() = scores_ * v;
    if (chunk_ == s.tokens) return;
    cross_.noalias() = q * state;
    o += head.from_start.asDiagonal() * cross_;
    weighted_ = head.to_end.asDiagonal() * v;
    state *= head.from_start(chunk_ - 1);
    state.noalias() += k.transpose() * weighted_;
  }

  Problem<>& p_;
  Index chunk_;
  std::vector<Head> heads_;
  Matrix scores_, cross_, weighted_;
};

}  // namespace bench
