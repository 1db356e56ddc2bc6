// SPDX-License-Identifier: MIT
// CudaTrainer: Trainer on the device. The model computes in T; weights, gradient and moments are
// float beside it, in the layout of the CPU, so that a checkpoint of either continues on the other.
#pragma once

#include <limits>
#include <vector>

#include "retnet/cuda/adamw.cuh"
#include "retnet/cuda/model.cuh"

namespace retnet {

template <class T = __nv_bfloat16>
class CudaTrainer {
 public:
  using Model = CudaRetNetModel<T>;

  /// Starts from the weights of `model`, which is not kept. Throws std::invalid_argument for a config that
  /// the device does not serve (see model.cuh) or that makes no sense.
  template <class W>
  CudaTrainer(CudaContext& ctx, const RetNetModel<float, W>& model, TrainerConfig config)
      : model_(ctx, model), config_(config) {
    RETNET_CUDA_REQUIRE(config.clip_norm > 0.0, "CudaTrainer::CudaTrainer",
                        "clip_norm = ", config.clip_norm, ", expected > 0");
    config.adamw.validate();
    const std::int64_t n = layout().size();
    for (auto* buffer : {&gradient_, &first_, &second_}) {
      buffer->resize(n);
      buffer->zero(ctx.stream());
    }
    if constexpr (!kFloat) {
      master_.resize(n);
      const auto host = rearranged<float>(model.weight_buffer(), model.layout(), layout());
      master_.upload(host.flat(), ctx.stream());
    }
    std::vector<DeviceAdamBlock> blocks;
    for (const auto& e : layout().entries())
      for (Index i = 0; i < e.place.size(); i += kBlock)
        blocks.push_back({e.place.offset + i,
                          static_cast<std::int32_t>(std::min(kBlock, e.place.size() - i)),
                          e.decays});
    blocks_.resize(std::ssize(blocks));
    blocks_.upload(blocks, ctx.stream());
    loss_.resize(1);
    loss_.zero(ctx.stream());
    update_.resize(1);
    saved_.recompute = config.recompute;
  }

  const TrainerConfig& config() const { return config_; }
  const ParamLayout& layout() const { return model_.layout(); }
  Model& model() { return model_; }
  /// The float weights, gradient and moments, flat on the device.
  DeviceBuffer<float>& weights() {
    if constexpr (kFloat) {
      return model_.weights();
    } else {
      return master_;
    }
  }
  DeviceBuffer<float>& gradient() { return gradient_; }
  DeviceBuffer<float>& first_moment() { return first_; }
  DeviceBuffer<float>& second_moment() { return second_; }
  /// Updates so far, skipped ones included; and those that moved the weights.
  std::int64_t step() const { return step_; }
  std::int64_t adam_steps() const { return adam_steps_; }
  /// Continues from a checkpoint; the buffers are filled by the caller, then call this.
  void set_steps(CudaContext& ctx, std::int64_t step, std::int64_t adam_steps) {
    step_ = step;
    adam_steps_ = adam_steps;
    if constexpr (!kFloat) {
      cuda::round_kernel<T><<<4 * ctx.multiprocessors(), 256, 0, ctx.stream()>>>(
          master_.data(), master_.size(), model_.weights().data());
      RETNET_CUDA_LAUNCHED("round", cuda::concat(master_.size(), " weights"));
    }
  }

  /// A model for the CPU with a copy of the weights as they are now.
  RetNetModel<float> snapshot(CudaContext& ctx) {
    ParamBuffer<float> host(layout());
    weights().download(host.flat(), ctx.stream());
    return RetNetModel<float>(model_.config(), std::move(host));
  }

  /// Adds the gradient of one batch; the update weighs every target alike. Does not wait for the
  /// device.
  void accumulate(CudaContext& ctx, const Batch& batch) {
    accumulate(ctx, Sequences::dense(batch.batch, batch.tokens), batch.inputs, batch.targets);
  }
  void accumulate(CudaContext& ctx, const Sequences& sequences, std::span<const Token> tokens,
                  std::span<const Token> targets) {
    if (fresh_) {
      stage(ctx, Stage::optimizer);
      gradient_.zero(ctx.stream());
      loss_.zero(ctx.stream());
      fresh_ = false;
    }
    typename Model::State* state = nullptr;
    if (config_.carry_state) {
      if (carried_.sequences() != sequences.count())
        carried_ = model_.initial_state(ctx, static_cast<int>(sequences.count()));
      state = &carried_;
    }
    model_.loss_and_gradient(ctx, config_.form, sequences, tokens, targets, state, saved_,
                             gradient_.data(), 1.0f, loss_.data());
  }

  /// Ends the step: mean gradient, clip, AdamW. A gradient that is not finite changes nothing. Waits for
  /// the device. The report's loss is in nats a target, its grad_norm that of the mean gradient before
  /// the clip. Throws std::invalid_argument where nothing was accumulated.
  StepReport update(CudaContext& ctx, double lr) {
    RETNET_CUDA_REQUIRE(!fresh_, "CudaTrainer::update", "no batch was accumulated");
    stage(ctx, Stage::optimizer);
    const std::int64_t n = layout().size();
    decide_update(ctx, gradient_.data(), n, loss_.data(), config_.clip_norm, update_.data());
    const auto& a = config_.adamw;
    T* copy = nullptr;
    if constexpr (!kFloat) copy = model_.weights().data();
    adamw<T>(ctx, {a.beta1, a.beta2, a.eps, a.weight_decay}, lr, adam_steps_ + 1, blocks_,
             update_.data(), gradient_.data(), weights().data(), first_.data(), second_.data(),
             copy);
    stage(ctx, Stage::idle);
    return report(ctx);
  }

  /// One batch, one update.
  StepReport step(CudaContext& ctx, const Batch& batch, double lr) {
    accumulate(ctx, batch);
    return update(ctx, lr);
  }

 private:
  static constexpr bool kFloat = std::is_same_v<T, float>;
  static constexpr Index kBlock = 8192;

  // The one place in a step where the host waits.
  StepReport report(CudaContext& ctx) {
    DeviceLoss loss{};
    DeviceUpdate done{};
    loss_.download({&loss, 1}, ctx.stream());
    update_.download({&done, 1}, ctx.stream());
    RETNET_CUDA_REQUIRE(loss.rows > 0, "CudaTrainer::update",
                        "no target was accumulated, expected at least one");
    StepReport out{.loss = loss.sum / static_cast<double>(loss.rows),
                   .grad_norm = done.norm,
                   .tokens = static_cast<Index>(loss.rows),
                   .skipped = done.skip != 0};
    if (!out.skipped) ++adam_steps_;
    if (out.skipped && config_.carry_state) carried_.reset(ctx);
    fresh_ = true;
    ++step_;
    return out;
  }

  Model model_;
  TrainerConfig config_;
  DeviceBuffer<float> master_, gradient_, first_, second_;
  DeviceBuffer<DeviceAdamBlock> blocks_;
  DeviceBuffer<DeviceLoss> loss_;
  DeviceBuffer<DeviceUpdate> update_;
  typename Model::Saved saved_;
  CudaModelState carried_;
  bool fresh_ = true;
  std::int64_t step_ = 0, adam_steps_ = 0;
};

}  // namespace retnet
