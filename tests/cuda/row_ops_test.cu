// SPDX-License-Identifier: MIT
// The ops around retention on the device against those of the CPU in double.
#include <gtest/gtest.h>

#include "retnet/cuda/adamw.cuh"
#include "retnet/cuda/embedding.cuh"
#include "retnet/cuda/host.cuh"
#include "retnet/cuda/norm.cuh"
#include "retnet/cuda/rotation.cuh"
#include "support/device_matrix.cuh"

namespace retnet {
namespace {

using test::bar;
using test::DeviceValues;
using test::relative_rms;

template <class T>
class RowOps : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no CUDA device";
  }
};
using Types = ::testing::Types<float, __nv_bfloat16>;
TYPED_TEST_SUITE(RowOps, Types);

template <class T>
void expect_near(DeviceValues<T>& given, Window<const double> expected, double bar,
                 const std::string& what) {
  given.download();
  EXPECT_LE(relative_rms(given.host_in(), expected), bar) << what;
}

using Matrix = std::vector<double>;
struct Expected {
  Expected(Index rows, Index cols)
      : data(static_cast<std::size_t>(rows * cols)), w(data.data(), rows, cols) {}
  Matrix data;
  Window<double> w;
  Window<const double> in() const { return w; }
};

struct Shape {
  Index rows, cols, gap;
};
constexpr Shape kShapes[] = {{1, 8, 0}, {3, 43, 0}, {67, 96, 8}, {130, 1024, 0}, {33, 1728, 5}};

constexpr Activation kCpu[] = {Activation::identity, Activation::relu,    Activation::gelu,
                               Activation::swish,    Activation::sigmoid, Activation::gelu_tanh};
constexpr DeviceActivation kDevice[] = {DeviceActivation::identity, DeviceActivation::relu,
                                        DeviceActivation::gelu,     DeviceActivation::swish,
                                        DeviceActivation::sigmoid,  DeviceActivation::gelu_tanh};

TYPED_TEST(RowOps, GateAndItsGradients) {
  using T = TypeParam;
  CudaContext ctx;
  Reference cpu;
  for (const auto& s : kShapes)
    for (int k = 0; k < 6; ++k) {
      auto a = DeviceValues<T>::normal(s.rows, s.cols, 1, 2.0, 0.0, s.gap);
      auto u = DeviceValues<T>::normal(s.rows, s.cols, 2),
           dy = DeviceValues<T>::normal(s.rows, s.cols, 3);
      DeviceValues<T> y(s.rows, s.cols, s.gap), y2(s.rows, s.cols), da(s.rows, s.cols),
          du(s.rows, s.cols);
      Expected ey(s.rows, s.cols), eda(s.rows, s.cols), edu(s.rows, s.cols);
      const auto what = cuda::concat(s.rows, "x", s.cols, " activation ", k);
      retnet::gate(cpu, kCpu[k], a.host_in(), u.host_in(), ey.w);
      retnet::gate_backward(cpu, kCpu[k], a.host_in(), u.host_in(), dy.host_in(), eda.w, edu.w);
      gate<T>(ctx, kDevice[k], a.in(), u.in(), y.device());
      gate_backward<T>(ctx, kDevice[k], a.in(), u.in(), dy.in(), da.device(), du.device(),
                       y2.device());
      ctx.synchronize();
      expect_near(y, ey.in(), bar<T>(), what);
      expect_near(y2, ey.in(), bar<T>(), what);
      expect_near(da, eda.in(), bar<T>(), what);
      expect_near(du, edu.in(), bar<T>(), what);
      retnet::activation(cpu, kCpu[k], a.host_in(), ey.w);
      retnet::activation_backward(cpu, kCpu[k], a.host_in(), dy.host_in(), eda.w);
      gate<T>(ctx, kDevice[k], a.in(), {}, y.device());
      gate_backward<T>(ctx, kDevice[k], a.in(), {}, dy.in(), da.device(), {}, {});
      ctx.synchronize();
      expect_near(y, ey.in(), bar<T>(), what);
      expect_near(da, eda.in(), bar<T>(), what);
    }
}

