// SPDX-License-Identifier: MIT
// What ops share: the device of a context, its stream and its graphs.
#include <thread>

#include "cuda/support/device_test.cuh"
#include "retnet/cuda/graph.cuh"
#include "retnet/cuda/linear.cuh"

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

// x W^T of ones, with room for the sums.
std::vector<float> product_of_ones(CudaContext& ctx, std::int64_t rows) {
  constexpr std::int64_t kIn = 24, kOut = 8;
  const std::vector<float> ones(static_cast<std::size_t>(kIn * 64), 1.f);
  ctx.make_current();
  DeviceBuffer<float> w(kOut * kIn), x(64 * kIn), y(64 * kOut);
  w.upload(std::span(ones).first(kOut * kIn), ctx.stream());
  x.upload(ones, ctx.stream());
  y.zero(ctx.stream());
  linear<float, float>(ctx, DeviceMatrix<const float>(w.data(), kOut, kIn), nullptr,
                       DeviceMatrix<const float>(x.data(), rows, kIn),
                       DeviceMatrix<float>(y.data(), rows, kOut));
  return y.to_host(ctx.stream());
}

TEST_F(ContextTest, LinearWritesItsRowsAlone) {
  for (const std::int64_t rows : {0, 1, 2, 3, 40}) {
    const auto y = product_of_ones(ctx(), rows);
    for (std::size_t i = 0; i < y.size(); ++i)
      EXPECT_EQ(y[i], static_cast<std::int64_t>(i) < 8 * rows ? 24.f : 0.f) << rows << " " << i;
  }
}

TEST_F(ContextTest, ContextsOfTwoDevicesInOneThreadAndInAnother) {
  int devices = 0;
  RETNET_CUDA(cudaGetDeviceCount(&devices));
  if (devices < 2) GTEST_SKIP() << "one device";
  CudaContext first(0), second(1);
  const auto check = [&] {
    for (auto* c : {&first, &second, &first}) EXPECT_EQ(product_of_ones(*c, 40)[100], 24.f);
    RETNET_CUDA(cudaSetDevice(0));
    EXPECT_EQ(product_of_ones(second, 1)[7], 24.f);
  };
  check();
  std::thread(check).join();
  DeviceBuffer<float> of_second;
  second.make_current();
  of_second.resize(8);
  first.make_current();
  of_second.resize(1 << 20);  // stays where it was
  cudaPointerAttributes where{};
  RETNET_CUDA(cudaPointerGetAttributes(&where, of_second.data()));
  EXPECT_EQ(where.device, 1);
}

}  // namespace
}  // namespace retnet::test
