// SPDX-License-Identifier: MIT
// One block (Sun et al. 2023, Eq. 9).
//
//   pre:   h = alpha x + MSR(norm(x))        y = alpha h + FFN(norm(h))
//   post:  h = norm(alpha x + MSR(x))        y = norm(alpha h + FFN(h))
#pragma once

#include <memory>
#include <string>

#include "retnet/layers/block_norm.hpp"
#include "retnet/layers/feed_forward.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet::inline RETNET_ABI {

template <ComputeScalar Scalar, class Weight = Scalar>
class RetNetBlock : public ThreeForms<RetNetBlock<Scalar, Weight>, Scalar> {
  using In = Window<const Scalar>;
  using Out = Window<Scalar>;
  using Mixer = MultiScaleRetention<Scalar, Weight>;

 public:
  using State = typename Mixer::State;
  using ThreeForms<RetNetBlock, Scalar>::forward;
  static constexpr const char* kName = "RetNetBlock";

  struct Saved {
    Out mixer_in, mixer_sum;  // what the mixer read; alpha x + MSR
    Out h;                    // after the first half
    Out ffn_in, ffn_sum;
    typename Mixer::Saved mixer;
    typename FeedForward<Scalar, Weight>::Saved feed_forward;
    Buffer<Scalar> memory;
  };

  /// A block that owns its weights.
  explicit RetNetBlock(BlockConfig config, Seed seed = {})
      : RetNetBlock(std::move(config), std::make_shared<ParamLayout>()) {
    auto values = std::make_shared<ParamBuffer<Weight>>(*layout_);
    initialize(*values, *layout_, seed);
    own_ = std::move(values);
  }
  /// The same with weights from elsewhere: a copy, a checkpoint, a cast to bfloat16.
  RetNetBlock(BlockConfig config, ParamBuffer<Weight> weights)
      : RetNetBlock(std::move(config), std::make_shared<ParamLayout>()) {
    RETNET_CHECK(static_cast<Index>(weights.flat().size()) == layout_->size(), kName,
                 "weights hold ", weights.flat().size(), " elements, this config needs ",
                 layout_->size());
    own_ = std::make_shared<const ParamBuffer<Weight>>(std::move(weights));
  }
  /// A part of a model.
  RetNetBlock(BlockConfig config, ParamLayout& layout, const std::string& prefix)
      : config_(checked(std::move(config))),
        mixer_(config_.retention, layout, prefix + "retention."),
        mixer_norm_(config_.norm, config_.norm_eps, width(), layout, prefix + "retention_norm"),
        feed_forward_(config_.feed_forward, layout, prefix + "ffn."),
        ffn_norm_(config_.norm, config_.norm_eps, width(), layout, prefix + "ffn_norm") {}

  const BlockConfig& config() const { return config_; }
  const Mixer& mixer() const { return mixer_; }
  bool owns_weights() const { return own_ != nullptr; }
  ParamRef<const Weight> weights() const { return own_->ref(); }
  const ParamBuffer<Weight>& weight_buffer() const { return *own_; }
  const ParamLayout& layout() const { return *layout_; }
  State initial_state(Index sequences = 1) const { return mixer_.initial_state(sequences); }