// groups, width of a group, kind, weights: 0 none, 1 one group's, 2 every group its own; bias; gate
struct NormCase {
  Index rows, groups, width, gap;
  DeviceNorm kind;
  int weights;
  bool bias, gated;
};
constexpr DeviceNorm kRms = DeviceNorm::rms, kLayer = DeviceNorm::layer;
constexpr NormCase kNorms[] = {
    {1, 1, 8, 0, kRms, 1, false, false},      {70, 1, 43, 0, kLayer, 1, true, false},
    {301, 1, 1024, 0, kRms, 1, false, false}, {130, 1, 1024, 8, kLayer, 1, true, false},
    {77, 4, 512, 0, kRms, 0, false, true},    {77, 4, 512, 16, kRms, 1, false, true},
    {65, 3, 432, 0, kLayer, 2, true, true},   {33, 2, 43, 1, kLayer, 1, true, true},
    {40, 1, 2048, 0, kRms, 1, false, false},  {20, 1, 4096, 0, kLayer, 1, true, true},
};

template <class T>
void test_norm(const NormCase& c) {
  CudaContext ctx;
  Reference cpu;
  const Index cols = c.groups * c.width, wide = c.weights == 2 ? cols : c.width;
  auto x = DeviceValues<T>::normal(c.rows, cols, 1, 1.5, 0.3, c.gap);
  auto g = DeviceValues<T>::normal(c.rows, cols, 2), z = DeviceValues<T>::normal(c.rows, cols, 3);
  auto dy = DeviceValues<T>::normal(c.rows, cols, 4);
  auto w = DeviceValues<T>::normal(1, wide, 5, 0.5, 1.0), b = DeviceValues<T>::normal(1, wide, 6);
  const bool has_w = c.weights > 0;
  const Window<const double> hw = has_w ? w.host_in() : Window<const double>();
  const Window<const double> hb = c.bias ? b.host_in() : Window<const double>();
  const NormKind kind = c.kind == kRms ? NormKind::rms : NormKind::layer;
  const auto what = cuda::concat(c.rows, "x", c.groups, "x", c.width, " weights ", c.weights,
                                 " bias ", c.bias, " gate ", c.gated);
  DeviceValues<T> y(c.rows, cols, c.gap), y2(c.rows, cols), dx(c.rows, cols), dg(c.rows, cols);
  auto dw = DeviceValues<float>::normal(1, wide, 7), db = DeviceValues<float>::normal(1, wide, 8);
  // the oracle: norm, gate, residual one after the other
  Expected n(c.rows, cols), ey(c.rows, cols), edn(c.rows, cols), edx(c.rows, cols),
      edg(c.rows, cols);
  Expected edw(1, wide), edb(1, wide), sum(c.rows, cols);
  std::copy_n(dw.host().data, wide, edw.w.data);
  std::copy_n(db.host().data, wide, edb.w.data);
  retnet::norm(cpu, kind, 1e-5, c.groups, hw, hb, x.host_in(), n.w);
  if (c.gated)
    retnet::gate(cpu, Activation::swish, g.host_in(), n.in(), ey.w);
  else
    std::copy(n.data.begin(), n.data.end(), ey.data.begin());
  if (c.gated)
    retnet::gate_backward(cpu, Activation::swish, g.host_in(), n.in(), dy.host_in(), edg.w, edn.w);
  else
    std::copy_n(dy.host().data, c.rows * cols, edn.data.begin());
  retnet::norm_backward(cpu, kind, 1e-5, c.groups, hw, x.host_in(), edn.in(),
                        has_w ? edw.w : Window<double>(), c.bias ? edb.w : Window<double>(), edx.w);
  for (std::size_t i = 0; i < sum.data.size(); ++i) {
    sum.data[i] = ey.data[i] + 0.7 * z.host().data[i];
    edx.data[i] += 0.7 * z.host().data[i];
  }
  const DeviceNormWeights<T> weights{.kind = c.kind,
                                     .eps = 1e-5f,
                                     .groups = int(c.groups),
                                     .weight = has_w ? w.data() : nullptr,
                                     .bias = c.bias ? b.data() : nullptr,
                                     .per_group = c.weights == 2};
  const DeviceMatrix<const T> gate_in = c.gated ? g.in() : DeviceMatrix<const T>();
  norm<T>(ctx, weights, x.in(), y.device(), gate_in, z.in(), 0.7f);
  DeviceNormGradient<T> grad{.dx = dx.device(),
                             .dweight = has_w ? dw.data() : nullptr,
                             .dbias = c.bias ? db.data() : nullptr};
  if (c.gated) grad.dg = dg.device(), grad.y = y2.device();
  norm_backward<T>(ctx, weights, x.in(), dy.in(), grad, gate_in, z.in(), 0.7f);
  ctx.synchronize();
  expect_near(y, sum.in(), bar<T>(), what);
  expect_near(dx, edx.in(), bar<T>(), what);
  if (c.gated) expect_near(dg, edg.in(), bar<T>(), what);
  if (c.gated) expect_near(y2, ey.in(), bar<T>(), what);
  if (has_w) expect_near(dw, edw.in(), 3e-6, what);
  if (c.bias) expect_near(db, edb.in(), 3e-6, what);
}

