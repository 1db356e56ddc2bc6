// SPDX-License-Identifier: MIT
// The model on the device against the CPU's in double: every config that is served, small.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <thread>

#include "cuda/support/instances.cuh"
#include "retnet/cuda/session.cuh"
#include "retnet/cuda/trainer.cuh"
#include "support/device_test.cuh"

namespace retnet::test {

struct ModelCase {
  std::string name;
  RetNetConfig config;
};

inline std::vector<ModelCase> model_cases() {
  const ModelSize size{.vocab = 61, .d_model = 64, .layers = 2, .heads = 2};
  std::vector<ModelCase> out = {
      {"fla", presets::fla(size)},
      {"paper", presets::paper(size)},
      {"torchscale_v1", presets::torchscale_v1(size)},
      {"torchscale_v2", presets::torchscale_v2(size)},
      {"syncdoth", presets::syncdoth(size)},
      {"yar", presets::yar({.vocab = 61, .d_model = 64, .layers = 2, .heads = 2, .ffn = 96})},
      {"jamie", presets::jamie(size)},
  };
  const auto add = [&](const char* name, const std::function<void(RetNetConfig&)>& change) {
    out.push_back({name, presets::torchscale_v2(size)});
    change(out.back().config);
  };
  add("post, deepnorm, tied", [](auto& c) {
    c.residual = Residual::post;
    c.deepnorm = c.tied_output = true;
  });
  add("branch, partial rotation", [](auto& c) {
    c.residual = Residual::branch;
    c.retention.rotary_dim = 12;
  });
  add("parallel, one norm", [](auto& c) {
    c.residual = Residual::parallel;
    c.ffn_norm = false;
  });
  add("fewer keys, bottleneck, output bias", [](auto& c) {
    c.retention.kv_heads = 1;
    c.retention.bottleneck = 24;
    c.output_bias = true;
  });
  add("no gate, no head norm, no rotation", [](auto& c) {
    c.retention.gate = false;
    c.retention.head_norm = NormKind::none;
    c.retention.rotation = RotationLayout::none;
  });
  add("one gamma each, no final norm", [](auto& c) {
    c.retention.decay = DecayKind::values;
    c.retention.gamma = {0.9, 0.5};
    c.final_norm = false;
  });
  out.push_back({"fla of kernel sizes",
                 presets::fla({.vocab = 128, .d_model = 128, .layers = 2, .heads = 2})});
  out.push_back({"fla of the largest heads",
                 presets::fla({.vocab = 61, .d_model = 512, .layers = 1, .heads = 2})});
  return out;
}

inline double relative_rms(std::span<const float> given, std::span<const double> expected) {
  double difference = 0.0, size = 0.0;
  if (given.size() != expected.size()) return HUGE_VAL;
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (!std::isfinite(given[i])) return HUGE_VAL;
    difference += (given[i] - expected[i]) * (given[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(difference / size);
}

inline std::vector<Token> some_tokens(Index n, Index vocab, std::uint64_t stream) {
  std::vector<Token> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<Token>(uniform(Seed{5}, stream, i) * static_cast<double>(vocab));
  return out;
}

/// A model whose weights T can say, on the CPU in float and in double. Norms, biases start at 1 and 0:
/// they are moved, so that their places matter.
template <class T>
RetNetModel<float> start(const RetNetConfig& config) {
  const RetNetModel<float> fresh(config, Seed{9});
  auto w = fresh.weight_buffer().template cast<float>();
  std::size_t i = 0;
  for (float& x : w.flat()) {
    x += static_cast<float>(0.02 * normal(Seed{3}, 1, i++));
    if constexpr (!std::is_same_v<T, float>) x = static_cast<float>(bfloat16(x));
  }
  return fresh.with_weights(std::move(w));
}
inline RetNetModel<double> in_double(const RetNetModel<float>& m) {
  return {m.config(), m.weight_buffer().cast<double>()};
}

template <class T>
class CudaModel : public DeviceTest {
 protected:
  static constexpr bool kFloat = std::is_same_v<T, float>;
  // bfloat16: each of some ten ops a block rounds to 2^-9
  static constexpr double kLogits = kFloat ? 2e-5 : 2e-2;
  static constexpr double kGradient = kFloat ? 5e-5 : 4e-2;

  static std::vector<double> expected_logits(const RetNetModel<double>& m, const Sequences& s,
                                             std::span<const Token> tokens,
                                             ModelState<double>* state = nullptr) {
    std::vector<double> out(tokens.size() * static_cast<std::size_t>(m.config().vocab));
    Cpu cpu;
    m.forward(cpu, m.weights(), Pass{Form::parallel(), s}, TokenView(tokens.data(), {1, s.rows()}),
              state, View<double, 3>(out.data(), {1, s.rows(), m.config().vocab}));
    return out;
  }

  void logits_of_every_form() {
    for (const auto& c : model_cases()) {
      const auto cpu = start<T>(c.config);
      const auto exact = in_double(cpu);
      CudaRetNetModel<T> model(ctx(), cpu);
      const auto dense = Sequences::dense(2, 67);
      const std::vector<int> cu = {0, 5, 69, 70};
      const auto packed = Sequences::packed(std::span<const int>(cu));
      for (const auto* s : {&dense, &packed}) {
        const auto tokens = some_tokens(s->rows(), c.config.vocab, 1);
        const auto expected = expected_logits(exact, *s, tokens);
        for (const Form form : {Form::chunkwise(), Form::parallel(), Form::recurrent()}) {
          const auto given = model.logits(ctx(), form, *s, tokens, nullptr);
          EXPECT_LE(relative_rms(given, expected), kLogits) << c.name << " " << form.name();
        }
      }
    }
  }

  // A sequence in pieces, each in another form, from a state that came from the CPU.
  void state_from_the_cpu_and_back() {
    const auto c = model_cases()[1];
    const auto cpu = start<T>(c.config);
    const auto exact = in_double(cpu);
    CudaRetNetModel<T> model(ctx(), cpu);
    auto host = cpu.initial_state(2);
    auto host_exact = exact.initial_state(2);
    auto state = model.initial_state(ctx(), 2);
    Cpu context;
    const Index vocab = c.config.vocab;
    const auto first = Sequences::dense(2, 9);
    const auto read = some_tokens(18, vocab, 2);
    std::vector<float> dropped(18 * static_cast<std::size_t>(vocab));
    cpu.forward(context, cpu.weights(), Pass{Form::chunkwise(), first},
                TokenView(read.data(), {2, 9}), &host,
                View<float, 3>(dropped.data(), {2, 9, vocab}));
    expected_logits(exact, first, read, &host_exact);
    state.load(ctx(), host);
    for (const Form form : {Form::chunkwise(), Form::recurrent(), Form::parallel()}) {
      const auto s = Sequences::dense(2, 5);
      const auto tokens = some_tokens(10, vocab, 3);
      const auto expected = expected_logits(exact, s, tokens, &host_exact);
      const auto given = model.logits(ctx(), form, s, tokens, &state);
      EXPECT_LE(relative_rms(given, expected), kLogits) << form.name();
    }
    auto back = cpu.initial_state(2);
    state.store(ctx(), back);
    EXPECT_EQ(back.position(1), 24);
    for (std::size_t l = 0; l < back.layers.size(); ++l)
      EXPECT_LE(
          relative_rms(back.layers[l].retention().flat(), host_exact.layers[l].retention().flat()),
          kLogits);
  }

  void loss_and_every_gradient() {
    for (const auto& c : model_cases())
      for (const bool recompute : {false, true}) {
        const auto cpu = start<T>(c.config);
        const auto exact = in_double(cpu);
        CudaRetNetModel<T> model(ctx(), cpu);
        const auto s = Sequences::dense(2, 67);
        const auto tokens = some_tokens(s.rows(), c.config.vocab, 4);
        auto targets = some_tokens(s.rows(), c.config.vocab, 5);
        targets[3] = kIgnore;
        Cpu context;
        typename RetNetModel<double>::Saved saved;
        ParamBuffer<double> expected(exact.layout());
        const TokenView in(tokens.data(), {2, 67}), out(targets.data(), {2, 67});
        const auto loss =
            exact.loss_and_gradient(context, exact.weights(), Pass{Form::chunkwise(), s}, in, out,
                                    nullptr, saved, expected.ref(), 0.25);
        DeviceBuffer<float> dw(model.layout().size());
        DeviceBuffer<DeviceLoss> sum(1);
        dw.zero(ctx().stream());
        sum.zero(ctx().stream());
        typename CudaRetNetModel<T>::Saved kept;
        kept.recompute = recompute;
        model.loss_and_gradient(ctx(), Form::chunkwise(), s, tokens, targets, nullptr, kept,
                                dw.data(), 0.25f, sum.data());
        const auto given_loss = sum.to_host(ctx().stream())[0];
        EXPECT_EQ(given_loss.rows, loss.rows);
        EXPECT_NEAR(given_loss.sum, loss.sum, (kFloat ? 1e-5 : 1e-2) * loss.sum) << c.name;
        const auto given = dw.to_host(ctx().stream());
        EXPECT_LE(relative_rms(given, expected.flat()), kGradient) << c.name;
        for (const auto& e : model.layout().entries()) {
          const auto at = static_cast<std::size_t>(e.place.offset),
                     n = static_cast<std::size_t>(e.place.size());
          double size = 0.0;
          for (std::size_t i = at; i < at + n; ++i)
            size = std::fmax(size, std::fabs(expected.flat()[i]));
          if (size < 1e-9) continue;  // the key's bias under a norm, say
          EXPECT_LE(relative_rms(std::span(given).subspan(at, n), expected.flat().subspan(at, n)),
                    kFloat ? 5e-4 : 0.1)
              << c.name << " " << e.name;
        }
      }
  }

  void training_follows_the_cpu() {
    const auto config = model_cases()[0].config;
    const RetNetModel<float> begin(config, Seed{4});
    const TrainerConfig how{.adamw = {.weight_decay = 0.1}, .clip_norm = 0.5, .carry_state = true};
    Trainer<float> cpu(begin, how);
    CudaTrainer<T> gpu(ctx(), begin, how);
    Cpu context;
    Batch batch{.batch = 2, .tokens = 33};
    double first = 0.0, last = 0.0;
    std::int64_t held = 0;
    for (int i = 0; i < 12; ++i) {
      if (i == 1) held = ctx().workspace().bytes();
      batch.inputs = some_tokens(66, config.vocab, static_cast<std::uint64_t>(i % 2));
      batch.targets = some_tokens(66, config.vocab, static_cast<std::uint64_t>(7 + i % 2));
      for (int part = 0; part < 2; ++part) {
        cpu.accumulate(context, batch);
        gpu.accumulate(ctx(), batch);
      }
      const auto expected = cpu.update(context, 3e-3);
      const auto given = gpu.update(ctx(), 3e-3);
      EXPECT_EQ(given.tokens, expected.tokens);
      EXPECT_NEAR(given.loss, expected.loss, kFloat ? 2e-3 : 5e-2) << i;
      EXPECT_NEAR(given.grad_norm, expected.grad_norm, (kFloat ? 1e-2 : 0.1) * expected.grad_norm)
          << i;
      if (i == 0) first = given.loss;
      last = given.loss;
    }
    EXPECT_LT(last, first - 0.5);
    EXPECT_EQ(ctx().workspace().bytes(), held);  // a warm step allocates nothing
    const auto after = gpu.snapshot(ctx());
    EXPECT_EQ(after.layout().size(), begin.layout().size());
  }

  void gradients_are_the_same_bits_again() {
    const auto c = model_cases().back();
    const auto cpu = start<T>(c.config);
    CudaRetNetModel<T> model(ctx(), cpu);
    const auto s = Sequences::dense(2, 131);
    const auto tokens = some_tokens(s.rows(), c.config.vocab, 4);
    const auto targets = some_tokens(s.rows(), c.config.vocab, 5);
    typename CudaRetNetModel<T>::Saved saved;
    DeviceBuffer<float> dw(model.layout().size());
    DeviceBuffer<DeviceLoss> sum(1);
    std::vector<float> first;
    for (int i = 0; i < 3; ++i) {
      dw.zero(ctx().stream());
      sum.zero(ctx().stream());
      model.loss_and_gradient(ctx(), Form::chunkwise(), s, tokens, targets, nullptr, saved,
                              dw.data(), 1.0f, sum.data());
      const auto given = dw.to_host(ctx().stream());
      if (i == 0) first = given;
      EXPECT_TRUE(given == first) << i;
    }
  }

  // Token by token, in a graph, is what the whole text gives.
  void generation_is_the_prompt_continued() {
    for (const std::size_t which : {0, 1, 6, 13}) {
      const auto c = model_cases()[which];
      const auto cpu = start<T>(c.config);
      CudaRetNetModel<T> model(ctx(), cpu);
      CudaSession<T> session(ctx(), model, {}, 2);
      const auto a = some_tokens(9, c.config.vocab, 1), b = some_tokens(4, c.config.vocab, 2);
      const std::vector<std::span<const Token>> texts = {a, b};
      session.prompt(texts);
      const auto drawn = session.likeliest(12);
      session.likeliest(1);  // so that the logits behind all of `drawn` are there
      for (int i = 0; i < 2; ++i) {
        std::vector<Token> all(texts[i].begin(), texts[i].end());
        for (int t = 0; t < 12; ++t) all.push_back(drawn[static_cast<std::size_t>(2 * t + i)]);
        const auto whole = model.logits(ctx(), Form::chunkwise(),
                                        Sequences::dense(1, std::ssize(all)), all, nullptr);
        const auto v = static_cast<std::size_t>(c.config.vocab);
        const auto last = std::span<const float>(whole).last(v);
        EXPECT_LE(relative_rms(session.logits(i), std::vector<double>(last.begin(), last.end())),
                  kLogits)
            << c.name;
        for (std::size_t t = texts[i].size() - 1; kFloat && t + 1 < all.size(); ++t) {
          const auto row = std::span<const float>(whole).subspan(t * v, v);
          EXPECT_EQ(std::max_element(row.begin(), row.end()) - row.begin(), all[t + 1])
              << c.name << t;
        }
      }
    }
  }

  void sampled_tokens_are_the_cpus() {
    if (!kFloat) GTEST_SKIP() << "bfloat16 draws otherwise";
    const auto c = model_cases()[0];
    const auto cpu = start<T>(c.config);
    CudaRetNetModel<T> model(ctx(), cpu);
    const GenerateConfig how{
        .sampler = {.temperature = 0.8, .top_k = 20, .top_p = 0.9}, .stop = {}, .seed = Seed{8}};
    CudaSession<T> session(ctx(), model, how);
    Session<float> expected(cpu, how);
    const auto text = some_tokens(30, c.config.vocab, 1);
    session.prompt(text);
    expected.prompt(text);
    for (int i = 0; i < 40; ++i) EXPECT_EQ(session.next(), expected.next()) << i;
    session.prompt(text);  // and more text behind what was drawn
    expected.prompt(text);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(session.next(), expected.next()) << i;
  }

  // Each with a context of its own, their kernels beside each other.
  void threads_share_a_model() {
    const auto c = model_cases()[1];
    const auto cpu = start<T>(c.config);
    const CudaRetNetModel<T> model(ctx(), cpu);
    const auto run = [&](std::uint64_t i) {
      CudaContext context;
      CudaSession<T> session(context, model, {}, 2);
      const auto a = some_tokens(70, c.config.vocab, 2 * i);
      const auto b = some_tokens(5 + static_cast<Index>(i), c.config.vocab, 2 * i + 1);
      const std::vector<std::span<const Token>> texts = {a, b};
      std::vector<Token> out;
      for (int part = 0; part < 4; ++part) {
        session.prompt(texts);
        const auto more = session.likeliest(9);
        out.insert(out.end(), more.begin(), more.end());
      }
      return out;
    };
    constexpr std::size_t kThreads = 4;
    std::vector<std::vector<Token>> together(kThreads);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kThreads; ++i)
      threads.emplace_back([&, i] { together[i] = run(i); });
    for (auto& t : threads) t.join();
    for (std::size_t i = 0; i < kThreads; ++i) EXPECT_EQ(together[i], run(i)) << i;
  }

  void xpos_ends_where_floats_do() {
    const auto c = model_cases()[6];
    ASSERT_GT(c.config.retention.xpos_base, 0.0);
    const auto cpu = start<T>(c.config);
    CudaRetNetModel<T> model(ctx(), cpu);
    CudaSession<T> session(ctx(), model);
    session.prompt(some_tokens(4, c.config.vocab, 1));
    session.likeliest(3);
    const std::vector<std::int64_t> far = {1 << 20};
    session.state().set_positions(ctx(), far);
    EXPECT_THROW(session.likeliest(1), std::invalid_argument);
    EXPECT_THROW(session.prompt(some_tokens(1, c.config.vocab, 1)), std::invalid_argument);
  }

  void what_is_not_served_says_so() {
    auto c = model_cases()[1].config;
    c.retention.normalization = Normalization::paper_score;
    EXPECT_THROW(CudaRetNetModel<T>(ctx(), RetNetModel<float>(c)), std::invalid_argument);
    c = model_cases()[1].config;
    c.dropout = 0.1;
    EXPECT_THROW(CudaRetNetModel<T>(ctx(), RetNetModel<float>(c)), std::invalid_argument);
    c = presets::yoco({.vocab = 61, .d_model = 64, .layers = 2, .heads = 2});
    EXPECT_THROW(CudaRetNetModel<T>(ctx(), RetNetModel<float>(c)), std::invalid_argument);
    const auto cpu = start<T>(model_cases()[1].config);
    CudaRetNetModel<T> model(ctx(), cpu);
    const std::vector<Token> wrong = {1, 61};
    EXPECT_THROW(model.logits(ctx(), Form::parallel(), Sequences::dense(1, 2), wrong, nullptr),
                 std::invalid_argument);
  }
};

#define RETNET_CUDA_MODEL_TESTS(Suite)                                                    \
  TEST_F(Suite, LogitsOfEveryFormAreTheCpus) { logits_of_every_form(); }                  \
  TEST_F(Suite, StateComesFromTheCpuAndGoesBack) { state_from_the_cpu_and_back(); }       \
  TEST_F(Suite, LossAndEveryGradientAreTheCpus) { loss_and_every_gradient(); }            \
  TEST_F(Suite, TrainingFollowsTheCpu) { training_follows_the_cpu(); }                    \
  TEST_F(Suite, GradientsAreTheSameBitsAgain) { gradients_are_the_same_bits_again(); }    \
  TEST_F(Suite, GenerationIsThePromptContinued) { generation_is_the_prompt_continued(); } \
  TEST_F(Suite, SampledTokensAreTheCpus) { sampled_tokens_are_the_cpus(); }               \
  TEST_F(Suite, ThreadsShareAModel) { threads_share_a_model(); }                          \
  TEST_F(Suite, XposEndsWhereFloatsDo) { xpos_ends_where_floats_do(); }                   \
  TEST_F(Suite, WhatIsNotServedSaysSo) { what_is_not_served_says_so(); }

}  // namespace retnet::test
