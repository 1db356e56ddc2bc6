// SPDX-License-Identifier: MIT
// The second call of every op allocates nothing.
#include <gtest/gtest.h>

#include "retnet/ops/activation.hpp"
#include "retnet/ops/cross_entropy.hpp"
#include "retnet/ops/dropout.hpp"
#include "retnet/ops/embedding.hpp"
#include "retnet/ops/linear.hpp"
#include "retnet/ops/norm.hpp"
#include "retnet/ops/retention_torchscale.hpp"
#include "retnet/ops/rotation.hpp"
#include "support/count_allocations.hpp"
#include "support/retention_problem.hpp"

namespace retnet {
namespace {

using test::count_allocations;
using test::DecayCase;
using test::RetentionProblem;

TEST(CountAllocations, SeesEveryKindOfMemory) {
  EXPECT_EQ(count_allocations([] { Buffer<float> b(10); }), 1);
  EXPECT_EQ(count_allocations([] { std::vector<int> v(10); }), 1);
  EXPECT_EQ(count_allocations([] {}), 0);
}

template <class S>
class AllocationTest : public testing::Test {
 public:
  /// Which thread takes which task is chance, so with several threads a thread may meet its first
  /// large task late; but each warms up once only.
  template <class F>
  void expect_steady(const char* name, F&& f) {
    Reference reference;
    Cpu one(1), two(2);
    f(reference), f(one);
    EXPECT_EQ(count_allocations([&] { f(reference); }), 0) << name << " reference";
    EXPECT_EQ(count_allocations([&] { f(one); }), 0) << name << " one thread";
    int quiet = 0;
    for (int call = 0; call < 500 && quiet < 5; ++call)
      quiet = count_allocations([&] { f(two); }) == 0 ? quiet + 1 : 0;
    EXPECT_EQ(quiet, 5) << name << " two threads";
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(AllocationTest, Scalars);

TYPED_TEST(AllocationTest, Retention) {
  using S = TypeParam;
  for (const auto decay : {DecayCase::fixed, DecayCase::gated})
    for (const bool with_state : {false, true}) {
      const RetentionProblem<S> p({2, 130, 4, 2, 20, 43}, decay);
      Buffer<S> o(p.rows() * p.heads * p.value_dim), state = p.state;
      test::RetentionGradients<S> g(p, with_state);
      const Window<S> out(o.data(), p.rows(), p.heads * p.value_dim);
      const auto in = p.input();
      const auto places = g.places(p);
      S* st = with_state ? state.data() : nullptr;
      this->expect_steady("parallel", [&](auto& ctx) { retention_parallel(ctx, in, st, out); });
      this->expect_steady("recurrent", [&](auto& ctx) { retention_recurrent(ctx, in, st, out); });
      this->expect_steady("chunkwise",
                          [&](auto& ctx) { retention_chunkwise(ctx, in, 64, st, out); });
      this->expect_steady("parallel backward", [&](auto& ctx) {
        retention_parallel_backward(ctx, in, st, p.output_gradient(), places);
      });
      this->expect_steady("chunkwise backward", [&](auto& ctx) {
        retention_chunkwise_backward(ctx, in, 64, st, p.output_gradient(), places);
      });
      if (p.gated()) continue;
      this->expect_steady("torchscale", [&](auto& ctx) {
        constexpr auto kVersion = TorchscaleVersion::v2;
        retention_torchscale_parallel(ctx, kVersion, in, out);
        retention_torchscale_chunkwise(ctx, kVersion, in, 64, out);
        retention_torchscale_parallel_backward(ctx, kVersion, in, p.output_gradient(), places);
      });
    }
}

TYPED_TEST(AllocationTest, RowOps) {
  using S = TypeParam;
  const Index rows = 130, cols = 96;
  auto a = test::random_uniform<S>(rows * cols, 1), b = a, c = a;
  const auto w = test::random_uniform<bfloat16>(cols * cols, 2);
  const auto weight = test::random_uniform<S>(cols * cols, 3);
  auto dweight = test::filled<S>(cols * cols, 0.0), dbias = test::filled<S>(cols, 0.0);
  const auto tokens = test::random_indices(rows, cols, 4);
  const Window<const S> x(a.data(), rows, cols), dy(b.data(), rows, cols);
  const Window<S> y(c.data(), rows, cols);
  const Window<const S> matrix(weight.data(), cols, cols), vector(weight.data(), 1, cols);
  const Window<S> dm(dweight.data(), cols, cols), dv(dbias.data(), 1, cols);
  this->expect_steady("linear", [&](auto& ctx) {
    linear(ctx, Window<const bfloat16>(w.data(), cols, cols),
           Window<const bfloat16>(w.data(), 1, cols), x, y);
    linear(ctx, matrix, vector, x, y, true);
    linear_backward(ctx, matrix, x, dy, dm, dv, y);
  });
  this->expect_steady("norm", [&](auto& ctx) {
    norm(ctx, NormKind::layer, 1e-5, Index{3}, Window<const bfloat16>(w.data(), 1, cols),
         Window<const bfloat16>(), x, y);
    norm_backward(ctx, NormKind::layer, 1e-5, Index{3}, vector, x, dy, dv, dv, y);
  });
  this->expect_steady("activation", [&](auto& ctx) {
    activation(ctx, Activation::gelu, x, y);
    activation_backward(ctx, Activation::gelu, x, dy, y);
    gate(ctx, Activation::swish, x, dy, y);
  });
  this->expect_steady("embedding", [&](auto& ctx) {
    embedding(ctx, 1.0, tokens.data(), matrix, y);
    embedding_backward(ctx, 1.0, tokens.data(), dy, dm);
  });
  this->expect_steady("dropout", [&](auto& ctx) { dropout(ctx, 0.5, Seed{1}, 2, y); });
  this->expect_steady("cross entropy", [&](auto& ctx) {
    std::copy(a.begin(), a.end(), c.begin());
    cross_entropy(ctx, tokens.data(), y, 0.5);
  });
  this->expect_steady("gate", [&](auto& ctx) {
    log_sigmoid_gate(ctx, 16.0, x, y);
    log_sigmoid_gate_backward(ctx, 16.0, x, dy, y);
  });
  const RotationTable table(RotationLayout::interleaved, theta_inclusive(24, 1e4));
  const auto sequences = Sequences::dense(2, 65);
  const std::int64_t positions[] = {0, 1000};
  this->expect_steady("rotation", [&](auto& ctx) {
    rotate(ctx, table, RowScale{}, Index{4}, sequences, positions, x, y);
  });
}

}  // namespace
}  // namespace retnet
