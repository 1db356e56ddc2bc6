// SPDX-License-Identifier: MIT
// Forward and forward+backward of retention in bf16. Floors, for each token and head: forward reads
// q, k, v and writes o, 4 (Dk + Dv) bytes; backward walks the sequence twice, once from each end, for
// no state fits in memory traffic: 10 (Dk + Dv). Products with chunks of 64, the causal half of the
// scores: 4 Dk Dv + 65 (Dk + Dv) and 10 Dk Dv + 65 (3 Dk + 2 Dv).
#include "retnet/cuda/retention.cuh"

#include "rows.hpp"

namespace bench {
namespace {

struct Shape {
  int batch, heads;
  std::int64_t tokens;
  int key_dim, value_dim;

  std::string name() const {
    return retnet::cuda::concat(batch, ",", heads, ",", tokens, ",", key_dim, ",", value_dim);
  }
  double tokens_and_heads() const { return static_cast<double>(tokens) * batch * heads; }
  std::int64_t keys() const { return tokens * batch * heads * key_dim; }
  std::int64_t values() const { return tokens * batch * heads * value_dim; }
};

constexpr Shape kShapes[] = {
    {8, 8, 4096, 256, 512},  {8, 16, 4096, 128, 128},  {2, 16, 16384, 128, 128},
    {1, 8, 16384, 256, 512}, {8, 8, 1024, 256, 512},   {8, 8, 16384, 256, 512},
    {8, 16, 1024, 128, 128}, {8, 16, 16384, 128, 128}, {4, 4, 8192, 256, 512},
    {8, 16, 4096, 64, 64},   {8, 8, 4096, 128, 256},   {8, 8, 4096, 256, 256}};

/// All that one forward and backward reads and writes.
struct Set {
  DeviceBuffer<Bf16> q, k, v, o, d_o, dq, dk, dv;
  retnet::DeviceRetention<Bf16> in;
  retnet::DeviceRetentionGradient<Bf16> grad;

  Set(CudaContext& ctx, const Shape& s, unsigned stream)
      : q(random_buffer<Bf16>(ctx, s.keys(), stream)),
        k(random_buffer<Bf16>(ctx, s.keys(), stream + 1,
                              1.f / std::sqrt(static_cast<float>(s.key_dim)))),
        v(random_buffer<Bf16>(ctx, s.values(), stream + 2)),
        o(s.values()),
        d_o(random_buffer<Bf16>(ctx, s.values(), stream + 3)),
        dq(s.keys()),
        dk(s.keys()),
        dv(s.values()) {
    const std::int64_t key_row = std::int64_t{s.heads} * s.key_dim,
                       value_row = std::int64_t{s.heads} * s.value_dim;
    in.q = {q.data(), key_row}, in.k = {k.data(), key_row}, in.v = {v.data(), value_row};
    in.heads = in.kv_heads = s.heads;
    in.key_dim = s.key_dim, in.value_dim = s.value_dim;
    for (int h = 0; h < s.heads; ++h)
      in.decay.log2_gamma[h] = static_cast<float>(std::log1p(-std::exp2(-5.0 - h)) / std::log(2.0));
    in.sequences = retnet::DeviceSequences::dense(s.batch, s.tokens);
    grad.dq = {dq.data(), key_row}, grad.dk = {dk.data(), key_row},
    grad.dv = {dv.data(), value_row};
  }
  void forward(CudaContext& ctx) {
    retention_chunkwise<Bf16>(ctx, in, nullptr, nullptr, {o.data(), in.v.stride});
  }
  void backward(CudaContext& ctx) {
    retention_chunkwise_backward<Bf16>(ctx, in, nullptr, {d_o.data(), in.v.stride}, grad);
  }
};

}  // namespace

void add_retention(CudaContext& ctx, const Limits& limits, Report& report) {
  for (const auto& s : kShapes) {
    const std::string forward = "forward " + s.name(), both = "forward+backward " + s.name();
    if (!report.wants(forward) && !report.wants(both)) continue;
    if (report.quick && &s - kShapes >= 4) break;
    std::vector<Set> sets;
    const int count = sets_beyond_cache(ctx, 2 * (s.keys() + s.values()) * 2);
    for (int i = 0; i < count; ++i) sets.emplace_back(ctx, s, 4u * static_cast<unsigned>(i));

    const double n = s.tokens_and_heads(), dk = s.key_dim, dv = s.value_dim;
    const double floor = limits.floor_ms(4 * (dk + dv) * n, (4 * dk * dv + 65 * (dk + dv)) * n);
    const double backward_floor =
        limits.floor_ms(10 * (dk + dv) * n, (10 * dk * dv + 65 * (3 * dk + 2 * dv)) * n);
    const auto add = [&](const std::string& name, double floor_ms, auto&& run) {
      if (!report.wants(name)) return;
      std::vector<const char*> paths;
      ctx.trace = &paths;
      run(sets[0]);
      ctx.trace = nullptr;
      const double ms =
          median_ms(ctx, count, [&](int i) { run(sets[static_cast<std::size_t>(i)]); });
      report.add({"retention", name, ms, floor_ms, paths.empty() ? "" : paths.back()});
    };
    add(forward, floor, [&](Set& set) { set.forward(ctx); });
    add(both, floor + backward_floor, [&](Set& set) {
      set.forward(ctx);
      set.backward(ctx);
    });
  }
}

}  // namespace bench
