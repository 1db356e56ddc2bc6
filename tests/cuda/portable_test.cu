// SPDX-License-Identifier: MIT
// Retention compiled for compute capability 8.0: what every newer device can run.
#include "cuda/support/device_retention.cuh"
#include "cuda/support/device_test.cuh"

namespace retnet::test {
namespace {

class PortableRetention : public DeviceTest {};

TEST_F(PortableRetention, EqualsTheDefinition) {
  using T = __nv_bfloat16;
  constexpr double kTolerance = 3.5e-3;
  for (const auto& c :
       {RetentionCase{1, 130, 4, 2, 64, 43}, RetentionCase{2, 65, 2, 2, 128, 128, Gate::mild}}) {
    const auto numbers = rounded<T>(random_numbers(c));
    DeviceProblem<T> problem(c, numbers, 8);
    for (const auto form : {DeviceForm::chunkwise, DeviceForm::parallel, DeviceForm::recurrent}) {
      const auto given = problem.forward(ctx(), form), expected = expected_forward(c, numbers);
      EXPECT_LT(relative_rms(given.o, expected.o), kTolerance) << paths.back();
      EXPECT_LT(relative_rms(given.state, expected.state), kTolerance) << paths.back();
    }
    const auto given = problem.backward(ctx()), expected = expected_backward(c, numbers);
    EXPECT_LT(relative_rms(given.dq, expected.dq), kTolerance);
    EXPECT_LT(relative_rms(given.dk, expected.dk), kTolerance);
    EXPECT_LT(relative_rms(given.dv, expected.dv), kTolerance);
    EXPECT_LT(relative_rms(given.dstate, expected.dstate), kTolerance);
  }
}

}  // namespace
}  // namespace retnet::test
