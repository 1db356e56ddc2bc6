// SPDX-License-Identifier: MIT
// Trainer: forward, backward, clip, update. It owns the weights while they change; everything that
// a checkpoint must hold is the three flat buffers and the number of updates.
#pragma once

#include <cmath>

#include "retnet/model/retnet_model.hpp"
#include "retnet/train/adamw.hpp"
#include "retnet/train/batches.hpp"
#include "retnet/train/clip.hpp"

namespace retnet::inline RETNET_ABI {

struct TrainerConfig {
  AdamWConfig adamw = {};
  double clip_norm = 1.0;
  Form form = Form::chunkwise(64);
  bool recompute = false;    // one block's activations at a time
  bool carry_state = false;  // each accumulate() continues the state of the last one
  Seed dropout_seed = {};
};

/// One update.
struct StepReport {
  double loss = 0.0;       // nats a token, mean over the accumulated batches
  double grad_norm = 0.0;  // before clipping
  Index tokens = 0;
  bool skipped = false;  // the norm was not finite: weights and moments are as before
};

template <class Scalar>
class Trainer {
 public:
  using Model = RetNetModel<Scalar>;

  Trainer(const Model& model, TrainerConfig config)
      : model_(Model::without_weights(model.config())),
        config_(config),
        weights_(rearranged<Scalar>(model.weight_buffer(), model.layout(), model_.layout())),
        gradient_(model_.layout()),
        adamw_(config.adamw, model_.layout()) {
    RETNET_CHECK(config.clip_norm > 0.0, "Trainer::Trainer", "clip_norm = ", config.clip_norm,
                 ", expected > 0");
    saved_.recompute = config.recompute;
  }

  const TrainerConfig& config() const { return config_; }
  const ParamLayout& layout() const { return model_.layout(); }
  ParamBuffer<Scalar>& weights() { return weights_; }
  const ParamBuffer<Scalar>& weights() const { return weights_; }
  const ParamBuffer<Scalar>& gradient() const { return gradient_; }
  AdamW<Scalar>& optimizer() { return adamw_; }
  const AdamW<Scalar>& optimizer() const { return adamw_; }
  /// Updates so far, skipped ones included: the number of the next batch.
  std::int64_t step() const { return step_; }
  void set_step(std::int64_t step) { step_ = step; }
  ModelState<Scalar>& carried_state() { return carried_; }
  const ModelState<Scalar>& carried_state() const { return carried_; }
  /// The architecture; its weights are in weights().
  const Model& model() const { return model_; }

  /// A model with a copy of the weights as they are now.
  Model snapshot() const { return model_.with_weights(weights_); }

  /// Adds the gradient of one batch; the update weighs every target alike.
  template <class Context>
  void accumulate(Context& ctx, const Batch& batch) {
    accumulate(ctx, Sequences::dense(batch.batch, batch.tokens), batch.input_view(),
               batch.target_view());
  }
  /// The same with packed or padded rows.
  template <class Context>
  void accumulate(Context& ctx, const Sequences& sequences, TokenView tokens, TokenView targets) {
    if (sum_.rows == 0) gradient_.zero();
    ModelState<Scalar>* state = nullptr;
    if (config_.carry_state) {
      if (carried_.sequences() != sequences.count())
        carried_ = model_.initial_state(sequences.count());
      state = &carried_;
    }
    const DropoutKey key{config_.dropout_seed, static_cast<std::uint64_t>(step_) << 8 | micro_++};
    const LossSum part =
        model_.loss_and_gradient(ctx, weights_.ref(), {config_.form, sequences, &key}, tokens,
                                 targets, state, saved_, gradient_.ref(), 1.0);
    sum_.sum += part.sum;
    sum_.rows += part.rows;
  }

  /// Ends the step: mean gradient, clip, AdamW. A gradient that is not finite changes nothing.
  template <class Context>
  StepReport update(Context& ctx, double lr) {
    RETNET_CHECK(sum_.rows > 0, "Trainer::update",
                 "no target was accumulated, expected at least one");
    StepReport report{.loss = sum_.mean(), .tokens = sum_.rows};
    const auto flat = gradient_.flat();
    const Scalar mean = Scalar(1.0 / static_cast<double>(sum_.rows));
    for (Scalar& g : flat) g *= mean;
    report.grad_norm = clip_by_global_norm(ctx, flat, config_.clip_norm);
    report.skipped = !std::isfinite(report.grad_norm) || !std::isfinite(report.loss);
    if (!report.skipped) adamw_.step(ctx, lr, weights_, gradient_);
    if (report.skipped && config_.carry_state) carried_.reset();
    sum_ = {};
    micro_ = 0;
    ++step_;
    return report;
  }

  template <class Context>
  StepReport step(Context& ctx, const Batch& batch, double lr) {
    accumulate(ctx, batch);
    return update(ctx, lr);
  }

 private:
  Model model_;
  TrainerConfig config_;
  ParamBuffer<Scalar> weights_, gradient_;
  AdamW<Scalar> adamw_;
  typename Model::Saved saved_;
  ModelState<Scalar> carried_;
  LossSum sum_;
  std::uint64_t micro_ = 0;
  std::int64_t step_ = 0;
};

}  // namespace retnet::inline RETNET_ABI
