// SPDX-License-Identifier: MIT
// Rotation of queries and keys by their position (Sun et al. 2023, Eq. 3: Theta_n = e^{i n theta}),
// with the scale of the row folded in: 1/sqrt(d_k), and 1/sqrt(s_n) of the row-sum normalisation.
//
//   (x0, x1) -> scale (x0 cos a - x1 sin a,  x1 cos a + x0 sin a),    a = n theta_i
//
// xPos (Sun et al. 2022, "A Length-Extrapolatable Transformer", section 3.2) multiplies pair i of a
// query by zeta_i^(n/base) and that of a key by its inverse, so that a score decays with n - m.
//
// Pairs are neighbours (interleaved) or halves (half-split); a checkpoint knows which. The angle of
// position n is composed as e^{i 64 floor(n/64) theta} e^{i (n mod 64) theta} in double, so that it
// is the same number in every form and exact at position 10^6.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "retnet/core/sequences.hpp"
#include "retnet/ops/decay.hpp"
#include "retnet/simd/vector.hpp"

namespace retnet::inline RETNET_ABI {

enum class RotationLayout { none, interleaved, half_split };

/// theta_i = base^(-i / (n-1)), end point included (torchscale); n = d_k / 2.
inline std::vector<double> theta_inclusive(Index key_dim, double base) {
  std::vector<double> out;
  const Index n = key_dim / 2;
  for (Index i = 0; i < n; ++i)
    out.push_back(n > 1 ? std::pow(base, -static_cast<double>(i) / static_cast<double>(n - 1))
                        : 1.0);
  return out;
}

/// theta_i = base^(-2i / d_k) (rotary embedding, Su et al. 2021).
inline std::vector<double> theta_rotary(Index key_dim, double base) {
  std::vector<double> out;
  for (Index i = 0; i < key_dim / 2; ++i)
    out.push_back(std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(key_dim)));
  return out;
}

/// ln zeta_i / base with zeta_i = (2i + 0.4 d) / (1.4 d), the xPos decay of one position.
inline std::vector<double> log_xpos(Index key_dim, double base) {
  std::vector<double> out;
  const auto d = static_cast<double>(key_dim);
  for (Index i = 0; i < key_dim / 2; ++i)
    out.push_back(std::log((2.0 * static_cast<double>(i) + 0.4 * d) / (1.4 * d)) / base);
  return out;
}

/// The angles of one layer: immutable, shared by threads. With fewer pairs than half a head the
/// dimensions behind them do not turn.
class RotationTable {
 public:
  static constexpr Index kStep = 64;

  RotationTable() = default;
  RotationTable(RotationLayout layout, std::vector<double> theta)
      : layout_(layout), theta_(std::move(theta)) {
    if (layout_ == RotationLayout::none) theta_.clear();
    for (Index n = 0; n < kStep; ++n)
      for (const double t : theta_) {
        fine_cos_.push_back(std::cos(static_cast<double>(n) * t));
        fine_sin_.push_back(std::sin(static_cast<double>(n) * t));
      }
  }

  /// log_xpos, one a pair.
  void set_xpos(std::vector<double> log_scale) { log_xpos_ = std::move(log_scale); }
  bool has_xpos() const { return !log_xpos_.empty(); }
  /// The largest |log| that the xPos scale of a row reaches at position n.
  double xpos_exponent(std::int64_t n) const {
    double largest = 0.0;
    for (const double x : log_xpos_) largest = std::max(largest, std::abs(x));
    return largest * static_cast<double>(n);
  }

  RotationLayout layout() const { return layout_; }
  Index pairs() const { return static_cast<Index>(theta_.size()); }