TYPED_TEST(RowOps, NormGateResidualAndTheirGradients) {
  for (const auto& c : kNorms) test_norm<TypeParam>(c);
}

TYPED_TEST(RowOps, LinearAndItsGradients) {
  using T = TypeParam;
  CudaContext ctx;
  Reference cpu;
  struct Case {
    Index rows, in, out, gap;
  };
  for (const auto& c : {Case{1, 8, 8, 0}, {3, 43, 20, 0}, {129, 96, 200, 8}, {77, 256, 64, 3}}) {
    const auto what = cuda::concat(c.rows, "x", c.in, " to ", c.out);
    auto x = DeviceValues<T>::normal(c.rows, c.in, 1, 1.0, 0.0, c.gap);
    auto w = DeviceValues<T>::normal(c.out, c.in, 2), b = DeviceValues<T>::normal(1, c.out, 3);
    auto z = DeviceValues<T>::normal(c.rows, c.out, 4),
         dy = DeviceValues<T>::normal(c.rows, c.out, 5);
    auto zx = DeviceValues<T>::normal(c.rows, c.in, 6);
    DeviceValues<T> y(c.rows, c.out, c.gap), dx(c.rows, c.in, c.gap);
    DeviceValues<float> yf(c.rows, c.out);
    auto dw = DeviceValues<float>::normal(c.out, c.in, 7),
         db = DeviceValues<float>::normal(1, c.out, 8);
    Expected ey(c.rows, c.out), edx(c.rows, c.in), edw(c.out, c.in), edb(1, c.out),
        plain(c.rows, c.out);
    std::copy_n(dw.host().data, c.out * c.in, edw.w.data);
    std::copy_n(db.host().data, c.out, edb.w.data);
    std::copy_n(zx.host().data, c.rows * c.in, edx.w.data);
    retnet::linear(cpu, w.host_in(), b.host_in(), x.host_in(), ey.w);
    plain.data = ey.data;
    plain.w.data = plain.data.data();
    for (std::size_t i = 0; i < ey.data.size(); ++i) ey.data[i] += 1.3 * z.host().data[i];
    retnet::linear_backward(cpu, w.host_in(), x.host_in(), dy.host_in(), edw.w, edb.w, edx.w, 0.4);
    linear<T, T>(ctx, w.in(), b.data(), x.in(), y.device(), z.in(), 1.3f);
    linear<T, float>(ctx, w.in(), b.data(), x.in(), yf.device());
    linear_backward_input<T>(ctx, w.in(), dy.in(), dx.device(), zx.in(), 0.4f);
    linear_backward_weight<T>(ctx, x.in(), dy.in(), dw.device());
    bias_backward<T>(ctx, dy.in(), db.data());
    ctx.synchronize();
    expect_near(y, ey.in(), bar<T>(), what);
    expect_near(yf, plain.in(), 3e-6, what);
    expect_near(dx, edx.in(), bar<T>(), what);
    expect_near(dw, edw.in(), 3e-6, what);
    expect_near(db, edb.in(), 3e-6, what);
  }
}

