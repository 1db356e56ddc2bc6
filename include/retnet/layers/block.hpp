// SPDX-License-Identifier: MIT
// One block: a mixer of tokens, then the feed-forward network, each half with its norm and its
// residual (Sun et al. 2023, Eq. 9, where the mixer is retention).
//
//   pre:       h = alpha x + mixer(norm(x))      y = alpha h + FFN(norm(h))
//   post:      h = norm(alpha x + mixer(x))      y = norm(alpha h + FFN(h))
//   branch:    h = alpha x + norm(mixer(x))      y = alpha h + norm(FFN(h))
//   parallel:  y = x + mixer(norm(x)) + FFN(norm'(x))
#pragma once

#include <memory>
#include <string>

#include "retnet/layers/block_norm.hpp"
#include "retnet/layers/feed_forward.hpp"

namespace retnet::inline RETNET_ABI {

/// A Mixer is a layer with the surface of MultiScaleRetention: Config, State and Saved, places in a
/// ParamLayout, check, forward_rows and backward_rows; kPart names its parameters, kBlockName the
/// block in errors.
template <class Mixer>
class Block : public ThreeForms<Block<Mixer>, typename Mixer::ScalarType> {
  using Scalar = typename Mixer::ScalarType;
  using Weight = typename Mixer::WeightType;
  using In = Window<const Scalar>;
  using Out = Window<Scalar>;

 public:
  using Config = BasicBlockConfig<typename Mixer::Config>;
  using State = typename Mixer::State;
  using ThreeForms<Block, Scalar>::forward;
  static constexpr const char* kName = Mixer::kBlockName;

  struct Saved {
    Out mixer_aux, ffn_aux;  // where each half's norm stands: its output if it comes first, else input
    Out h;                   // after the first half
    typename Mixer::Saved mixer;
    typename FeedForward<Scalar, Weight>::Saved feed_forward;
    Buffer<Scalar> memory;
  };

  /// A block that owns its weights.
  explicit Block(Config config, Seed seed = {})
      : Block(std::move(config), std::make_shared<ParamLayout>()) {
    auto values = std::make_shared<ParamBuffer<Weight>>(*layout_);
    initialize(*values, *layout_, seed);
    own_ = std::move(values);
  }
  /// The same with weights from elsewhere: a copy, a checkpoint, a cast to bfloat16.
  Block(Config config, ParamBuffer<Weight> weights)
      : Block(std::move(config), std::make_shared<ParamLayout>()) {
    RETNET_CHECK(static_cast<Index>(weights.flat().size()) == layout_->size(), kName,
                 "weights hold ", weights.flat().size(), " elements, this config needs ",
                 layout_->size());
    own_ = std::make_shared<const ParamBuffer<Weight>>(std::move(weights));
  }
  /// A part of a model.
  Block(Config config, ParamLayout& layout, const std::string& prefix)
      : config_(checked(std::move(config))),
        mixer_(config_.mixer, layout, detail::concat(prefix, Mixer::kPart, ".")),
        mixer_norm_(config_.norm, config_.norm_eps, width(), layout,
                    detail::concat(prefix, Mixer::kPart, "_norm")),
        feed_forward_(config_.feed_forward, layout, prefix + "ffn.") {
    if (config_.ffn_norm)
      ffn_norm_ = BlockNorm(config_.norm, config_.norm_eps, width(), layout, prefix + "ffn_norm");
  }

  const Config& config() const { return config_; }
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
    const auto mix = [&](In in, Out out) {
      mixer_.forward_rows(ctx, w, pass, in, state, out, saved ? &s.mixer : nullptr);
    };
    const auto feed = [&](In in, Out out) {
      feed_forward_.forward_rows(ctx, w, pass, in, out, saved ? &s.feed_forward : nullptr);
    };
    const In ffn_in = config_.residual == Residual::parallel ? x : In(s.h);
    half(ctx, w, pass, kMixerSite, mixer_norm_, x, x, s.mixer_aux, s.h, mix);
    half(ctx, w, pass, kFfnSite, ffn_norm_, ffn_in, In(s.h), s.ffn_aux, y, feed);
  }

