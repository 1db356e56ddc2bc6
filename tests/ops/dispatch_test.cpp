// SPDX-License-Identifier: MIT
// Which path ran, for every scalar and context: a kernel that silently falls back to the loops is
// still right, and fifty times too slow.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "retnet/ops/linear.hpp"
#include "retnet/ops/retention_torchscale.hpp"
#include "support/custom_scalar.hpp"
#include "support/retention_problem.hpp"

namespace retnet {
namespace {

using test::DecayCase;
using test::RetentionForm;
using test::RetentionProblem;

template <class Context, class F>
std::vector<std::string> paths_of(Context& ctx, F&& f) {
  std::vector<const char*> trace;
  ctx.trace = &trace;
  f();
  ctx.trace = nullptr;
  return {trace.begin(), trace.end()};
}

struct Paths {
  std::string parallel, recurrent, chunkwise, parallel_backward, chunkwise_backward;
};

template <class S, class Context>
void expect_paths(Context& ctx, const char* name, const Paths& expected) {
  const RetentionProblem<S> p({1, 5, 2, 1, 4, 3}, DecayCase::gated);
  const auto expect_only = [&](const char* op, const std::string& path, auto&& f) {
    const auto paths = paths_of(ctx, f);
    EXPECT_FALSE(paths.empty()) << name << " " << op;
    for (const auto& given : paths) EXPECT_EQ(given, path) << name << " " << op;
    std::printf("%-22s %-20s -> %s\n", name, op, paths.empty() ? "?" : paths.front().c_str());
  };
  expect_only("parallel", expected.parallel,
              [&] { test::run(ctx, RetentionForm::parallel, p, true); });
  expect_only("recurrent", expected.recurrent,
              [&] { test::run(ctx, RetentionForm::recurrent, p, true); });
  const auto chunkwise =
      paths_of(ctx, [&] { test::run(ctx, RetentionForm::chunkwise, p, true, 5); });
  ASSERT_FALSE(chunkwise.empty());
  EXPECT_EQ(chunkwise.front(), expected.chunkwise) << name;
  std::printf("%-22s %-20s -> %s\n", name, "chunkwise", chunkwise.front().c_str());
  expect_only("parallel backward", expected.parallel_backward,
              [&] { test::run_backward(ctx, p, true, 0, false); });
  expect_only("chunkwise backward", expected.chunkwise_backward,
              [&] { test::run_backward(ctx, p, true, 2, false); });
}

const Paths kLoops{"retention_parallel: reference", "retention_recurrent: reference",
                   "retention_chunkwise: reference", "retention_parallel_backward: reference",
                   "retention_parallel_backward: reference"};
const Paths kKernels{"retention_chunkwise: fused blocks", "retention_recurrent: fused",
                     "retention_chunkwise: fused blocks",
                     "retention_chunkwise_backward: fused blocks",
                     "retention_chunkwise_backward: fused blocks"};

TEST(Dispatch, FloatAndDoubleRunTheKernelsOnTheCpu) {
  Cpu ctx;
  expect_paths<float>(ctx, "Cpu float", kKernels);
  expect_paths<double>(ctx, "Cpu double", kKernels);
}

TEST(Dispatch, GradientsOfTheDecayAreSummedByTiles) {
  Cpu ctx;
  const RetentionProblem<float> p({1, 5, 2, 1, 4, 3}, DecayCase::gated);
  for (const auto& path : paths_of(ctx, [&] { test::run_backward(ctx, p, true, 2); }))
    EXPECT_EQ(path, "retention_chunkwise_backward: packed tiles");
}

TEST(Dispatch, OtherScalarsRunTheLoopsOnTheCpu) {
  Cpu ctx;
  expect_paths<long double>(ctx, "Cpu long double", kLoops);
  expect_paths<test::Custom>(ctx, "Cpu custom", kLoops);
}

TEST(Dispatch, TheReferenceRunsTheLoops) {
  Reference ctx;
  expect_paths<float>(ctx, "Reference float", kLoops);
  expect_paths<double>(ctx, "Reference double", kLoops);
  expect_paths<test::Custom>(ctx, "Reference custom", kLoops);
}

TEST(Dispatch, AContextMadeFromTheCpuKeepsItsKernels) {
  struct Mine : Cpu {};
  Mine ctx;
  expect_paths<float>(ctx, "derived from Cpu float", kKernels);
}

template <class S>
std::vector<std::string> linear_paths(bool single_token) {
  Cpu ctx;
  const auto x = test::random_uniform<S>(8, 1), w = test::random_uniform<S>(24, 2);
  Buffer<S> y(3);
  return paths_of(ctx, [&] {
    linear(ctx, Window<const S>(w.data(), 3, 8), Window<const S>(), Window<const S>(x.data(), 1, 8),
           Window<S>(y.data(), 1, 3), single_token);
  });
}

TEST(Dispatch, OneTokenOfAProjectionHasItsOwnKernel) {
  const std::vector<std::string> kernel{"linear: single token"}, none,
      panels{"linear: panels of tokens"};
  EXPECT_EQ(linear_paths<float>(true), kernel);
  EXPECT_EQ(linear_paths<double>(true), kernel);
  EXPECT_EQ(linear_paths<float>(false), panels);
  EXPECT_EQ(linear_paths<test::Custom>(true), none);
}

TEST(Dispatch, TorchscaleScalingRunsLoopsEverywhere) {
  Cpu ctx;
  const RetentionProblem<float> p({1, 5, 2, 1, 4, 3}, DecayCase::fixed);
  Buffer<float> o(5 * 2 * 3);
  const Window<float> out(o.data(), 5, 6);
  EXPECT_EQ(
      paths_of(ctx,
               [&] { retention_torchscale_parallel(ctx, TorchscaleVersion::v2, p.input(), out); }),
      std::vector<std::string>{"retention_torchscale: parallel"});
  EXPECT_EQ(
      paths_of(
          ctx,
          [&] { retention_torchscale_chunkwise(ctx, TorchscaleVersion::v2, p.input(), 2, out); }),
      std::vector<std::string>{"retention_torchscale: chunkwise"});
}

}  // namespace
}  // namespace retnet