template <class T>
void test_rotation(RotationLayout layout, DeviceRotationLayout device_layout, Index width,
                   Index rotary, double xpos, std::int64_t start) {
  CudaContext ctx;
  Reference cpu;
  constexpr Index kSequences = 2, kTokens = 37, kHeads = 4, kKeyHeads = 2;
  const Index rows = kSequences * kTokens;
  RotationTable table(layout, theta_rotary(rotary, 10000.0));
  if (xpos > 0.0) table.set_xpos(log_xpos(rotary, xpos));
  const auto log_gamma = log_gamma_pow2(kHeads);
  auto q = DeviceValues<T>::normal(rows, kHeads * width, 1, 1.0, 0.0, 8);
  auto k = DeviceValues<T>::normal(rows, kKeyHeads * width, 2);
  const std::vector<std::int64_t> positions(kSequences, start);
  Expected eq(rows, kHeads * width), ek(rows, kKeyHeads * width);
  const auto sequences = Sequences::dense(kSequences, kTokens);
  const RowScale q_scale{0.3, log_gamma, xpos > 0 ? 1.0 : 0.0},
      k_scale{1.7, {}, xpos > 0 ? -1.0 : 0.0};
  rotate(cpu, table, q_scale, kHeads, sequences, positions.data(), q.host_in(), eq.w);
  rotate(cpu, table, k_scale, kKeyHeads, sequences, positions.data(), k.host_in(), ek.w);
  const auto to_device = [](const std::vector<double>& x) {
    DeviceBuffer<double> out(static_cast<std::int64_t>(x.size()));
    out.upload(x, nullptr);
    return out;
  };
  const auto pairs = layout == RotationLayout::none ? 0 : rotary / 2;
  auto theta = to_device(theta_rotary(rotary, 10000.0));
  auto log_scale = to_device(log_xpos(rotary, xpos > 0 ? xpos : 512.0));
  auto gammas = to_device(log_gamma);
  DeviceBuffer<std::int64_t> device_positions(kSequences);
  device_positions.upload(positions, nullptr);
  const auto what =
      cuda::concat("layout ", int(layout), " width ", width, " of ", rotary, " xpos ", xpos);
  const DeviceTheta turning{.layout = device_layout,
                            .pairs = int(pairs),
                            .heads = int(kHeads),
                            .theta = theta.data(),
                            .log_xpos = xpos > 0 ? log_scale.data() : nullptr,
                            .log_gamma = gammas.data()};
  const auto dense = DeviceSequences::dense(kSequences, kTokens);
  for (const bool shared : {true, false}) {
    const auto scope = ctx.workspace().scope();
    const auto angles = make_angles(ctx, turning, dense, device_positions.data(), shared);
    const DeviceTurn<T> turn_q{q.device(), int(kHeads), angles.query, angles.row_scale, 0.3f};
    const DeviceTurn<T> turn_k{k.device(), int(kKeyHeads), angles.key, nullptr, 1.7f};
    rotate<T>(ctx, angles, turn_q, turn_k);
    ctx.synchronize();
    expect_near(q, eq.in(), bar<T>(), what);
    expect_near(k, ek.in(), bar<T>(), what);
    rotate<T>(ctx, angles, turn_q, turn_k, true);  // the backward, from what forward gave
    ctx.synchronize();
    rotate(cpu, table, q_scale, kHeads, sequences, positions.data(), eq.in(), eq.w, true);
    rotate(cpu, table, k_scale, kKeyHeads, sequences, positions.data(), ek.in(), ek.w, true);
    expect_near(q, eq.in(), 2 * bar<T>(), what);
    expect_near(k, ek.in(), 2 * bar<T>(), what);
    if (!shared) break;
    q = DeviceValues<T>::normal(rows, kHeads * width, 1, 1.0, 0.0, 8);
    k = DeviceValues<T>::normal(rows, kKeyHeads * width, 2);
    rotate(cpu, table, q_scale, kHeads, sequences, positions.data(), q.host_in(), eq.w);
    rotate(cpu, table, k_scale, kKeyHeads, sequences, positions.data(), k.host_in(), ek.w);
  }
}