  /// dx is assigned; weight gradients accumulate; dstate as the mixer has it. dy is used up.
  template <class Context>
  void backward_rows(Context& ctx, ParamRef<const Weight> w, const Pass& pass, In x, Saved& s,
                     Out dy, ParamRef<Scalar> dw, Out dx,
                     State* dstate = nullptr) const requires std::same_as<Scalar, Weight> {
    const auto scope = ctx.workspace().scope();
    const Out branch(ctx.workspace().template take<Scalar>(x.rows * x.cols), x.rows, x.cols);
    const Out dh(ctx.workspace().template take<Scalar>(x.rows * x.cols), x.rows, x.cols);
    const auto mix = [&](In in, In d, Out din, Scalar beta) {
      mixer_.backward_rows(ctx, w, pass, in, s.mixer, d, dw, din, beta, dstate);
    };
    const auto feed = [&](In in, In d, Out din, Scalar beta) {
      feed_forward_.backward_rows(ctx, w, pass, in, s.feed_forward, d, dw, din, beta);
    };
    if (config_.residual == Residual::parallel) {  // dy reaches both branches, and x once
      std::copy_n(dy.data, dy.rows * dy.cols, dh.data);
      half_backward(ctx, w, pass, kFfnSite, ffn_norm_, x, s.ffn_aux, dy, dw, dx, branch, feed);
      branch_backward(ctx, w, pass, kMixerSite, mixer_norm_, x, s.mixer_aux, dh, dy, dw, dx, mix);
    } else {
      half_backward(ctx, w, pass, kFfnSite, ffn_norm_, In(s.h), s.ffn_aux, dy, dw, dh, branch, feed);
      half_backward(ctx, w, pass, kMixerSite, mixer_norm_, x, s.mixer_aux, dh, dw, dx, branch, mix);
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

  Block(Config config, std::shared_ptr<ParamLayout> layout)
      : Block(std::move(config), *layout, "") {
    layout_ = std::move(layout);
  }
  static Config checked(Config config) {
    config.validate(kName);
    return config;
  }
  Index width() const { return config_.mixer.d_model; }
  bool norm_first() const {
    return config_.residual == Residual::pre || config_.residual == Residual::parallel;
  }

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
    s.mixer_aux = Out(base + size, rows, width());
    s.ffn_aux = Out(base + 2 * size, rows, width());
  }

  // One half of the block: f reads x, or norm(x), and its branch joins the residual.
  template <class Context, class F>
  void half(Context& ctx, ParamRef<const Weight> w, const Pass& pass, Index site,
            const BlockNorm& norm, In x, In residual, Out aux, Out y, const F& f) const {
    if (norm_first()) {
      if (norm) norm.forward(ctx, w, x, aux);
      f(norm ? In(aux) : x, y);
      drop(ctx, pass, site, y);
      return add_residual(ctx, residual, y);
    }
    f(x, aux);
    drop(ctx, pass, site, aux);
    const bool sum_first = config_.residual == Residual::post;
    if (sum_first) add_residual(ctx, residual, aux);
    norm.forward(ctx, w, In(aux), y);
    if (!sum_first) add_residual(ctx, residual, y);
  }

  // dx of a half whose residual is its x; f(its input, d of its branch, d of its input, beta). dy is
  // used up.
  template <class Context, class F>
  void half_backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, Index site,
                     const BlockNorm& norm, In x, In aux, Out dy, ParamRef<Scalar> dw, Out dx,
                     Out branch, const F& f) const {
    if (norm_first()) {
      split(ctx, dy, branch, dx);
      return branch_backward(ctx, w, pass, site, norm, x, aux, branch, dy, dw, dx, f);
    }
    const bool sum_first = config_.residual == Residual::post;
    if (sum_first) norm.backward(ctx, w, aux, In(dy), dw, dy, Scalar(0));
    split(ctx, dy, branch, dx);
    if (!sum_first) norm.backward(ctx, w, aux, In(branch), dw, branch, Scalar(0));
    drop(ctx, pass, site, branch);
    f(x, In(branch), dx, Scalar(1));
  }

  // dx += the gradient through a branch that begins with its norm.
  template <class Context, class F>
  void branch_backward(Context& ctx, ParamRef<const Weight> w, const Pass& pass, Index site,
                       const BlockNorm& norm, In x, In aux, Out branch, Out scratch,
                       ParamRef<Scalar> dw, Out dx, const F& f) const {
    drop(ctx, pass, site, branch);
    if (!norm) return f(x, In(branch), dx, Scalar(1));
    f(aux, In(branch), scratch, Scalar(0));
    norm.backward(ctx, w, x, In(scratch), dw, dx, Scalar(1));
  }

  // y += alpha x
  template <class Context>
  void add_residual(Context& ctx, In x, Out y) const {
    const Scalar alpha = Scalar(config_.alpha);
    for_row_blocks(ctx, x.rows, [&](Index first, Index last) {
      for (Index r = first; r < last; ++r) simd::axpy(alpha, x.row(r), y.row(r), x.cols);
    });
  }
  // branch = d, through = alpha d
  template <class Context>
  void split(Context& ctx, In d, Out branch, Out through) const {
    const Scalar alpha = Scalar(config_.alpha);
    for_row_blocks(ctx, d.rows, [&](Index first, Index last) {
      for (Index r = first; r < last; ++r) {
        std::copy_n(d.row(r), d.cols, branch.row(r));
        simd::scale(alpha, d.row(r), through.row(r), d.cols);
      }
    });
  }
  template <class Context>
  void drop(Context& ctx, const Pass& pass, Index site, Out x) const {
    if (pass.dropout)
      dropout(ctx, config_.dropout, pass.dropout->seed, pass.dropout->stream(pass.layer, site), x);
  }

  Config config_;
  Mixer mixer_;
  BlockNorm mixer_norm_;
  FeedForward<Scalar, Weight> feed_forward_;
  BlockNorm ffn_norm_;
  std::shared_ptr<const ParamLayout> layout_;
  std::shared_ptr<const ParamBuffer<Weight>> own_;
};

}  // namespace retnet::inline RETNET_ABI
