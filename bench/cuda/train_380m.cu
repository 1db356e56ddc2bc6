// SPDX-License-Identifier: MIT
// Training steps of a 380M-parameter RetNet (d 1024, 24 layers, 4 heads of 256/512, vocabulary
// 32000) on 4 x 8192 random tokens in bfloat16: tokens a second, memory, and where the time goes.
//
//   train_380m [steps] [tokens a sequence] [sequences] [recompute]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "model_380m.cuh"
#include "retnet/cuda/trainer.cuh"

namespace {

using namespace retnet;

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

int run(int steps, Index tokens, Index sequences, bool recompute) {
  if (!cuda_available()) return std::puts("no CUDA device"), 0;
  CudaContext ctx;
  const auto cpu = bench::model_380m();
  CudaTrainer<> trainer(ctx, cpu, {.recompute = recompute});
  Batch batch{.batch = sequences, .tokens = tokens};
  std::vector<double> ms;
  const auto fill = [&](int step) {
    std::uint32_t x = 12345u + static_cast<std::uint32_t>(step);
    batch.inputs.resize(static_cast<std::size_t>(sequences * tokens));
    batch.targets = batch.inputs;
    for (auto* side : {&batch.inputs, &batch.targets})
      for (auto& t : *side) {
        x = x * 1664525u + 1013904223u;
        t = static_cast<Token>((std::uint64_t{x} * 32000) >> 32);
      }
  };
  const auto begin = std::chrono::steady_clock::now();
  StepReport report;
  for (int i = 0; i < steps + 3; ++i) {
    fill(i);
    const auto t0 = std::chrono::steady_clock::now();
    report = trainer.step(ctx, batch, 3e-4);
    const std::chrono::duration<double, std::milli> t = std::chrono::steady_clock::now() - t0;
    if (i < 3)
      std::printf("warm-up %d: %.1f ms, loss %.4f, norm %.3f\n", i, t.count(), report.loss,
                  report.grad_norm);
    if (i >= 3) ms.push_back(t.count());
  }
  const std::chrono::duration<double> all = std::chrono::steady_clock::now() - begin;
  std::size_t free_bytes = 0, total_bytes = 0;
  RETNET_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  const double rows = static_cast<double>(tokens * sequences), typical = median(ms);
  std::printf("%s, %lld parameters, %lld x %lld tokens%s\n", ctx.properties().name,
              static_cast<long long>(cpu.count_params()), static_cast<long long>(sequences),
              static_cast<long long>(tokens), recompute ? ", recomputed" : "");
  std::printf("%d steps: median %.2f ms (%.2f to %.2f), %.0f tokens/s, 6N %.0f TFLOP/s\n", steps,
              typical, *std::min_element(ms.begin(), ms.end()),
              *std::max_element(ms.begin(), ms.end()), rows / typical * 1e3,
              6.0 * static_cast<double>(cpu.count_params()) * rows / typical / 1e9);
  std::printf("memory on the device %.2f GiB, loss %.4f, norm %.3f, all %.1f s\n",
              static_cast<double>(total_bytes - free_bytes) / 1073741824.0, report.loss,
              report.grad_norm, all.count());
  auto& clock = ctx.part<StageClock>();
  clock.on = true;
  fill(99);
  trainer.step(ctx, batch, 3e-4);
  const auto stages = clock.read(ctx);
  for (std::size_t i = 0; i < stages.size(); ++i)
    std::printf("  %-10s %8.2f ms\n", kStageNames[i], stages[i]);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, long otherwise) {
    return argc > i ? std::strtol(argv[i], nullptr, 10) : otherwise;
  };
  return run(static_cast<int>(number(1, 8)), number(2, 8192), number(3, 4), number(4, 0) != 0);
}