TYPED_TEST(RowOps, RotationAndItsInverse) {
  using T = TypeParam;
  constexpr auto kLeft = DeviceRotationLayout::interleaved,
                 kHalves = DeviceRotationLayout::half_split;
  for (const std::int64_t start : {0, 12345}) {
    test_rotation<T>(RotationLayout::interleaved, kLeft, 256, 256, 0.0, start);
    test_rotation<T>(RotationLayout::half_split, kHalves, 256, 256, 0.0, start);
    test_rotation<T>(RotationLayout::interleaved, kLeft, 64, 32, 512.0, start / 100);
    test_rotation<T>(RotationLayout::half_split, kHalves, 20, 20, 0.0, start);
    test_rotation<T>(RotationLayout::interleaved, kLeft, 43, 10, 0.0, start);
    test_rotation<T>(RotationLayout::none, DeviceRotationLayout::none, 48, 48, 0.0, start);
  }
}

TYPED_TEST(RowOps, CrossEntropyAndItsGradient) {
  using T = TypeParam;
  CudaContext ctx;
  Reference cpu;
  for (const Index vocab : {3, 257, 1000, 32000}) {
    const Index rows = 19;
    auto z = DeviceValues<T>::normal(rows, vocab, 1, 3.0);
    std::vector<std::int32_t> targets(rows);
    for (Index r = 0; r < rows; ++r)
      targets[r] = r % 5 == 3 ? kIgnore : std::int32_t(r * 7919 % vocab);
    DeviceBuffer<std::int32_t> device_targets(rows);
    device_targets.upload(targets, nullptr);
    DeviceBuffer<DeviceLoss> loss(1);
    loss.zero(nullptr);
    Expected expected(rows, vocab);
    std::copy_n(z.host().data, rows * vocab, expected.w.data);
    const auto e = retnet::cross_entropy(cpu, targets.data(), expected.w, 0.25);
    cudaDeviceSynchronize();
    cross_entropy<T>(ctx, device_targets.data(), z.device(), 0.25f, loss.data());
    ctx.synchronize();
    const auto given = loss.to_host()[0];
    EXPECT_NEAR(given.sum, e.sum, 1e-5 * e.sum) << vocab;
    EXPECT_EQ(given.rows, e.rows);
    expect_near(z, expected.in(), bar<T>(), cuda::concat("vocab ", vocab));
  }
}

TYPED_TEST(RowOps, EmbeddingAndItsGradient) {
  using T = TypeParam;
  CudaContext ctx;
  Reference cpu;
  for (const Index width : {8, 43, 1024}) {
    const Index rows = 211, vocab = 50;
    std::vector<std::int32_t> tokens(rows);
    for (Index r = 0; r < rows; ++r)
      tokens[r] = std::int32_t(r % 3 == 0 ? 7 : r * 31 % (vocab - 3));
    TokenOrder order;
    order.build(tokens, vocab);
    const auto up = [](const std::vector<std::int32_t>& x) {
      DeviceBuffer<std::int32_t> out(std::int64_t(x.size()));
      out.upload(x, nullptr);
      return out;
    };
    auto d_tokens = up(tokens), names = up(order.tokens), starts = up(order.starts),
         at = up(order.rows);
    auto table = DeviceValues<T>::normal(vocab, width, 1);
    auto dy = DeviceValues<T>::normal(rows, width, 2);
    auto dtable = DeviceValues<float>::normal(vocab, width, 3);
    DeviceValues<T> y(rows, width);
    Expected ey(rows, width), ed(vocab, width);
    std::copy_n(dtable.host().data, vocab * width, ed.w.data);
    retnet::embedding(cpu, 2.5, tokens.data(), table.host_in(), ey.w);
    retnet::embedding_backward(cpu, 2.5, tokens.data(), dy.host_in(), ed.w);
    cudaDeviceSynchronize();
    embedding<T>(ctx, 2.5f, d_tokens.data(), table.in(), y.device());
    embedding_backward<T>(
        ctx, 2.5f, {std::int32_t(order.tokens.size()), names.data(), starts.data(), at.data()},
        dy.in(), dtable.device());
    ctx.synchronize();
    expect_near(y, ey.in(), bar<T>(), cuda::concat("width ", width));
    expect_near(dtable, ed.in(), 2e-6, cuda::concat("width ", width));
  }
}

