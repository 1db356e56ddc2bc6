// SPDX-License-Identifier: MIT
// The feed-forward part of a block.
//
//   mlp:  y = act(x W1^T) W2^T                    (Sun et al. 2023, Eq. 9, with GELU)
//   glu:  y = (act(x W1^T) * x Wg^T) W2^T         (Shazeer 2020)
#pragma once

#include <string>

#include "retnet/layers/block_norm.hpp"
#include "retnet/layers/config.hpp"
#include "retnet/layers/pass.hpp"
#include "retnet/ops/linear.hpp"

namespace retnet::inline RETNET_ABI {

template <ComputeScalar Scalar, class Weight = Scalar>
class FeedForward {
  using In = Window<const Scalar>;
  using Out = Window<Scalar>;
  static constexpr Index kSite = 2;  // of the dropout mask inside a block

 public:
  static constexpr const char* kName = "FeedForward";

  struct Saved {
    Out a, u, h;  // before the activation, the other factor of a GLU, after both
    Out normed;   // after the sub-layer norm
    Buffer<Scalar> memory;
  };

  FeedForward(FeedForwardConfig config, ParamLayout& layout, const std::string& prefix)
      : config_(config) {
    config_.validate(kName);
    const auto add = [&](const char* name, Index out, Index in, Init init, Param& weight,
                         Param& bias) {
      weight = layout.add(prefix + name + ".weight", out, in, init);
      if (config_.bias) bias = layout.add(prefix + name + ".bias", 1, out, {}, false);
    };
    add("fc1", config_.width(), config_.d_model, config_.init_in, fc1_, fc1_bias_);
    if (glu()) add("gate", config_.width(), config_.d_model, config_.init_in, gate_, gate_bias_);
    if (config_.sub_norm != NormKind::none)
      sub_norm_ = BlockNorm(config_.sub_norm, config_.sub_norm_eps, config_.width(), layout,
                            prefix + "sub_norm");
    add("fc2", config_.d_model, config_.width(), config_.init_out, fc2_, fc2_bias_);
  }

  const FeedForwardConfig& config() const { return config_; }

  /// x, y [R,C].
  template <class Context>
  void forward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Out y,
                    Saved* saved) const {
    const auto scope = ctx.workspace().scope();
    Saved local;
    Saved& s = saved ? *saved : local;
    const Index size = x.rows * config_.width();
    const Index parts = sub_norm_ ? 4 : 3;
    Scalar* base = nullptr;
    if (saved) {
      s.memory.resize(parts * size);
      base = s.memory.data();
    } else {
      base = ctx.workspace().template take<Scalar>(parts * size);
    }
    s.a = Out(base, x.rows, config_.width());
    s.u = Out(base + size, x.rows, config_.width());
    s.h = Out(base + 2 * size, x.rows, config_.width());
    s.normed = sub_norm_ ? Out(base + 3 * size, x.rows, config_.width()) : s.h;
    const bool one = pass.sequences.single_token();
    linear(ctx, w[fc1_], w[fc1_bias_], x, s.a, one);
    if (glu()) {
      linear(ctx, w[gate_], w[gate_bias_], x, s.u, one);
      retnet::gate(ctx, config_.activation, In(s.a), In(s.u), s.h);
    } else {
      activation(ctx, config_.activation, In(s.a), s.h);
    }
    drop(ctx, pass, s.h);
    if (sub_norm_) sub_norm_.forward(ctx, w, In(s.h), s.normed);
    linear(ctx, w[fc2_], w[fc2_bias_], In(s.normed), y, one);
  }

  /// dx = gradient + beta dx; weight gradients accumulate.
  template <class Context>
  void backward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Saved& s,
                     In dy, ParamRef<Scalar> dw, Out dx,
                     Scalar beta) const requires std::same_as<Scalar, Weight> {
    const auto scope = ctx.workspace().scope();
    const auto take = [&] {
      return Out(ctx.workspace().template take<Scalar>(x.rows * config_.width()), x.rows,
                 config_.width());
    };
    const Out da = take();
    linear_backward(ctx, w[fc2_], In(s.normed), dy, dw[fc2_], dw[fc2_bias_], da);
    if (sub_norm_) sub_norm_.backward(ctx, w, In(s.h), In(da), dw, da, Scalar(0));
    drop(ctx, pass, da);
    if (glu()) {
      const Out du = take();
      gate_backward(ctx, config_.activation, In(s.a), In(s.u), In(da), da, du);
      linear_backward(ctx, w[gate_], x, In(du), dw[gate_], dw[gate_bias_], dx, beta);
      beta = Scalar(1);
    } else {
      activation_backward(ctx, config_.activation, In(s.a), In(da), da);
    }
    linear_backward(ctx, w[fc1_], x, In(da), dw[fc1_], dw[fc1_bias_], dx, beta);
  }

 private:
  bool glu() const { return config_.kind == FeedForwardKind::glu; }
  template <class Context>
  void drop(Context& ctx, const Pass& pass, Out x) const {
    if (pass.dropout)
      dropout(ctx, config_.activation_dropout, pass.dropout->seed,
              pass.dropout->stream(pass.layer, kSite), x);
  }

  FeedForwardConfig config_;
  Param fc1_, gate_, fc2_, fc1_bias_, gate_bias_, fc2_bias_;
  BlockNorm sub_norm_;
};

}  // namespace retnet::inline RETNET_ABI