  /// x, y [B,T,C]; state and saved may be null. Throws std::invalid_argument on wrong shapes.
  template <class Context>
  void forward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, ConstView<Scalar, 3> x,
               State* state, View<Scalar, 3> y, Saved* saved = nullptr) const {
    mixer_.check(pass, x, state);
    RETNET_CHECK(x.dims() == y.dims(), kName, pass.form.name(), ": y is ", y, ", x is ", x);
    forward_rows(ctx, w, pass, rows_of(x), state, rows_of(y), saved);
  }

  /// y must not be x.
  template <class Context>
  void forward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, State* state,
                    Out y, Saved* saved) const {
    const auto scope = ctx.workspace().scope();
    Saved local;
    Saved& s = saved ? *saved : local;
    reserve(ctx, s, x.rows, saved != nullptr);
    if (pre()) {
      mixer_norm_.forward(ctx, w, x, s.mixer_in);
      mixer_.forward_rows(ctx, w, pass, In(s.mixer_in), state, s.h, saved ? &s.mixer : nullptr);
      join(ctx, pass, kMixerSite, x, s.h);
      ffn_norm_.forward(ctx, w, In(s.h), s.ffn_in);
      feed_forward_.forward_rows(ctx, w, pass, In(s.ffn_in), y, saved ? &s.feed_forward : nullptr);
      join(ctx, pass, kFfnSite, In(s.h), y);
    } else {
      mixer_.forward_rows(ctx, w, pass, x, state, s.mixer_sum, saved ? &s.mixer : nullptr);
      join(ctx, pass, kMixerSite, x, s.mixer_sum);
      mixer_norm_.forward(ctx, w, In(s.mixer_sum), s.h);
      feed_forward_.forward_rows(ctx, w, pass, In(s.h), s.ffn_sum,
                                 saved ? &s.feed_forward : nullptr);
      join(ctx, pass, kFfnSite, In(s.h), s.ffn_sum);
      ffn_norm_.forward(ctx, w, In(s.ffn_sum), y);
    }
  }

  /// dx is assigned; weight gradients accumulate; dstate as in MultiScaleRetention. dy is used up.
  template <class Context>
  void backward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Saved& s,
                     Out dy, ParamRef<Scalar> dw, Out dx,
                     State* dstate = nullptr) const requires std::same_as<Scalar, Weight> {
    const auto scope = ctx.workspace().scope();
    const Out branch(ctx.workspace().template take<Scalar>(x.rows * x.cols), x.rows, x.cols);
    const Out dh(ctx.workspace().template take<Scalar>(x.rows * x.cols), x.rows, x.cols);
    const Scalar one(1);
    if (pre()) {
      split(ctx, pass, kFfnSite, dy, branch, dh);  // branch: of the FFN's output; dh = alpha dy
      feed_forward_.backward_rows(ctx, w, pass, In(s.ffn_in), s.feed_forward, In(branch), dw, dy,
                                  Scalar(0));
      ffn_norm_.backward(ctx, w, In(s.h), In(dy), dw, dh, one);
      split(ctx, pass, kMixerSite, dh, branch, dx);
      mixer_.backward_rows(ctx, w, pass, In(s.mixer_in), s.mixer, In(branch), dw, dy, Scalar(0),
                           dstate);
      mixer_norm_.backward(ctx, w, x, In(dy), dw, dx, one);
    } else {
      ffn_norm_.backward(ctx, w, In(s.ffn_sum), In(dy), dw, dy, Scalar(0));
      split(ctx, pass, kFfnSite, dy, branch, dh);
      feed_forward_.backward_rows(ctx, w, pass, In(s.h), s.feed_forward, In(branch), dw, dh, one);
      mixer_norm_.backward(ctx, w, In(s.mixer_sum), In(dh), dw, dh, Scalar(0));
      split(ctx, pass, kMixerSite, dh, branch, dx);
      mixer_.backward_rows(ctx, w, pass, x, s.mixer, In(branch), dw, dx, one, dstate);
    }
  }

  /// Backward of forward, for the same w, pass and x: dx [B,T,C] is assigned and may be dy, the
  /// gradients of the weights are added to dw. Throws std::invalid_argument on shapes that do not
  /// fit.
  template <class Context>
  void backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, ConstView<Scalar, 3> x,
                Saved& saved, ConstView<Scalar, 3> dy, ParamRef<Scalar> dw, View<Scalar, 3> dx,
                State* dstate = nullptr) const requires std::same_as<Scalar, Weight> {
    mixer_.check_backward(pass, x, saved.mixer, dy, dx, dstate);
    const auto scope = ctx.workspace().scope();
    const Out spent(ctx.workspace().template take<Scalar>(dy.size()), dy.dim(0) * dy.dim(1),
                    dy.dim(2));
    std::copy_n(dy.data(), dy.size(), spent.data);
    backward_rows(ctx, w, pass, rows_of(x), saved, spent, dw, rows_of(dx), dstate);
  }

 private:
  static constexpr Index kMixerSite = 0, kFfnSite = 1;  // dropout masks; 2 is inside the FFN

  RetNetBlock(BlockConfig config, std::shared_ptr<ParamLayout> layout)
      : RetNetBlock(std::move(config), *layout, "") {
    layout_ = std::move(layout);
  }
  static BlockConfig checked(BlockConfig config) {
    config.validate(kName);
    return config;
  }
  Index width() const { return config_.retention.d_model; }
  bool pre() const { return config_.residual == Residual::pre; }

  template <class Context>
  void reserve(Context& ctx, Saved& s, Index rows, bool keep) const {
    const Index size = rows * width();
    Scalar* base = nullptr;
    if (keep) {
      s.memory.resize(3 * size);
      base = s.memory.data();
    } else {
      base = ctx.workspace().template take<Scalar>(3 * size);
    }
    s.h = Out(base, rows, width());
    (pre() ? s.mixer_in : s.mixer_sum) = Out(base + size, rows, width());
    (pre() ? s.ffn_in : s.ffn_sum) = Out(base + 2 * size, rows, width());
  }

  // branch <- alpha x + dropout(branch)
  template <class Context>
  void join(Context& ctx, const Pass& pass, Index site, In x, Out branch) const {
    drop(ctx, pass, site, branch);
    const Scalar alpha = Scalar(config_.alpha);
    for_row_blocks(ctx, x.rows, [&](Index first, Index last) {
      for (Index r = first; r < last; ++r) simd::axpy(alpha, x.row(r), branch.row(r), x.cols);
    });
  }
  // branch = dropout(d), through = alpha d
  template <class Context>
  void split(Context& ctx, const Pass& pass, Index site, In d, Out branch, Out through) const {
    const Scalar alpha = Scalar(config_.alpha);
    for_row_blocks(ctx, d.rows, [&](Index first, Index last) {
      for (Index r = first; r < last; ++r) {
        std::copy_n(d.row(r), d.cols, branch.row(r));
        simd::scale(alpha, d.row(r), through.row(r), d.cols);
      }
    });
    drop(ctx, pass, site, branch);
  }
  template <class Context>
  void drop(Context& ctx, const Pass& pass, Index site, Out x) const {
    if (pass.dropout)
      dropout(ctx, config_.dropout, pass.dropout->seed, pass.dropout->stream(pass.layer, site), x);
  }

  BlockConfig config_;
  Mixer mixer_;
  BlockNorm mixer_norm_;
  FeedForward<Scalar, Weight> feed_forward_;
  BlockNorm ffn_norm_;
  std::shared_ptr<const ParamLayout> layout_;
  std::shared_ptr<const ParamBuffer<Weight>> own_;
};

}  // namespace retnet::inline RETNET_ABI
