// SPDX-License-Identifier: MIT
// The kernels for Hopper against the definition: every size they serve, ragged ends, packed rows,
// segments of one sequence; and that they are the ones that ran.
#include <algorithm>
#include <cstring>

#include "cuda/support/device_retention.cuh"
#include "cuda/support/device_test.cuh"

namespace retnet::test {
namespace {

constexpr double kTolerance = 3.5e-3;  // relative RMS: operands and results of 16 bits

/// Decays as the paper spaces them; `turn` sets the first head's.
RetentionCase with_gammas(RetentionCase c) {
  if (!c.gammas.empty()) return c;
  for (int h = 0; h < c.heads; ++h)
    c.gammas.push_back(1.0 - std::ldexp(1.0, -5 - (c.turn + h) % 9));
  return c;
}

template <class T>
class RetentionOnHopper : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (!IsSkipped() && !(ctx().hopper() && cuda::compiled_for_sm90a()))
      GTEST_SKIP() << "not a Hopper device, or not compiled for one";
  }
  bool ran(const char* path) const {
    return std::any_of(paths.begin(), paths.end(),
                       [&](const char* p) { return std::strcmp(p, path) == 0; });
  }
  void expect_definition(const RetentionCase& given_case, int gap = 8, bool in_place = false) {
    const RetentionCase c = with_gammas(given_case);
    const auto numbers = rounded<T>(random_numbers(c, 20));
    const auto expected = expected_forward(c, numbers);
    DeviceProblem<T> problem(c, numbers, gap);
    paths.clear();
    const auto given = problem.forward(ctx(), DeviceForm::chunkwise, in_place);
    EXPECT_TRUE(ran("retention_sm90_forward")) << c;
    EXPECT_LT(relative_rms(given.o, expected.o), kTolerance) << c;
    EXPECT_LT(relative_rms(given.state, expected.state), kTolerance) << c;
  }
};
using Types = testing::Types<__nv_bfloat16, __half>;
TYPED_TEST_SUITE(RetentionOnHopper, Types);

TYPED_TEST(RetentionOnHopper, EverySizeAndLength) {
  int turn = 0;
  for (const auto& [key_dim, value_dim] : {std::pair{64, 64},
                                           {64, 128},
                                           {64, 192},
                                           {128, 128},
                                           {128, 256},
                                           {256, 256},
                                           {256, 512}})
    for (const int tokens : {1, 63, 64, 65, 200}) {
      RetentionCase c{2, tokens, 4, turn % 3 == 0 ? 2 : 4, key_dim, value_dim};
      c.with_state = turn % 2 == 0;
      c.turn = turn++;
      this->expect_definition(c, 8 * (turn % 3));
    }
}

TYPED_TEST(RetentionOnHopper, PackedSequencesDoNotTouchEachOther) {
  for (const int size : {64, 128, 256}) {
    RetentionCase c{.heads = 4, .kv_heads = 2, .key_dim = size, .value_dim = 2 * size};
    c.cu_seqlens = {0, 1, 66, 130, 133, 390};
    this->expect_definition(c);
  }
}

// What another sequence holds may be anything, also beside a ragged end.
TYPED_TEST(RetentionOnHopper, NeighboursMayBeInfinite) {
  RetentionCase c{.heads = 2, .kv_heads = 2, .key_dim = 128, .value_dim = 128};
  c.cu_seqlens = {0, 70, 140};
  c = with_gammas(c);
  auto numbers = rounded<TypeParam>(random_numbers(c, 21));
  const auto expected = expected_forward(c, numbers);
  for (auto* x : {&numbers.q, &numbers.k, &numbers.v})
    std::fill(x->begin() + 70 * 256, x->end(), HUGE_VAL);
  DeviceProblem<TypeParam> problem(c, numbers, 0);
  auto given = problem.forward(this->ctx(), DeviceForm::chunkwise);
  const auto first = [](std::vector<double> x, std::size_t n) { return x.resize(n), x; };
  EXPECT_LT(relative_rms(first(given.o, 70 * 256), first(expected.o, 70 * 256)), kTolerance);
  EXPECT_LT(relative_rms(first(given.state, 2 * 128 * 128), first(expected.state, 2 * 128 * 128)),
            kTolerance);
}

TYPED_TEST(RetentionOnHopper, LongSequencesInSegments) {
  for (const bool in_place : {false, true})
    for (const auto& c : {RetentionCase{1, 2100, 4, 4, 128, 128},
                          {2, 1500, 3, 3, 64, 64},
                          {1, 1337, 2, 1, 256, 512},
                          {1, 4096, 1, 1, 128, 256}}) {
      this->expect_definition(c, 8, in_place);
      EXPECT_TRUE(this->ran("retention_sm90_forward: states of segments")) << c;
    }
  RetentionCase c{.heads = 2, .kv_heads = 2, .key_dim = 128, .value_dim = 128};
  c.cu_seqlens = {0, 1800, 1900, 1901, 3500};
  this->expect_definition(c);
  EXPECT_TRUE(this->ran("retention_sm90_forward: states of segments"));
}

TYPED_TEST(RetentionOnHopper, DecayByTokenAndHeadsThatForgetAtOnce) {
  for (const auto& [key_dim, value_dim] : {std::pair{64, 64}, {64, 128}, {128, 256}, {256, 512}})
    for (const Gate gate : {Gate::mild, Gate::strong})
      this->expect_definition({2, 150, 4, 2, key_dim, value_dim, gate});
  RetentionCase packed{
      .heads = 4, .kv_heads = 2, .key_dim = 128, .value_dim = 128, .gate = Gate::mild};
  packed.cu_seqlens = {0, 1, 66, 130, 133, 390};
  this->expect_definition(packed);
  RetentionCase forgetful{1, 200, 6, 6, 64, 64};
  forgetful.gammas = {1.0, 0.5, 1e-3, 1.0 - 1.0 / 4096, 1e-30, 0.99};
  this->expect_definition(forgetful);
  RetentionCase in_segments{1, 1200, 2, 2, 128, 128};
  in_segments.gammas = {0.3, 0.9};
  this->expect_definition(in_segments);
}

TYPED_TEST(RetentionOnHopper, WhatItCannotSayGoesToTheOtherPath) {
  const auto served = [&](const RetentionCase& given_case, int gap) {
    const RetentionCase c = with_gammas(given_case);
    DeviceProblem<TypeParam> problem(c, rounded<TypeParam>(random_numbers(c, 22)), gap);
    this->paths.clear();
    problem.forward(this->ctx(), DeviceForm::chunkwise);
    return this->ran("retention_sm90_forward");
  };
  EXPECT_TRUE(served({1, 70, 2, 2, 64, 64}, 0));
  EXPECT_FALSE(served({1, 70, 2, 2, 64, 64}, 3)) << "rows that are not 16 bytes apart";
  EXPECT_FALSE(served({1, 70, 2, 2, 64, 43}, 0)) << "values that are no multiple of 64";
  EXPECT_FALSE(served({1, 70, 2, 2, 80, 64}, 0)) << "a key size without a kernel";
}

}  // namespace
}  // namespace retnet::test
