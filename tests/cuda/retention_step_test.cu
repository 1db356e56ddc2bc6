// SPDX-License-Identifier: MIT
// Decoding on a device: one token after the other, with deferred writes, from a graph, and with
// states that come from the CPU and go back, each against the definition in double.
#include "retnet/cuda/retention_step.cuh"

#include "cuda/support/device_retention.cuh"
#include "cuda/support/device_test.cuh"
#include "retnet/cuda/graph.cuh"
#include "retnet/cuda/retention_deferred.cuh"
#include "support/message_of.hpp"

namespace retnet::test {
namespace {

template <class T>
constexpr double kTolerance = sizeof(T) == 2 ? 3.5e-3 : 1e-5;

/// Whole vectors of 16 bytes and not, few heads and many, and a state wider than a block.
std::vector<RetentionCase> decode_cases() {
  return {{2, 21, 4, 2, 64, 64},   {1, 9, 8, 8, 256, 512},
          {3, 5, 2, 2, 17, 43},    {17, 3, 4, 4, 70, 512},
          {1, 40, 2, 1, 160, 432}, {2, 33, 4, 1, 20, 6},
          {22, 7, 4, 2, 33, 320},  {2, 12, 3, 3, 300, 32, Gate::mild},
          {1, 6, 1, 1, 1100, 8},   {35, 6, 4, 4, 20, 132, Gate::strong},
          {1, 3, 1, 1, 1, 1},      {1, 18, 2, 2, 128, 128, Gate::mild, false}};
}

/// Rows t, t + length, t + 2 length, ...: token t of every sequence.
template <class Rows>
Rows every(Rows rows, std::int64_t t, std::int64_t length) {
  return rows ? Rows{rows.row(t), rows.stride * length} : rows;
}
template <class T>
DeviceRetention<T> token(DeviceRetention<T> in, std::int64_t t) {
  const std::int64_t length = in.sequences.length;
  in.q = every(in.q, t, length), in.k = every(in.k, t, length), in.v = every(in.v, t, length);
  in.log_gate = every(in.log_gate, t, length);
  in.sequences = DeviceSequences::dense(in.sequences.count, 1);
  return in;
}

/// Memory of pending tokens, unwritten.
template <class T>
class Pending {
 public:
  Pending(const DeviceRetention<T>& in, int window) {
    const std::int64_t slots = std::int64_t{in.sequences.count} * in.heads * window;
    keys_.resize(slots * in.key_dim), values_.resize(slots * in.value_dim), decay_.resize(slots);
    counts_.resize(in.sequences.count), arrived_.resize(in.sequences.count);
    counts_.zero(nullptr), arrived_.zero(nullptr);
    RETNET_CUDA(cudaMemset(keys_.data(), 0xFF, sizeof(T) * keys_.size()));
    RETNET_CUDA(cudaMemset(values_.data(), 0xFF, sizeof(T) * values_.size()));
    RETNET_CUDA(cudaDeviceSynchronize());
    tokens = {window, keys_.data(), values_.data(), decay_.data(), counts_.data(), arrived_.data()};
  }
  std::vector<std::int32_t> counts() const { return counts_.to_host(); }

  DevicePendingTokens<T> tokens;

 private:
  DeviceBuffer<T> keys_, values_;
  DeviceBuffer<double> decay_;
  DeviceBuffer<std::int32_t> counts_;
  DeviceBuffer<std::uint32_t> arrived_;
};

/// Launches step() `times` times, or once into a graph that is replayed as often.
template <class Step>
void repeat(CudaContext& ctx, int times, bool graphed, Step&& step) {
  if (!graphed) {
    for (int i = 0; i < times; ++i) step();
    return;
  }
  cuda::Graph graph;
  graph.capture(ctx, step);
  for (int i = 0; i < times; ++i) graph.launch(ctx);
  ctx.synchronize();
}

template <class T>
class DecodeOnDevice : public DeviceTest {
 protected:
  /// A case with its numbers and what is to come out.
  struct Known {
    RetentionCase c;
    RetentionNumbers numbers;
    RetentionExpected expected;

    explicit Known(const RetentionCase& given)
        : c(given),
          numbers(rounded<T>(random_numbers(c, 3))),
          expected(expected_forward(c, numbers)) {}
  };
  /// The same on the device, before and after.
  struct Run {
    const Known& known;
    const RetentionCase& c;
    DeviceProblem<T> problem;
    DeviceBuffer<float> states;
    DeviceMatrix<T> o;