  /// Cosines and sines of position n, times the power `xpos` of the xPos scale; `coarse` [2 * pairs]
  /// holds block `block` between calls.
  template <class S>
  void angles(std::int64_t n, double xpos, std::int64_t& block, double* coarse, S* cosines,
              S* sines) const {
    const Index count = pairs();
    if (n / kStep != block) {
      block = n / kStep;
      for (Index i = 0; i < count; ++i) {
        const double a = static_cast<double>(block * kStep) * theta_[static_cast<std::size_t>(i)];
        coarse[i] = std::cos(a);
        coarse[count + i] = std::sin(a);
      }
    }
    const double* fc = fine_cos_.data() + n % kStep * count;
    const double* fs = fine_sin_.data() + n % kStep * count;
    for (Index i = 0; i < count; ++i) {
      const double scale = xpos_scale(i, xpos * static_cast<double>(n));
      cosines[i] = S(scale * (coarse[i] * fc[i] - coarse[count + i] * fs[i]));
      sines[i] = S(scale * (coarse[i] * fs[i] + coarse[count + i] * fc[i]));
    }
  }

 private:
  double xpos_scale(Index i, double positions) const {
    return log_xpos_.empty() ? 1.0
                             : std::exp(positions * log_xpos_[static_cast<std::size_t>(i)]);
  }

  RotationLayout layout_ = RotationLayout::none;
  std::vector<double> theta_;
  std::vector<double> log_xpos_;
  std::vector<double> fine_cos_;  // [kStep, pairs]
  std::vector<double> fine_sin_;
};

/// What a row is multiplied by: a constant, 1/sqrt(s_n) for each head if log_gamma is given, and the
/// xPos scale of its pairs to the power `xpos`: 1 for queries, -1 for keys.
struct RowScale {
  double constant = 1.0;
  std::span<const double> log_gamma;  // [H] or empty
  double xpos = 0.0;
};

namespace detail {

template <class S>
void rotate_head(RotationLayout layout, Index width, Index pairs, S scale, S sign, const S* cosines,
                 const S* sines, const S* x, S* y) {
  if (layout == RotationLayout::none) return simd::scale(scale, x, y, width);
  const bool interleaved = layout == RotationLayout::interleaved;
  const Index step = interleaved ? 2 : 1;        // from one pair to the next
  const Index across = interleaved ? 1 : pairs;  // from x0 to x1
  for (Index i = 0; i < pairs; ++i) {
    const S a = x[i * step], b = x[i * step + across];
    const S c = S(scale * cosines[i]), s = S(S(scale * sign) * sines[i]);
    y[i * step] = S(a * c - b * s);
    y[i * step + across] = S(b * c + a * s);
  }
  if (2 * pairs < width) simd::scale(scale, x + 2 * pairs, y + 2 * pairs, width - 2 * pairs);
}

}  // namespace detail

/// y = scale * rotate(x) for the rows of every sequence; row i of sequence s has position
/// positions[s] + i. `inverse` turns back: with the same scale it is the backward. y may be x. Rows
/// of no sequence are left alone.
template <class Context, class S>
void rotate(Context& ctx, const RotationTable& table, const RowScale& scale, Index heads,
            const Sequences& sequences, const std::int64_t* positions, Window<const S> x,
            Window<S> y, bool inverse = false) {
  const Index width = x.cols / heads, pairs = table.pairs();
  const S sign = S(inverse ? -1.0 : 1.0);
  const Index blocks = (sequences.longest() + kRowBlock - 1) / kRowBlock;
  for_tasks(ctx, sequences.count() * blocks, [&](Index task, Workspace& scratch) {
    const Index s = task / blocks;
    const Segment segment = sequences[s];
    const Index first = task % blocks * kRowBlock;
    const Index last = std::min(segment.length, first + kRowBlock);
    double* coarse = scratch.take<double>(2 * pairs + 1);
    S* cosines = scratch.take<S>(pairs + 1);
    S* sines = scratch.take<S>(pairs + 1);
    std::int64_t block = -1;
    for (Index i = first; i < last; ++i) {
      const Index r = segment.first_row + i;
      const std::int64_t n = positions[s] + i;
      table.angles(n, scale.xpos, block, coarse, cosines, sines);
      for (Index h = 0; h < heads; ++h) {
        double factor = scale.constant;
        if (!scale.log_gamma.empty())
          factor /= std::sqrt(decay_row_sum(scale.log_gamma[static_cast<std::size_t>(h)], n));
        detail::rotate_head(table.layout(), width, pairs, S(factor), sign, cosines, sines,
                            x.row(r) + h * width, y.row(r) + h * width);
      }
    }
  });
}

}  // namespace retnet::inline RETNET_ABI