TYPED_TEST(RowOps, AdamW) {
  using T = TypeParam;
  CudaContext ctx;
  Cpu cpu;
  ParamLayout layout;
  layout.add("a", 33, 43, {Init::Kind::normal, 0.3});
  layout.add("b", 1, 7, {Init::Kind::normal, 0.3}, false);
  layout.add("c", 64, 128, {Init::Kind::normal, 0.3});
  ParamBuffer<float> weights(layout), gradient(layout);
  initialize(weights, layout, Seed{1});
  AdamW<float> adamw_cpu({.weight_decay = 0.1}, layout);
  std::vector<DeviceAdamBlock> blocks;
  for (const auto& e : layout.entries())
    for (Index i = 0; i < e.place.size(); i += 1024)
      blocks.push_back(
          {e.place.offset + i, std::int32_t(std::min<Index>(1024, e.place.size() - i)), e.decays});
  DeviceBuffer<DeviceAdamBlock> d_blocks(std::int64_t(blocks.size()));
  d_blocks.upload(blocks, nullptr);
  const Index n = layout.size();
  DeviceBuffer<float> w(n), m(n), v(n), g(n);
  DeviceBuffer<T> copy(n);
  DeviceBuffer<DeviceLoss> loss(1);
  DeviceBuffer<DeviceUpdate> update(1);
  w.upload(weights.flat(), nullptr);
  m.zero(nullptr);
  v.zero(nullptr);
  loss.upload(std::vector<DeviceLoss>{{3.0, 2}}, nullptr);
  for (int t = 1; t <= 3; ++t) {
    initialize(gradient, layout, Seed{std::uint64_t(10 + t)});
    g.upload(gradient.flat(), nullptr);
    cudaDeviceSynchronize();
    decide_update(ctx, g.data(), n, loss.data(), t == 2 ? 1e9 : 0.5, update.data());
    adamw<T>(ctx, {.weight_decay = 0.1}, 0.01, t, d_blocks, update.data(), g.data(), w.data(),
             m.data(), v.data(), std::is_same_v<T, float> ? nullptr : copy.data());
    ctx.synchronize();
    for (float& x : gradient.flat()) x *= 0.5f;
    const double norm = clip_by_global_norm(cpu, gradient.flat(), t == 2 ? 1e9 : 0.5);
    EXPECT_NEAR(update.to_host()[0].norm, norm, 1e-5 * norm);
    adamw_cpu.step(cpu, 0.01, weights, gradient);
  }
  const auto given = w.to_host();
  const auto rounded = copy.to_host();
  for (const auto& e : layout.entries())
    for (Index i = e.place.offset; i < e.place.offset + e.place.size(); ++i) {
      ASSERT_NEAR(given[i], weights.flat()[i], 2e-6);
      if (!std::is_same_v<T, float>) {
        ASSERT_NEAR(test::host_float(rounded[i]), given[i], 0.004 * std::fabs(given[i]));
      }
    }
  // a gradient that is not finite changes nothing
  gradient.flat()[5] = HUGE_VALF;
  g.upload(gradient.flat(), nullptr);
  decide_update(ctx, g.data(), n, loss.data(), 1.0, update.data());
  adamw<T>(ctx, {}, 0.01, 4, d_blocks, update.data(), g.data(), w.data(), m.data(), v.data(),
           nullptr);
  ctx.synchronize();
  EXPECT_EQ(update.to_host()[0].skip, 1);
  EXPECT_EQ(w.to_host()[100], given[100]);
}

}  // namespace
}  // namespace retnet
