// SPDX-License-Identifier: MIT
// Generation with a 380M-parameter RetNet (d 1024, 24 layers, 4 heads of 256/512, vocabulary 32000) in
// bfloat16: milliseconds a step of N sequences in a graph, beside the reading of weights and states.
//
//   generate_380m [tokens]
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "model_380m.cuh"
#include "retnet/cuda/session.cuh"

namespace {

using namespace retnet;

int run(int count) {
  if (!cuda_available()) return std::puts("no CUDA device"), 0;
  CudaContext ctx;
  const auto cpu = bench::model_380m();
  CudaRetNetModel<> model(ctx, cpu);
  std::printf("%s, %lld parameters\n", ctx.properties().name,
              static_cast<long long>(cpu.count_params()));
  for (const int n : {1, 2, 4, 8, 16, 64}) {
    CudaSession<> session(ctx, model, {}, n);
    const std::vector<Token> text(512, 17);
    session.prompt(std::vector<std::span<const Token>>(static_cast<std::size_t>(n), text));
    session.likeliest(3);  // allocates, captures
    const auto t0 = std::chrono::steady_clock::now();
    session.likeliest(count);
    const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - t0;
    const double step = ms.count() / count;
    const double bytes = 2.0 * static_cast<double>(cpu.count_params() - 32000 * 1024) +
                         8.0 * static_cast<double>(session.state().size());
    std::printf("%3d sequences: %.4f ms a step, %.0f tokens/s, %.2f TB/s of weights and states\n",
                n, step, n / step * 1e3, bytes / step * 1e-9);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run(argc > 1 ? static_cast<int>(std::strtol(argv[1], nullptr, 10)) : 200);
}
