// SPDX-License-Identifier: MIT
// bench_cuda: retention on a device against the limits of that device, and beside peers.
//
//   --peers=<file>    rows of bench/peers/torch_cuda.py, for the tables
//   --out=<folder>    writes bench_cuda.csv and README.md there
//   --title=<text>    the first line of README.md
//   --filter=<text>   only rows whose name contains it
//   --quick           the first shapes only
#include <cstring>

#include "retnet/cuda/linear.cuh"
#include "rows.hpp"

namespace {

using bench::Bf16, bench::Limits, retnet::CudaContext, retnet::DeviceBuffer;

Limits measure_limits(CudaContext& ctx) {
  Limits limits;
  {
    constexpr std::int64_t kBytes = std::int64_t{1} << 31;
    auto from = bench::random_buffer<float>(ctx, kBytes / 4, 1),
         to = DeviceBuffer<float>(kBytes / 4);
    limits.bytes_per_ms = 2.0 * kBytes / bench::median_ms(ctx, 1, [&](int) {
                            RETNET_CUDA(cudaMemcpyAsync(to.data(), from.data(), kBytes,
                                                        cudaMemcpyDeviceToDevice, ctx.stream()));
                          });
  }
  constexpr std::int64_t n = 8192;
  auto a = bench::random_buffer<Bf16>(ctx, n * n, 2), b = bench::random_buffer<Bf16>(ctx, n * n, 3);
  DeviceBuffer<Bf16> c(n * n);
  using Matrix = retnet::DeviceMatrix<Bf16>;
  limits.flops_per_ms =
      2.0 * n * n * n / bench::median_ms(ctx, 1, [&](int) {
        retnet::linear<Bf16, Bf16>(ctx, Matrix(a.data(), n, n), nullptr, Matrix(b.data(), n, n),
                                   Matrix(c.data(), n, n));
      });
  return limits;
}

std::string flag(int argc, char** argv, const std::string& name) {
  for (int i = 1; i < argc; ++i)
    if (std::strncmp(argv[i], name.c_str(), name.size()) == 0) return argv[i] + name.size();
  return {};
}

int run(int argc, char** argv) {
  if (!retnet::cuda_available()) {
    std::printf("bench_cuda: no CUDA device, nothing is measured\n");
    return 0;
  }
  CudaContext ctx;
  bool quick = false;
  for (int i = 1; i < argc; ++i) quick = quick || std::strcmp(argv[i], "--quick") == 0;
  bench::Report report(flag(argc, argv, "--filter="), quick);
  if (const auto peers = flag(argc, argv, "--peers="); !peers.empty()) report.read_peers(peers);

  const auto limits = measure_limits(ctx);
  char head[512];
  std::snprintf(head, sizeof head,
                "%s, %d multiprocessors: copy %.2f TB/s, bf16 product of 8192^3 %.0f TFLOP/s",
                ctx.properties().name, ctx.multiprocessors(), limits.bytes_per_ms * 1e-9,
                limits.flops_per_ms * 1e-9);
  std::printf("%s\n", head);
  bench::add_retention(ctx, limits, report);
  bench::add_decode(ctx, limits, report);
  bench::add_row_ops(ctx, limits, report);

  const auto folder = flag(argc, argv, "--out=");
  if (folder.empty()) return 0;
  const auto title = flag(argc, argv, "--title=");
  report.write(folder, (title.empty() ? "" : "# " + title + "\n\n") + head + ".\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_cuda: %s\n", e.what());
    return 1;
  }
}
