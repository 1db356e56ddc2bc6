// SPDX-License-Identifier: MIT
// The Hopper backward pass at every head size it has a plan for; where it does not serve, the same
// cases run through the portable kernels.
#include "cuda/support/device_retention.cuh"
#include "cuda/support/device_test.cuh"

namespace retnet::test {
namespace {

constexpr double kTolerance = 3.5e-3;

template <class T>
class Sm90Backward : public DeviceTest {
 protected:
  /// Without the decay's gradient, which the portable kernels make.
  void expect_gradients(const RetentionCase& c, std::uint64_t stream) {
    const auto numbers = rounded<T>(random_numbers(c, stream));
    DeviceProblem<T> problem(c, numbers, 8);
    const auto given = problem.backward(ctx(), false);
    const auto expected = expected_backward(c, numbers);
    const auto what = testing::PrintToString(c) + ", " + paths.back();
    EXPECT_LT(relative_rms(given.dq, expected.dq), kTolerance) << what;
    EXPECT_LT(relative_rms(given.dk, expected.dk), kTolerance) << what;
    EXPECT_LT(relative_rms(given.dv, expected.dv), kTolerance) << what;
    EXPECT_LT(relative_rms(given.dstate, expected.dstate), kTolerance) << what;
    if (this->ctx().hopper())
      EXPECT_NE(std::string(paths.back()).find("Hopper"), std::string::npos);
  }
};
using Types = testing::Types<__nv_bfloat16, __half>;
TYPED_TEST_SUITE(Sm90Backward, Types);

struct HeadSize {
  int dk, dv;
};
constexpr HeadSize kSizes[] = {{64, 64}, {64, 128}, {128, 128}, {128, 256}, {256, 256}, {256, 512}};

TYPED_TEST(Sm90Backward, LengthsBesideTheChunk) {
  for (const auto& [dk, dv] : kSizes)
    for (const int tokens : {1, 63, 64, 65, 200})
      for (const bool with_state : {false, true})
        this->expect_gradients({1, tokens, 2, 2, dk, dv, Gate::none, with_state}, 21);
}

// More chunks than any ring has places, in segments; more heads than one wave has blocks of the
// largest size.
TYPED_TEST(Sm90Backward, LongSequencesAndManyHeads) {
  for (const auto& [dk, dv] : kSizes) {
    this->expect_gradients({1, 1100, 1, 1, dk, dv}, 22);
    this->expect_gradients({1, 65, 12, 12, dk, dv}, 23);
  }
}

// The row after a sequence belongs to another, and is neither read into it nor written.
TYPED_TEST(Sm90Backward, PackedSequences) {
  for (const auto& [dk, dv] : kSizes) {
    RetentionCase c{.heads = 2, .kv_heads = 2, .key_dim = dk, .value_dim = dv};
    c.cu_seqlens = {0, 1, 66, 130, 133, 390};
    this->expect_gradients(c, 24);
  }
}

TYPED_TEST(Sm90Backward, AnyGamma) {
  for (const int at : {2, 5}) {
    const auto& [dk, dv] = kSizes[at];
    RetentionCase c{1, 200, 6, 6, dk, dv};
    c.gammas = {1.0, 0.5, 1e-3, 1.0 - 1.0 / 4096, 1e-30, 0.99};
    this->expect_gradients(c, 25);
  }
}

// No sums in an order of their own: the launch is the same, so are the bits.
TYPED_TEST(Sm90Backward, SameBitsEveryTime) {
  for (const auto& [dk, dv] : kSizes) {
    const RetentionCase c{2, 333, 2, 2, dk, dv};
    DeviceProblem<TypeParam> problem(c, rounded<TypeParam>(random_numbers(c, 26)), 8);
    const auto one = problem.backward(this->ctx(), false),
               two = problem.backward(this->ctx(), false);
    EXPECT_TRUE(one.dq == two.dq && one.dk == two.dk && one.dv == two.dv &&
                one.dstate == two.dstate);
  }
}

TYPED_TEST(Sm90Backward, LeavesToOthersWhatItCannotDo) {
  const auto serves = [&](RetentionCase c, int gap, bool with_decay) {
    DeviceProblem<TypeParam> problem(c, rounded<TypeParam>(random_numbers(c)), gap);
    const auto& in = problem.input();
    const DeviceRows<TypeParam> keys{const_cast<TypeParam*>(in.q.data), in.q.stride};
    const DeviceRows<TypeParam> values{const_cast<TypeParam*>(in.v.data), in.v.stride};
    DeviceRetentionGradient<TypeParam> grad{keys, keys, values, nullptr, {}};
    if (with_decay) grad.dlog_decay = {reinterpret_cast<float*>(values.data), 1};
    return cuda::sm90_backward_serves<TypeParam>(this->ctx(), in, in.v, grad);
  };
  const RetentionCase c{1, 8, 2, 2, 64, 64};
  EXPECT_EQ(serves(c, 8, false), this->ctx().hopper());
  EXPECT_FALSE(serves(c, 8, true));
  EXPECT_FALSE(serves(c, 3, false));
  EXPECT_FALSE(serves({1, 8, 2, 1, 64, 64}, 8, false));
  EXPECT_FALSE(serves({1, 8, 2, 2, 64, 64, Gate::mild}, 8, false));
  EXPECT_FALSE(serves({1, 8, 2, 2, 96, 64}, 8, false));
  this->ctx().portable_only = true;
  EXPECT_FALSE(serves(c, 8, false));
}

}  // namespace
}  // namespace retnet::test
