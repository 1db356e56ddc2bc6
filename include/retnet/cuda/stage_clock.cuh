// SPDX-License-Identifier: MIT
// StageClock: where the time of a pass goes, by events between its stages. Off unless asked for.
#pragma once

#include <array>
#include <vector>

#include "retnet/cuda/context.cuh"

namespace retnet {

enum class Stage { products, retention, rows, embedding, loss, optimizer, idle };
inline constexpr std::array<const char*, 7> kStageNames = {
    "products", "retention", "rows", "embedding", "loss", "optimizer", "idle"};

class StageClock {
 public:
  StageClock() = default;
  StageClock(const StageClock&) = delete;
  StageClock& operator=(const StageClock&) = delete;
  ~StageClock() {
    for (auto& m : marks_) cudaEventDestroy(m.event);
  }

  bool on = false;

  /// What is launched from now on belongs to `stage`.
  void mark(CudaContext& ctx, Stage stage) {
    if (!on || stage == stage_) return;
    if (used_ == marks_.size()) {
      marks_.push_back({});
      RETNET_CUDA(cudaEventCreate(&marks_.back().event));
    }
    marks_[used_].stage = stage_ = stage;
    RETNET_CUDA(cudaEventRecord(marks_[used_++].event, ctx.stream()));
  }
  /// Milliseconds of every stage since the last read(); waits for the device.
  std::array<double, kStageNames.size()> read(CudaContext& ctx) {
    mark(ctx, Stage::idle);
    ctx.synchronize();
    std::array<double, kStageNames.size()> sums{};
    for (std::size_t i = 0; i + 1 < used_; ++i) {
      float ms = 0.0f;
      RETNET_CUDA(cudaEventElapsedTime(&ms, marks_[i].event, marks_[i + 1].event));
      sums[static_cast<std::size_t>(marks_[i].stage)] += static_cast<double>(ms);
    }
    used_ = 0;
    stage_ = Stage::idle;
    return sums;
  }

 private:
  struct Mark {
    cudaEvent_t event = nullptr;
    Stage stage = Stage::idle;
  };
  std::vector<Mark> marks_;
  std::size_t used_ = 0;
  Stage stage_ = Stage::idle;
};

/// What ctx is given from now on belongs to `s`; free while the clock of ctx is off, as it begins.
inline void stage(CudaContext& ctx, Stage s) { ctx.part<StageClock>().mark(ctx, s); }

}  // namespace retnet
