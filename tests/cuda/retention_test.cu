// SPDX-License-Identifier: MIT
// Retention on a device against the definition in double: every form, every gradient, on the table
// of odd shapes and on those that have kernels of their own.
#include "retnet/cuda/retention.cuh"

#include "cuda/support/device_retention.cuh"
#include "cuda/support/device_test.cuh"
#include "support/message_of.hpp"

namespace retnet::test {
namespace {

constexpr DeviceForm kForms[] = {DeviceForm::chunkwise, DeviceForm::parallel,
                                 DeviceForm::recurrent};

/// Relative RMS error. What 16-bit types round: operands of products, results.
template <class T>
constexpr double kTolerance = sizeof(T) == 2 ? 3.5e-3 : 1e-5;
/// The gradient of the decay sums differences of numbers that may be far larger: where a gate forgets
/// nearly all within a token, what is left of 16-bit operands is little.
template <class T>
double decay_tolerance(Gate gate) {
  if (sizeof(T) == 4) return 1e-4;
  return gate == Gate::strong ? 0.15 : 2e-2;
}

/// Sizes with kernels of their own, lengths beside their chunks.
std::vector<RetentionCase> wide_cases() {
  return {{2, 300, 4, 4, 64, 64},   {1, 257, 4, 2, 128, 128},
          {1, 200, 2, 2, 128, 256}, {1, 320, 2, 2, 256, 256},
          {1, 130, 2, 1, 256, 512}, {1, 2100, 4, 4, 128, 128},
          {1, 64, 2, 2, 64, 128},   {2, 1, 2, 2, 128, 128},
          {1, 33, 1, 1, 256, 512},  {3, 129, 3, 3, 64, 64, Gate::mild}};
}

template <class T>
class RetentionOnDevice : public DeviceTest {
 protected:
  void expect_forward(const RetentionExpected& given, const RetentionExpected& expected,
                      const std::string& what) {
    const double o = relative_rms(given.o, expected.o);
    const double state = relative_rms(given.state, expected.state);
    worst_["o"] = std::max(worst_["o"], o), worst_["state"] = std::max(worst_["state"], state);
    EXPECT_LT(o, kTolerance<T>) << what << ", " << paths.back();
    EXPECT_LT(state, kTolerance<T>) << what << ", " << paths.back();
  }
  void expect_gradients(const RetentionExpected& given, const RetentionExpected& expected,
                        const RetentionCase& c, bool with_decay = true) {
    const std::string what = testing::PrintToString(c);
    const auto expect = [&](const char* name, const std::vector<double>& g,
                            const std::vector<double>& e, double tolerance) {
      const double error = relative_rms(g, e);
      worst_[name] = std::max(worst_[name], error);
      EXPECT_LT(error, tolerance) << name << ", " << what << ", " << paths.back();
    };
    expect("dq", given.dq, expected.dq, kTolerance<T>);
    expect("dk", given.dk, expected.dk, kTolerance<T>);
    expect("dv", given.dv, expected.dv, kTolerance<T>);
    expect("dstate", given.dstate, expected.dstate, kTolerance<T>);
    if (with_decay)
      expect("dlog_decay", given.dlog_decay, expected.dlog_decay, decay_tolerance<T>(c.gate));
  }
  void TearDown() override {
    for (const auto& [name, error] : worst_) RecordProperty("worst_" + name, std::to_string(error));
    for (const auto& [name, error] : worst_) std::printf("    %-10s %.2e\n", name.c_str(), error);
  }
  std::map<std::string, double> worst_;
};
using Types = testing::Types<float, __nv_bfloat16, __half>;
TYPED_TEST_SUITE(RetentionOnDevice, Types);

TYPED_TEST(RetentionOnDevice, EveryFormEqualsTheDefinitionOverTheTable) {
  int turn = 0;
  for (const auto& c : table_of_cases()) {
    const auto numbers = rounded<TypeParam>(random_numbers(c));
    const auto expected = expected_forward(c, numbers);
    DeviceProblem<TypeParam> problem(c, numbers, turn % 4 == 0 ? 3 : 8);
    for (const auto form : kForms)
      this->expect_forward(problem.forward(this->ctx(), form, turn % 2 == 0), expected,
                           testing::PrintToString(c));
    ++turn;
  }
}

TYPED_TEST(RetentionOnDevice, WideSizesOnBothPaths) {
  for (const bool portable : {true, false}) {
    this->ctx().portable_only = portable;
    for (const auto& c : wide_cases()) {
      const auto numbers = rounded<TypeParam>(random_numbers(c, 1));
      DeviceProblem<TypeParam> problem(c, numbers, 8);
      const auto expected = expected_forward(c, numbers);
      for (const auto form : kForms)
        this->expect_forward(problem.forward(this->ctx(), form), expected,
                             testing::PrintToString(c));
    }
  }
}

TYPED_TEST(RetentionOnDevice, GradientsEqualTheDefinitionOverTheTable) {
  int turn = 0;
  for (const auto& c : table_of_cases()) {
    const auto numbers = rounded<TypeParam>(random_numbers(c, 2));
    DeviceProblem<TypeParam> problem(c, numbers, turn % 4 == 0 ? 3 : 8);
    const auto expected = expected_backward(c, numbers);
    this->expect_gradients(problem.backward(this->ctx()), expected, c);
    ++turn;
  }
}

TYPED_TEST(RetentionOnDevice, GradientsOfWideSizesOnBothPaths) {
  for (const auto& c : wide_cases()) {
    const auto numbers = rounded<TypeParam>(random_numbers(c, 3));
    DeviceProblem<TypeParam> problem(c, numbers, 8);
    const auto expected = expected_backward(c, numbers);
    for (const bool portable : {true, false}) {
      this->ctx().portable_only = portable;
      this->expect_gradients(problem.backward(this->ctx()), expected, c);
      this->expect_gradients(problem.backward(this->ctx(), false), expected, c, false);
    }
  }
}

TYPED_TEST(RetentionOnDevice, PackedSequencesAreSequencesOfTheirOwn) {
  RetentionCase c{.heads = 4, .kv_heads = 2, .key_dim = 64, .value_dim = 128};
  c.cu_seqlens = {0, 1, 66, 130, 133, 390};
  for (const Gate gate : {Gate::none, Gate::mild}) {
    c.gate = gate;
    const auto numbers = rounded<TypeParam>(random_numbers(c, 4));
    DeviceProblem<TypeParam> problem(c, numbers, 8);
    for (const bool portable : {true, false}) {
      this->ctx().portable_only = portable;
      for (const auto form : kForms)
        this->expect_forward(problem.forward(this->ctx(), form), expected_forward(c, numbers),
                             "packed");
      this->expect_gradients(problem.backward(this->ctx()), expected_backward(c, numbers), c);
    }
  }
}

// The last but one underflows in the first token of a chunk; all heads forget at another rate.
TYPED_TEST(RetentionOnDevice, AnyGamma) {
  RetentionCase c{1, 200, 6, 6, 64, 64};
  c.gammas = {1.0, 0.5, 1e-3, 1.0 - 1.0 / 4096, 1e-30, 0.99};
  const auto numbers = rounded<TypeParam>(random_numbers(c, 5));
  DeviceProblem<TypeParam> problem(c, numbers, 8);
  for (const bool portable : {true, false}) {
    this->ctx().portable_only = portable;
    for (const auto form : kForms)
      this->expect_forward(problem.forward(this->ctx(), form), expected_forward(c, numbers),
                           "gammas");
    this->expect_gradients(problem.backward(this->ctx()), expected_backward(c, numbers), c);
  }
}

TYPED_TEST(RetentionOnDevice, SameBitsEveryTime) {
  const RetentionCase c{2, 200, 4, 2, 64, 128};
  const auto numbers = rounded<TypeParam>(random_numbers(c, 6));
  DeviceProblem<TypeParam> problem(c, numbers, 0);
  for (const bool portable : {true, false}) {
    this->ctx().portable_only = portable;
    for (const auto form : kForms) {
      const auto one = problem.forward(this->ctx(), form), two = problem.forward(this->ctx(), form);
      EXPECT_TRUE(one.o == two.o && one.state == two.state) << this->paths.back();
    }
    const auto one = problem.backward(this->ctx()), two = problem.backward(this->ctx());
    EXPECT_TRUE(one.dq == two.dq && one.dk == two.dk && one.dv == two.dv &&
                one.dstate == two.dstate && one.dlog_decay == two.dlog_decay)
        << this->paths.back();
  }
}

TYPED_TEST(RetentionOnDevice, AWarmCallAllocatesNothing) {
  const RetentionCase c{2, 200, 4, 2, 160, 432, Gate::mild};
  const auto numbers = random_numbers(c, 7);
  DeviceProblem<TypeParam> problem(c, numbers, 0);
  const auto all = [&] {
    for (const auto form : kForms) problem.forward(this->ctx(), form);
    problem.backward(this->ctx());
  };
  all();
  const std::int64_t held = this->ctx().workspace().bytes();
  all();
  EXPECT_EQ(this->ctx().workspace().bytes(), held);
}

class RetentionStates : public DeviceTest {};

// 70 tokens on the CPU, 100 on the device, the rest on the CPU: the state is carried as it is.
TEST_F(RetentionStates, GoFromCpuToDeviceAndBack) {
  const RetentionCase c{1, 230, 4, 2, 64, 43};
  const auto numbers = rounded<float>(random_numbers(c, 8));
  const auto expected = expected_forward(c, numbers);
  std::vector<float> state(numbers.state.begin(), numbers.state.end()), o;
  const auto append = [&](const auto& part) { o.insert(o.end(), part.begin(), part.end()); };
  append(forward_on_cpu(c, numbers, 0, 70, state));

  DeviceProblem<float> problem(c, numbers, 0);
  DeviceRetention<float> part = problem.input();
  part.q.data += 70 * part.q.stride, part.k.data += 70 * part.k.stride,
      part.v.data += 70 * part.v.stride;
  part.sequences = DeviceSequences::dense(1, 100);
  DeviceBuffer<float> device_state(static_cast<std::int64_t>(state.size()));
  device_state.upload(state, ctx().stream());
  DeviceBuffer<float> out(100 * c.heads * c.value_dim);
  retention_chunkwise<float>(ctx(), part, device_state.data(), device_state.data(),
                             {out.data(), c.heads * c.value_dim});
  device_state.download(state, ctx().stream());
  append(out.to_host(ctx().stream()));

  append(forward_on_cpu(c, numbers, 170, 230, state));
  EXPECT_LT(relative_rms({o.begin(), o.end()}, expected.o), 1e-5);
  EXPECT_LT(relative_rms({state.begin(), state.end()}, expected.state), 1e-5);
}

class RetentionErrors : public DeviceTest {
 protected:
  const RetentionCase shape_{1, 4, 4, 2, 8, 8};
  std::string message(void (*spoil)(DeviceRetention<float>&, DeviceRows<float>&)) {
    DeviceProblem<float> problem(shape_, random_numbers(shape_), 0);
    DeviceBuffer<float> memory(4 * 4 * 8);
    DeviceRows<float> o{memory.data(), 4 * 8};
    spoil(problem.input(), o);
    return message_of([&] { retention_chunkwise(ctx(), problem.input(), nullptr, nullptr, o); });
  }
};

TEST_F(RetentionErrors, SayWhatWasGivenAndExpected) {
  EXPECT_EQ(message([](auto& in, auto&) { in.kv_heads = 3; }),
            "[retention_chunkwise] N=1 T=4 H=4 Hk=3 Dk=8 Dv=8, expected 1 to 256 heads, a multiple "
            "of Hk, and positive sizes");
  EXPECT_EQ(message([](auto&, auto& o) { o.data = nullptr; }),
            "[retention_chunkwise] o is null, expected device memory");
  EXPECT_EQ(message([](auto&, auto& o) { o.stride = 31; }),
            "[retention_chunkwise] N=1 T=4 H=4 Hk=2 Dk=8 Dv=8, rows of o are 31 apart, expected at "
            "least 32");
  EXPECT_EQ(message([](auto& in, auto&) { in.decay.log2_gamma[1] = 0.5f; }),
            "[retention_chunkwise] log2 of gamma of head 1 is 0.5, expected 0 < gamma <= 1");
  EXPECT_EQ(message([](auto& in, auto&) { in.k.data = nullptr; }),
            "[retention_chunkwise] q, k or v is null, expected device memory");
}

}  // namespace
}  // namespace retnet::test
