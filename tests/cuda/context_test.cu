// SPDX-License-Identifier: MIT
// What ops share: the stream of a context and its graphs.
#include "cuda/support/device_test.cuh"
#include "retnet/cuda/graph.cuh"

namespace retnet::test {
namespace {

using ContextTest = DeviceTest;

TEST_F(ContextTest, AThrowWhileAGraphIsMadeLeavesTheStreamUsable) {
  DeviceBuffer<float> x(64);
  const auto zero = [&] { x.zero(ctx().stream()); };
  cuda::Graph graph;
  EXPECT_THROW(graph.capture(ctx(),
                             [&] {
                               zero();
                               throw std::runtime_error("no");
                             }),
               std::runtime_error);
  EXPECT_FALSE(graph);
  EXPECT_THROW(graph.capture(ctx(), [&] { ctx().synchronize(); }), CudaError);  // not allowed there
  EXPECT_FALSE(graph);
  zero();
  EXPECT_EQ(x.to_host(ctx().stream())[63], 0.f);
  graph.capture(ctx(), zero);
  x.upload(std::vector<float>(64, 1.f), ctx().stream());
  graph.launch(ctx());
  EXPECT_EQ(x.to_host(ctx().stream())[63], 0.f);
}

}  // namespace
}  // namespace retnet::test