    explicit Run(const Known& given, int gap = 8)
        : known(given),
          c(known.c),
          problem(c, known.numbers, gap),
          states(
              on_device(c.with_state ? known.numbers.state : std::vector<double>(c.states(), 0.0))),
          o(c.rows(), c.heads * c.value_dim, gap) {}
    DeviceRetention<T>& input() { return problem.input(); }
    DeviceRows<T> output() { return o; }
  };

  void expect(const Run& run, const std::string& what) {
    this->ctx().synchronize();
    EXPECT_LT(relative_rms(run.o.values(), run.known.expected.o), kTolerance<T>) << what << run.c;
    EXPECT_LT(relative_rms(on_host(run.states), run.known.expected.state), kTolerance<T>)
        << what << run.c;
  }
  void settle(Run& run, Pending<T>& pending) {
    settle_pending(this->ctx(), pending.tokens, run.c.sequences(), run.c.heads, run.c.key_dim,
                   run.c.value_dim, run.states.data());
  }
};
using Types = testing::Types<float, __nv_bfloat16, __half>;
TYPED_TEST_SUITE(DecodeOnDevice, Types);

TYPED_TEST(DecodeOnDevice, TokenByTokenEqualsTheDefinition) {
  for (const auto& c : decode_cases()) {
    const typename TestFixture::Known known(c);
    typename TestFixture::Run run(known, c.tokens % 2 == 0 ? 3 : 8);
    for (int t = 0; t < c.tokens; ++t)
      retention_recurrent_step(this->ctx(), token(run.input(), t), run.states.data(),
                               every(run.output(), t, c.tokens));
    this->expect(run, "one at a time ");
    EXPECT_STREQ(this->paths.back(), "retention_recurrent: step");
  }
}

TYPED_TEST(DecodeOnDevice, SeveralTokensInOnePassEqualTheDefinition) {
  for (const auto& c : decode_cases()) {
    const typename TestFixture::Known known(c);
    typename TestFixture::Run run(known);
    retention_recurrent_step(this->ctx(), run.input(), run.states.data(), run.output());
    this->expect(run, "all ");
  }
}

TYPED_TEST(DecodeOnDevice, DeferredWritesEqualTheDefinition) {
  for (const auto& c : decode_cases()) {
    const typename TestFixture::Known known(c);
    for (const int window : {1, 3, 16}) {
      typename TestFixture::Run run(known, c.tokens % 2 == 0 ? 3 : 8);
      Pending<TypeParam> pending(run.input(), window);
      for (int t = 0; t < c.tokens; ++t)
        retention_deferred(this->ctx(), token(run.input(), t), pending.tokens, run.states.data(),
                           every(run.output(), t, c.tokens));
      this->ctx().synchronize();
      for (const int count : pending.counts()) EXPECT_EQ(count, c.tokens % window);
      this->settle(run, pending);
      this->expect(run, "deferred ");
      for (const int count : pending.counts()) EXPECT_EQ(count, 0);
      EXPECT_STREQ(this->paths.back(), "retention_recurrent: deferred writes");
    }
  }
}

TYPED_TEST(DecodeOnDevice, SequencesOfUnequalLengthsHaveTheirOwnPendingTokens) {
  RetentionCase c{4, 0, 4, 2, 24, 36};
  c.cu_seqlens = {0, 3, 5, 21, 25};
  const typename TestFixture::Known known(c);
  for (const bool deferred : {false, true}) {
    typename TestFixture::Run run(known);
    if (!deferred) {
      retention_recurrent_step(this->ctx(), run.input(), run.states.data(), run.output());
    } else {
      Pending<TypeParam> pending(run.input(), 4);
      retention_deferred(this->ctx(), run.input(), pending.tokens, run.states.data(), run.output());
      this->ctx().synchronize();
      EXPECT_EQ(pending.counts(), (std::vector<std::int32_t>{3, 2, 0, 0}));
      this->settle(run, pending);
    }
    this->expect(run, deferred ? "deferred " : "plain ");
  }
}

TYPED_TEST(DecodeOnDevice, ReplayOfAGraphEqualsLaunches) {
  const typename TestFixture::Known known({2, 1, 4, 4, 64, 128});
  constexpr int kSteps = 37, kWindow = 16;
  std::vector<std::vector<double>> states, outputs;
  for (const bool graphed : {false, true}) {
    for (const bool deferred : {false, true}) {
      typename TestFixture::Run run(known);
      Pending<TypeParam> pending(run.input(), kWindow);
      const auto step = [&] {
        if (deferred)
          retention_deferred(this->ctx(), run.input(), pending.tokens, run.states.data(),
                             run.output());
        else
          retention_recurrent_step(this->ctx(), run.input(), run.states.data(), run.output());
      };
      repeat(this->ctx(), kSteps, graphed, step);
      if (deferred) this->settle(run, pending);
      this->ctx().synchronize();
      states.push_back(on_host(run.states));
      outputs.push_back(run.o.values());
    }
  }
  EXPECT_EQ(states[0], states[2]) << "the same bits";
  EXPECT_EQ(states[1], states[3]) << "the same bits, deferred";
  EXPECT_EQ(outputs[0], outputs[2]);
  EXPECT_EQ(outputs[1], outputs[3]);
  EXPECT_LT(relative_rms(states[1], states[0]), 1e-5);
  EXPECT_LT(relative_rms(outputs[1], outputs[0]), kTolerance<TypeParam>);
}

TYPED_TEST(DecodeOnDevice, StatesThatAreNotAlignedAreServed) {
  const typename TestFixture::Known known({2, 4, 2, 2, 32, 64});
  typename TestFixture::Run run(known);
  DeviceBuffer<float> moved(run.states.size() + 1);
  auto host = run.states.to_host();
  host.insert(host.begin(), 7.f);
  moved.upload(host, nullptr);
  retention_recurrent_step(this->ctx(), run.input(), moved.data() + 1, run.output());
  this->ctx().synchronize();
  host = moved.to_host();
  EXPECT_EQ(host[0], 7.f);
  run.states.upload(std::span(host).subspan(1), nullptr);
  this->expect(run, "one float off ");
}

using DecodeWithCpu = DeviceTest;

TEST_F(DecodeWithCpu, AStateGoesToTheDeviceAndBack) {
  const RetentionCase c{1, 50, 4, 2, 32, 48};
  const auto numbers = rounded<float>(random_numbers(c, 5));
  const auto expected = expected_forward(c, numbers);
  std::vector<float> state(numbers.state.begin(), numbers.state.end());
  const auto before = forward_on_cpu(c, numbers, 0, 20, state);

  DeviceProblem<float> problem(c, numbers, 0);
  DeviceBuffer<float> states(static_cast<std::int64_t>(state.size()));
  states.upload(state, nullptr);
  const int width = c.heads * c.value_dim;
  DeviceBuffer<float> o(10 * width);
  Pending<float> pending(problem.input(), 4);
  for (int t = 20; t < 30; ++t) {
    const auto in = token(problem.input(), t);
    const DeviceRows<float> out{o.data() + (t - 20) * width, width};
    if (t < 24) retention_recurrent_step(ctx(), in, states.data(), out);
    if (t >= 24) retention_deferred(ctx(), in, pending.tokens, states.data(), out);
  }
  settle_pending(ctx(), pending.tokens, 1, c.heads, c.key_dim, c.value_dim, states.data());
  ctx().synchronize();

  state = states.to_host();
  const auto after = forward_on_cpu(c, numbers, 30, 50, state);
  std::vector<double> all(before.begin(), before.end());
  const auto device = o.to_host();
  all.insert(all.end(), device.begin(), device.end());
  all.insert(all.end(), after.begin(), after.end());
  EXPECT_LT(relative_rms(all, expected.o), 1e-5);
  EXPECT_LT(relative_rms({state.begin(), state.end()}, expected.state), 1e-5);
}

TEST_F(DecodeWithCpu, SaysWhatIsWrong) {
  DeviceRetention<float> in;
  EXPECT_NE(message_of([&] { retention_recurrent_step(ctx(), in, nullptr, {}); }).find("H=0"),
            std::string::npos);
  DeviceProblem<float> problem({1, 1, 1, 1, 4, 4}, random_numbers({1, 1, 1, 1, 4, 4}), 0);
  EXPECT_NE(message_of([&] {
              retention_recurrent_step(ctx(), problem.input(), nullptr, {});
            }).find("states"),
            std::string::npos);
  DevicePendingTokens<float> pending;
  pending.window = 17;
  EXPECT_NE(message_of([&] {
              retention_deferred(ctx(), problem.input(), pending, nullptr, {});
            }).find("window 17"),
            std::string::npos);
}

}  // namespace
}  // namespace retnet::test
