// SPDX-License-Identifier: MIT
// AdamW (Loshchilov & Hutter 2019, Algorithm 2) over flat buffers.
//
//   m = b1 m + (1-b1) g      v = b2 v + (1-b2) g^2
//   w = w - lr (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay w)
#pragma once

#include <algorithm>
#include <cmath>

#include "retnet/core/context.hpp"
#include "retnet/core/params.hpp"

namespace retnet::inline RETNET_ABI {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.98;
  double eps = 1e-8;
  double weight_decay = 0.05;  // on matrices only

  void validate() const {
    constexpr const char* kWhere = "AdamWConfig";
    RETNET_CHECK(beta1 >= 0.0 && beta1 < 1.0, kWhere, "beta1 = ", beta1, ", expected in [0, 1)");
    RETNET_CHECK(beta2 >= 0.0 && beta2 < 1.0, kWhere, "beta2 = ", beta2, ", expected in [0, 1)");
    RETNET_CHECK(eps > 0.0, kWhere, "eps = ", eps, ", expected > 0");
    RETNET_CHECK(std::isfinite(weight_decay) && weight_decay >= 0.0, kWhere,
                 "weight_decay = ", weight_decay, ", expected >= 0");
  }
};

template <class S>
class AdamW {
 public:
  AdamW(AdamWConfig config, const ParamLayout& layout)
      : config_(config), first_(layout), second_(layout) {
    config_.validate();
    constexpr Index kBlock = 4096;
    for (const auto& e : layout.entries())
      for (Index i = 0; i < e.place.size(); i += kBlock)
        blocks_.push_back({e.place.offset + i, std::min(kBlock, e.place.size() - i), e.decays});
  }

  const AdamWConfig& config() const { return config_; }
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  ParamBuffer<S>& first_moment() { return first_; }
  ParamBuffer<S>& second_moment() { return second_; }
  const ParamBuffer<S>& first_moment() const { return first_; }
  const ParamBuffer<S>& second_moment() const { return second_; }

  template <class Context>
  void step(Context& ctx, double lr, ParamBuffer<S>& weights, const ParamBuffer<S>& gradient) {
    ++steps_;
    const auto t = static_cast<double>(steps_);
    const S b1 = S(config_.beta1), b2 = S(config_.beta2), eps = S(config_.eps);
    const S rate = S(lr / (1.0 - std::pow(config_.beta1, t)));
    const S correction = S(1.0 / (1.0 - std::pow(config_.beta2, t)));
    S* w = weights.flat().data();
    S* m = first_.flat().data();
    S* v = second_.flat().data();
    const S* g = gradient.flat().data();
    for_tasks(ctx, static_cast<Index>(blocks_.size()), [&](Index task, Workspace&) {
      const Block& b = blocks_[static_cast<std::size_t>(task)];
      const S shrink = S(b.decays ? 1.0 - lr * config_.weight_decay : 1.0);
      for (Index i = b.offset; i < b.offset + b.size; ++i) {
        m[i] = b1 * m[i] + (S(1) - b1) * g[i];
        v[i] = b2 * v[i] + (S(1) - b2) * g[i] * g[i];
        w[i] = shrink * w[i] - rate * m[i] / (std::sqrt(v[i] * correction) + eps);
      }
    });
  }

 private:
  struct Block {
    Index offset, size;
    bool decays;
  };

  AdamWConfig config_;
  ParamBuffer<S> first_, second_;
  std::vector<Block> blocks_;
  std::int64_t steps_ = 0;
};

}  // namespace retnet::inline RETNET_ABI
