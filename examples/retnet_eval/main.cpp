// SPDX-License-Identifier: MIT
// retnet_eval: what a model says of given token ids, from file to file: logits, greedy tokens, the
// loss, its gradient.
#include <cstdio>
#include <span>
#include <stdexcept>
#include <string>

#include "common/command_line.hpp"
#include "common/interrupt.hpp"
#include "retnet_eval/evaluation.hpp"

namespace retnet_eval {
namespace {

using Kind = retnet::Form::Kind;

constexpr const char* kOutputs = R"(The output holds
  logits         [B,T,V] F32  before softmax; without --greedy
  generated_ids  [B,T+N] I64  with --greedy: the ids as given, then N more. The prompt is read in
                              the chosen form, the rest token by token
  loss           []      F64  with --loss, and printed: the mean over all tokens that have a next
                              one in their sequence. That is B (T-1) of them; with --mask or
                              --cu-seqlens all real tokens but the last of each sequence
  grad.<tensor>          F32  with --grad: of every tensor that is trained, under its name and in
                              its shape in the model's file; a tied embedding once
Weights stay bfloat16, in the mapped file, if the file has them so, the precision is float and no
gradient is asked for. With --compat reference there are no gradients in chunks.
)";

void describe(CLI::App& app, Options& o) {
  examples::add_model(app, o.model);
  app.add_option("--input", o.input, "safetensors file with the token ids")
      ->required()
      ->type_name("FILE");
  app.add_option("--output", o.output, "safetensors file to write, whole or not at all")
      ->required()
      ->type_name("FILE");
  app.add_option("--ids", o.ids, "tensor of the token ids: [B,T], any integer type")
      ->type_name("NAME")
      ->capture_default_str();
  auto* mask = app.add_option("--mask", o.mask,
                              "tensor of a padding mask: [B,T], left padding, 1 is a token; logits "
                              "of padding are 0")
                   ->type_name("NAME");
  auto* packed = app.add_option("--cu-seqlens", o.cu_seqlens,
                                "tensor of the borders of packed sequences: [S+1], from 0 to N; "
                                "the ids are [1,N]")
                     ->type_name("NAME")
                     ->excludes(mask);

  auto* form = examples::add_word(app, "--form", o.form.kind,
                                  {{"parallel", Kind::parallel},
                                   {"recurrent", Kind::recurrent},
                                   {"chunkwise", Kind::chunkwise}},
                                  "how retention is computed")
                   ->default_str("")
                   ->required();
  auto* chunk = app.add_option("--chunk", o.form.chunk, "tokens of a chunk, with --form chunkwise")
                    ->type_name("N")
                    ->check(examples::between(Index{1}, Index{1} << 40))
                    ->capture_default_str();
  chunk->needs(form);
  examples::add_word(app, "--compat", o.compat,
                     {{"exact", retnet::Compat::exact}, {"reference", retnet::Compat::reference}},
                     "exact: one function in every form; reference: the scaling of the original, "
                     "which differs from form to form (torchscale family)");
  examples::add_word(app, "--precision", o.precision,
                     {{"float", Precision::float32}, {"double", Precision::float64}},
                     "of the computation; files are written as said below");
  examples::add_threads(app, o.threads);

  auto* loss =
      app.add_flag("--loss", o.loss, "also the mean cross-entropy of the next token, in nats");
  auto* gradient =
      app.add_flag("--grad", o.gradient, "also the gradient of that loss; with it --loss");
  app.add_option("--greedy", o.greedy,
                 "instead of logits: append N tokens, each the likeliest (the lowest id among "
                 "equals); no token ends the text")
      ->type_name("N")
      ->check(examples::between(Index{1}, Index{1} << 30))
      ->excludes(loss)
      ->excludes(gradient)
      ->excludes(packed);

  app.final_callback([&o, chunk] {
    if (chunk->count() > 0 && o.form.kind != Kind::chunkwise)
      throw CLI::ValidationError("--chunk", "only --form chunkwise has chunks");
    o.loss |= o.gradient;
  });
  app.footer(examples::help_footer(
      kOutputs,
      "retnet_eval --model retnet-1.3B --input ids.safetensors --form chunkwise --chunk 128 "
      "--loss --output logits.safetensors"));
}

// Returns the exit code. A signal waits until the file is written: its temporary name would stay.
int write(const Options& o, const Inputs& in, const Outputs& out) {
  retnet::SafetensorsWriter file;
  if (o.greedy > 0) {
    file.add("generated_ids", {in.batch, in.length + o.greedy}, out.generated);
  } else {
    file.add("logits", {in.batch, in.length, out.vocab}, out.logits);
  }
  const double loss = out.loss ? out.loss->mean() : 0.0;
  if (out.loss) file.add("loss", {}, std::span(&loss, 1));
  for (const auto& [key, gradient] : out.gradients)
    file.add("grad." + key, gradient.shape, gradient.values);
  const examples::InterruptGuard interrupt;
  file.write(o.output);
  return interrupt.requested() ? 128 + interrupt.signal() : 0;
}

int run(const Options& o) {
  const Inputs in = read_inputs(o);
  if (o.loss && in.sequences.longest() < 2)
    throw std::invalid_argument("[retnet_eval] " + o.input + ": every sequence of " + o.ids +
                                " has one token, expected at least two in one for a loss");
  const Outputs out = evaluate(o, in);
  const int code = write(o, in, out);
  if (out.loss)
    std::printf("loss: %.9g nats, mean over %td tokens\n", out.loss->mean(), out.loss->rows);
  return code;
}

}  // namespace
}  // namespace retnet_eval

int main(int argc, char** argv) {
  retnet_eval::Options options;
  CLI::App app("Runs a RetNet over token ids: logits, greedy tokens, the loss and its gradient.",
               "retnet_eval");
  retnet_eval::describe(app, options);
  return examples::run_tool(app, argc, argv, [&] { return retnet_eval::run(options); });
}
