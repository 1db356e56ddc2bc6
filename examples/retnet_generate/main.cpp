// SPDX-License-Identifier: MIT
// retnet_generate: goes on from a prompt and streams the text to standard output.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>

#include "common/command_line.hpp"
#include "common/interrupt.hpp"
#include "common/progress.hpp"
#include "retnet_generate/find_tokenizer.hpp"
#include "retnet_generate/generation.hpp"
#include "retnet_generate/text_output.hpp"

namespace retnet_generate {
namespace {

constexpr const char* kNotes =
    R"(The text ends after --max-tokens, before a stop text, at the tokenizer's end of text, or with
Ctrl-C (exit code 130). Nothing but text goes to standard output. Memory does not grow with it,
except for layers of attention without a window.
)";

void describe(CLI::App& app, Options& o) {
  examples::add_model(app, o.model);
  app.add_option("--prompt", o.prompt, "the text to go on from; -: standard input")
      ->required()
      ->type_name("TEXT");
  app.add_option(
         "--tokenizer", o.tokenizer,
         "tokenizer.json, tokenizer.model or *.tiktoken, or a folder with one; without it "
         "that in the model's folder, or bytes if there is none and the model has 256 tokens")
      ->type_name("PATH");
  app.add_flag("--padded-vocab", o.padded_vocabulary,
               "the model may have more tokens than the tokenizer: its last rows are padding");

  auto& s = o.sampler;
  app.add_option("--temperature", s.temperature, "0: always the likeliest token")
      ->type_name("N")
      ->check(examples::between(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--top-k", s.top_k, "draw from the k likeliest tokens; 0: from all")
      ->type_name("N")
      ->check(examples::between(Index{0}, Index{1} << 30))
      ->capture_default_str();
  app.add_option("--top-p", s.top_p,
                 "draw from the likeliest tokens that together have this probability, above 0; 1: "
                 "from all")
      ->type_name("N")
      ->check(examples::between(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--repetition-penalty", s.repetition_penalty,
                 "above 1: tokens of the window become less likely; 1: off")
      ->type_name("N")
      ->check(examples::between(0.01, 100.0))
      ->capture_default_str();
  app.add_option("--repetition-window", s.repetition_window, "tokens that the penalty looks back")
      ->type_name("N")
      ->check(examples::between(Index{0}, Index{1} << 20))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "same seed, same text")->type_name("N")->capture_default_str();

  app.add_option("--max-tokens", o.max_tokens, "length of the text, in tokens; 0: no limit")
      ->type_name("N")
      ->check(examples::between(Index{0}, Index{1} << 40))
      ->capture_default_str();
  app.add_option("--stop", o.stop, "ends before this text; may be given several times")
      ->type_name("TEXT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--chunk", o.chunk, "tokens of the prompt read at once")
      ->type_name("N")
      ->check(examples::between(Index{1}, Index{1} << 20))
      ->capture_default_str();
  examples::add_threads(app, o.threads);
  app.add_flag("--echo", o.echo, "print the prompt before the text");
  app.add_flag("--stats", o.stats, "print tokens per second to standard error");

  app.final_callback([&o] {
    if (o.sampler.top_p <= 0.0) throw CLI::ValidationError("--top-p", "expected more than 0");
    for (const auto& stop : o.stop)
      if (stop.empty()) throw CLI::ValidationError("--stop", "the text is empty");
  });
  app.footer(examples::help_footer(
      kNotes,
      "retnet_generate --model retnet-1.3B --prompt 'The three forms of retention' "
      "--temperature 0.7 --max-tokens 100 --stats"));
}

std::string prompt_of(const Options& o) {
  if (o.prompt != "-") return o.prompt;
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

void print_rate(const char* what, const Rate& rate) {
  if (rate.tokens == 0) return;
  std::fprintf(stderr, "%s: %td tokens in %.3g s, %s tokens/s\n", what, rate.tokens, rate.seconds,
               examples::format_count(static_cast<double>(rate.tokens) / rate.seconds).c_str());
}

int run(const Options& o) {
  const ModelFacts facts = inspect(o);
  const auto tokenizer = find_tokenizer(o, facts.vocab);
  const std::string prompt = prompt_of(o);
  Job job{.prompt = tokenizer->encode(prompt)};
  RETNET_CHECK(!job.prompt.empty(), "retnet_generate",
               "the prompt has no tokens, expected at least one");
  if (const auto end = tokenizer->special().eos) job.stop.push_back(*end);

  TextOutput text(*tokenizer, o.stop);
  const examples::InterruptGuard interrupt;
  job.emit = [&](Token id) { return text.add(id); };
  job.interrupted = [&] { return interrupt.requested(); };
  if (o.echo) text.show(prompt);
  const Rates rates = generate(o, facts.dtype, job);
  text.finish();
  if (o.stats) {
    print_rate("prompt", rates.prompt);
    print_rate("text", rates.generated);
  }
  return interrupt.requested() ? 128 + interrupt.signal() : 0;
}

}  // namespace
}  // namespace retnet_generate

int main(int argc, char** argv) {
  retnet_generate::Options options;
  CLI::App app("Goes on from a prompt with a RetNet and streams the text.", "retnet_generate");
  retnet_generate::describe(app, options);
  return examples::run_tool(app, argc, argv, [&] { return retnet_generate::run(options); });
}
