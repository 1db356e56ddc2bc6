// SPDX-License-Identifier: MIT
// What stands around retention in a block of d 1024, 4 heads of 256/512, feed-forward width 1536, at
// 32768 tokens: row ops against the copy of what they read and write, products against the matrix rate.
#include "retnet/cuda/cross_entropy.cuh"
#include "retnet/cuda/norm.cuh"
#include "retnet/cuda/rotation.cuh"
#include "rows.hpp"

namespace bench {
namespace {

using retnet::DeviceMatrix;
using retnet::DeviceNormWeights;
using Matrix = DeviceMatrix<Bf16>;
using In = DeviceMatrix<const Bf16>;
constexpr std::int64_t kRows = 32768, kModel = 1024, kValues = 2048, kAll = 6144, kHidden = 1536;
constexpr int kHeads = 4;

struct Buffers {
  explicit Buffers(CudaContext& ctx) {
    for (auto* b : {&a, &b, &c, &d}) {
      b->resize(kRows * kAll);
      fill_random(ctx, b->data(), b->size(), 1);
    }
    w.resize(kAll);
    fill_random(ctx, w.data(), kAll, 2);
    dw.resize(kAll);
    dw.zero(ctx.stream());
  }
  DeviceBuffer<Bf16> a, b, c, d, w;
  DeviceBuffer<float> dw;
};

Matrix rows(DeviceBuffer<Bf16>& b, std::int64_t cols, std::int64_t first = 0,
            std::int64_t stride = 0) {
  return {b.data() + first, kRows, cols, stride > 0 ? stride : cols};
}

void add_products(CudaContext& ctx, const Limits& limits, Report& report, Buffers& x) {
  struct Product {
    const char* name;
    std::int64_t in, out;
  };
  DeviceBuffer<float> gradient(kAll * kModel);
  gradient.zero(ctx.stream());
  for (const auto& p : {Product{"q k v g 1024 to 6144", kModel, kAll},
                        Product{"output 2048 to 1024", kValues, kModel},
                        Product{"feed-forward in 1024 to 3072", kModel, 2 * kHidden},
                        Product{"feed-forward out 1536 to 1024", kHidden, kModel}}) {
    const double flops = 2.0 * kRows * static_cast<double>(p.in * p.out),
                 floor = flops / limits.flops_per_ms;
    const In w(x.d.data(), p.out, p.in), in = rows(x.a, p.in), dy = rows(x.b, p.out);
    const auto add = [&](const std::string& what, auto&& run) {
      const std::string name = what + ", " + p.name;
      if (!report.wants(name)) return;
      const double ms = median_ms(ctx, 1, [&](int) { run(); });
      char text[32];
      std::snprintf(text, sizeof text, "%.0f TFLOP/s", flops / ms * 1e-9);
      report.add({"products", name, ms, floor, text});
    };
    add("forward", [&] { retnet::linear<Bf16, Bf16>(ctx, w, nullptr, in, rows(x.c, p.out)); });
    add("forward + residual",
        [&] { retnet::linear<Bf16, Bf16>(ctx, w, nullptr, in, rows(x.c, p.out), dy, 1.f); });
    add("dx", [&] { retnet::linear_backward_input<Bf16>(ctx, w, dy, rows(x.c, p.in)); });
    add("dW", [&] {
      retnet::linear_backward_weight<Bf16>(ctx, in, dy, {gradient.data(), p.out, p.in});
    });
  }
}

}  // namespace

void add_row_ops(CudaContext& ctx, const Limits& limits, Report& report) {
  if (!report.wants("norm") && !report.wants("dW")) return;
  Buffers x(ctx);
  // `columns` of bfloat16 read or written for every row
  const auto add = [&](const std::string& name, std::int64_t columns, auto&& run) {
    if (!report.wants(name)) return;
    const double bytes = 2.0 * kRows * static_cast<double>(columns);
    const double ms = median_ms(ctx, 1, [&](int) { run(); });
    char text[32];
    std::snprintf(text, sizeof text, "%.2f TB/s", bytes / ms * 1e-9);
    report.add({"rows", name, ms, bytes / limits.bytes_per_ms, text});
  };
  const DeviceNormWeights<Bf16> block{.weight = x.w.data()};
  const DeviceNormWeights<Bf16> head{.groups = kHeads, .weight = x.w.data()};
  const Matrix g = rows(x.a, kValues, 4096, kAll), dg = rows(x.b, kValues, 4096, kAll);
  const In o = rows(x.c, kValues), z = rows(x.b, kModel);
  add("norm", 2 * kModel,
      [&] { retnet::norm<Bf16>(ctx, block, rows(x.a, kModel), rows(x.b, kModel)); });
  add("norm backward + residual", 4 * kModel, [&] {
    retnet::norm_backward<Bf16>(ctx, block, rows(x.a, kModel), rows(x.c, kModel),
                                {.dx = rows(x.d, kModel), .dweight = x.dw.data()}, {}, z, 1.f);
  });
  add("head norm x gate", 3 * kValues,
      [&] { retnet::norm<Bf16>(ctx, head, o, rows(x.d, kValues), g); });
  add("head norm x gate backward", 6 * kValues, [&] {
    retnet::norm_backward<Bf16>(ctx, head, o, rows(x.d, kValues),
                                {.dx = rows(x.d, kValues, kRows * kValues),
                                 .dweight = x.dw.data(),
                                 .dg = dg,
                                 .y = rows(x.c, kValues, kRows * kValues)},
                                g);
  });
  const auto swish = retnet::DeviceActivation::swish;
  const Matrix a = rows(x.a, kHidden, 0, 2 * kHidden), u = rows(x.a, kHidden, kHidden, 2 * kHidden);
  add("swiglu", 3 * kHidden, [&] { retnet::gate<Bf16>(ctx, swish, a, u, rows(x.b, kHidden)); });
  add("swiglu backward", 6 * kHidden, [&] {
    retnet::gate_backward<Bf16>(ctx, swish, a, u, rows(x.b, kHidden),
                                rows(x.c, kHidden, 0, 2 * kHidden),
                                rows(x.c, kHidden, kHidden, 2 * kHidden), rows(x.d, kHidden));
  });
  DeviceBuffer<double> theta(128);
  theta.upload(std::vector<double>(128, 0.01), ctx.stream());
  const auto scope = ctx.workspace().scope();
  const auto angles =
      retnet::make_angles(ctx,
                          {.layout = retnet::DeviceRotationLayout::half_split,
                           .pairs = 128,
                           .heads = kHeads,
                           .theta = theta.data()},
                          retnet::DeviceSequences::dense(4, kRows / 4), nullptr, true);
  add("rotation of q and k", 4 * kModel, [&] {
    retnet::rotate<Bf16>(ctx, angles,
                         {rows(x.a, kModel, 0, kAll), kHeads, angles.query, nullptr, 1.f},
                         {rows(x.a, kModel, kModel, kAll), kHeads, angles.key, nullptr, 1.f});
  });
  constexpr std::int64_t kLossRows = 4096, kVocab = 32000;
  DeviceBuffer<std::int32_t> targets(kLossRows);
  targets.zero(ctx.stream());
  DeviceBuffer<retnet::DeviceLoss> loss(1);
  loss.zero(ctx.stream());
  const double logit_columns = 2.0 * kLossRows * kVocab / kRows;
  add("cross-entropy and its gradient", static_cast<std::int64_t>(logit_columns), [&] {
    retnet::cross_entropy<Bf16>(ctx, targets.data(), {x.d.data(), kLossRows, kVocab}, 1.f,
                                loss.data());
  });
  add_products(ctx, limits, report, x);
}

}  // namespace bench
