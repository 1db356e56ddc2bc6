// SPDX-License-Identifier: MIT
// One token of many sequences, states of 8 heads of 256/512 in float, steps in a graph over the
// states of several layers. The floor is the copy of all states; with deferred writes it is still
// that, so that the gain shows as a number below 1.
#include "retnet/cuda/retention_deferred.cuh"
#include "retnet/cuda/retention_step.cuh"
#include "rows.hpp"

namespace bench {
namespace {

constexpr int kHeads = 8, kKeyDim = 256, kValueDim = 512, kWindow = 16;

/// States, pending tokens and inputs of several layers.
struct Layers {
  int batch, count;
  std::int64_t state_size, slots;
  DeviceBuffer<Bf16> q, k, v, o, keys, values;
  DeviceBuffer<float> states;
  DeviceBuffer<double> log_decay;
  DeviceBuffer<std::int32_t> counts;
  DeviceBuffer<std::uint32_t> arrived;
  retnet::DeviceRetention<Bf16> in;

  Layers(CudaContext& ctx, int batch_, int tokens)
      : batch(batch_),
        count(sets_beyond_cache(ctx, std::int64_t{batch_} * kHeads * kKeyDim * kValueDim * 8)),
        state_size(std::int64_t{batch} * kHeads * kKeyDim * kValueDim),
        slots(std::int64_t{batch} * kHeads * kWindow),
        q(random_buffer<Bf16>(ctx, std::int64_t{batch} * tokens * kHeads * kKeyDim, 1)),
        k(random_buffer<Bf16>(ctx, q.size(), 2, 1.f / 16)),
        v(random_buffer<Bf16>(ctx, std::int64_t{batch} * tokens * kHeads * kValueDim, 3)),
        o(v.size()),
        keys(count * slots * kKeyDim),
        values(count * slots * kValueDim),
        states(random_buffer<float>(ctx, count * state_size, 4)),
        log_decay(count * slots),
        counts(count * batch),
        arrived(count * batch) {
    counts.zero(ctx.stream());
    arrived.zero(ctx.stream());
    in.q = {q.data(), kHeads * kKeyDim}, in.k = {k.data(), kHeads * kKeyDim};
    in.v = {v.data(), kHeads * kValueDim};
    in.heads = in.kv_heads = kHeads, in.key_dim = kKeyDim, in.value_dim = kValueDim;
    for (int h = 0; h < kHeads; ++h)
      in.decay.log2_gamma[h] = static_cast<float>(std::log1p(-std::exp2(-5.0 - h)) / std::log(2.0));
    in.sequences = retnet::DeviceSequences::dense(batch, tokens);
  }
  float* state(int layer) { return states.data() + layer * state_size; }
  retnet::DeviceRows<Bf16> output() { return {o.data(), kHeads * kValueDim}; }
  retnet::DevicePendingTokens<Bf16> pending(int layer) {
    return {kWindow,
            keys.data() + layer * slots * kKeyDim,
            values.data() + layer * slots * kValueDim,
            log_decay.data() + layer * slots,
            counts.data() + layer * batch,
            arrived.data() + layer * batch};
  }
};

std::string rate(double bytes, double ms, const Limits& limits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.2f us, %.0f %% of copy", ms * 1e3,
                100.0 * bytes / ms / limits.bytes_per_ms);
  return text;
}

}  // namespace

void add_decode(CudaContext& ctx, const Limits& limits, Report& report) {
  for (const int batch : {1, 16, 64, 256}) {
    if (report.quick && batch > 64) break;
    const std::string shape =
        retnet::cuda::concat(batch, ",", kHeads, ",", kKeyDim, ",", kValueDim);
    if (!report.wants("step " + shape) && !report.wants("deferred step " + shape)) continue;
    Layers layers(ctx, batch, 1);
    const double bytes = 8.0 * static_cast<double>(layers.state_size),
                 floor = bytes / limits.bytes_per_ms;
    const auto add = [&](const std::string& name, int steps, int tokens, auto&& step) {
      if (!report.wants(name)) return;
      const double ms = graph_ms(ctx,
                                 [&] {
                                   for (int i = 0; i < steps; ++i)
                                     for (int layer = 0; layer < layers.count; ++layer) step(layer);
                                 }) /
                        (steps * layers.count * tokens);
      report.add({"decode", name, ms, floor, rate(bytes, ms, limits)});
    };
    add("step " + shape, 4, 1, [&](int layer) {
      retention_recurrent_step(ctx, layers.in, layers.state(layer), layers.output());
    });
    add("deferred step " + shape, kWindow, 1, [&](int layer) {
      retention_deferred(ctx, layers.in, layers.pending(layer), layers.state(layer),
                         layers.output());
    });
    for (const int tokens : {4, 8}) {
      Layers several(ctx, batch, tokens);
      add(retnet::cuda::concat("step of ", tokens, " tokens, each, ", shape), 4, tokens,
          [&](int layer) {
            retention_recurrent_step(ctx, several.in, layers.state(layer), several.output());
          });
    }
  }
}

}  // namespace bench
