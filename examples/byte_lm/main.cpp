// SPDX-License-Identifier: MIT
// byte_lm: trains a byte-level language model on an English novel in about two minutes, streams
// text from it with constant memory, and checks that its three forms are one function.
#include <cstdio>
#include <exception>

#include "byte_lm/pictures.hpp"
#include "common/ngram.hpp"
#include "common/xz.hpp"
#include "retnet/io/model_file.hpp"

namespace byte_lm {
namespace {

constexpr double kFloatBound = 1e-5, kDoubleBound = 1e-12;

Baselines measure_baselines(const examples::Corpus& corpus) {
  Baselines b;
  b.ngram = examples::NgramModel(corpus.train, 3).bits_per_byte(corpus.held_out);
  const auto xz = examples::xz_bits_per_byte(corpus.train, corpus.held_out);
  if (xz) b.xz = xz->appended;
  std::printf("held-out text: order-3 n-gram %.3f bits/byte", b.ngram);
  if (b.xz) std::printf(", xz -9e %.3f (after the training text)", *b.xz);
  std::printf("\n");
  return b;
}

// Streams from the prompt; returns tokens per second.
double stream(const Model& model, const Options& o) {
  std::printf("\nA sample (recurrent form, temperature %.2g, seed %llu):\n\n%s", o.temperature,
              static_cast<unsigned long long>(o.seed), o.prompt.c_str());
  retnet::Session<float> session(
      model, {.sampler = {.temperature = o.temperature, .top_p = 0.95}, .seed = {o.seed}});
  std::vector<retnet::Token> prompt;
  for (const char c : o.prompt) prompt.push_back(static_cast<unsigned char>(c));
  session.prompt(prompt);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < o.sample; ++i) {
    std::putchar(session.next().value());
    std::fflush(stdout);
  }
  const double rate = o.sample / since(start);
  std::printf("\n\n");
  return rate;
}

double check_forms(const Model& model, Bytes text) {
  std::printf("The three forms on the trained model, %zu tokens: max |difference| / max |logit|\n",
              text.size());
  const double in_float = print_forms(model, text, "float");
  const retnet::RetNetModel<double> wide(model.config(), model.weight_buffer().cast<double>());
  const double in_double = print_forms(wide, text, "double");
  if (in_float <= kFloatBound && in_double <= kDoubleBound) return in_float;
  throw std::runtime_error("the forms differ: float " + std::to_string(in_float) + ", double " +
                           std::to_string(in_double) + ", expected at most 1e-5 and 1e-12");
}

void print_costs(const Model& model, Bytes text) {
  std::printf("\nOne more token costs (one thread)\n");
  for (const Index position : {Index{100}, Index{100000}}) {
    const Cost cost = token_cost(model, text, position, 1);
    std::printf("  at position %7td: %6.1f us, %.1f KiB of state and scratch\n", position,
                cost.seconds * 1e6, static_cast<double>(cost.bytes) / 1024.0);
  }
}

int run(Options o) {
  std::filesystem::create_directories(o.out);
  const auto corpus = examples::load_corpus(o.text);
  std::printf("%s: %zu bytes to train on, %zu held out\n", o.text.filename().c_str(),
              corpus.train.size(), corpus.held_out.size());
  const Baselines baselines = measure_baselines(corpus);

  TrainLog log;
  Trainer trainer(Model(model_config(), {o.seed}), {});
  if (o.resume) resume(o, trainer, log);
  std::printf("RetNet: %td parameters, %td layers of %td heads, %d threads, %.3g minutes%s\n\n",
              trainer.layout().count(), model_config().layers, model_config().retention.heads,
              o.threads, o.minutes, o.resume ? " in all, resumed" : "");
  retnet::Cpu ctx(o.threads);
  log = train(ctx, trainer, corpus.train, o, std::move(log));
  save(o, trainer, log);
  std::printf("saved %s\n", checkpoint_path(o).c_str());
  if (log.interrupted) {
    std::printf("stopped after %.0f s; --resume goes on from here\n", log.seconds);
    return 130;
  }

  const Model model = trainer.snapshot();
  retnet::save_model((o.out / "model.safetensors").string(), model);
  const double validation = bits_per_byte(ctx, model, corpus.held_out);
  const double generated = stream(model, o);
  const double error = check_forms(model, Bytes(corpus.held_out).first(257));
  print_costs(model, corpus.train);
  draw_loss(o, log, baselines, validation);
  draw_decay(o, model);
  draw_costs(o, model, corpus.train, o.minutes < 1.0 ? 1024 : 16384);
  std::printf("\npictures: %s/{loss,time,memory,decay}.svg\n", o.out.c_str());
  std::printf("more text: retnet_generate --model %s --prompt \"...\"\n\n", o.out.c_str());
  std::printf("validation_bits_per_byte: %.4f\n", validation);
  std::printf("ngram_bits_per_byte: %.4f\n", baselines.ngram);
  std::printf("forms_max_relative_error: %.3e\n", error);
  std::printf("tokens_per_second_train: %.0f\n", log.tokens_per_second());
  std::printf("tokens_per_second_generate: %.0f\n", generated);
  return 0;
}

}  // namespace
}  // namespace byte_lm

int main(int argc, char** argv) {
  byte_lm::Options options;
  CLI::App app("Trains a byte-level RetNet and streams text from it.", "byte_lm");
  byte_lm::describe(app, options);
  CLI11_PARSE(app, argc, argv);
  try {
    return byte_lm::run(std::move(options));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "byte_lm: %s\n", error.what());
    return 1;
  }
}
