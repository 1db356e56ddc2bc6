// SPDX-License-Identifier: MIT
// retnet_convert: a checkpoint of one dialect as one of another, or in another type.
#include <string>

#include "common/command_line.hpp"
#include "retnet_convert/conversion.hpp"

namespace retnet_convert {
namespace {

using retnet::Compat;
using retnet::Dialect;
using retnet::Dtype;

constexpr const char* kDialects =
    R"(Dialects: retnet is ours; torchscale_v1 and _v2 are microsoft/torchscale before and since
2023-09-29; syncdoth is syncdoth/RetNet; xatl is syncdoth/RetNet-XATL; fla is
flash-linear-attention. Which of them is read is found out. A model that the other dialect has no
words for is refused. Tokenizer files are not copied.
)";

void describe(CLI::App& app, Options& o) {
  app.add_option("--from", o.from,
                 "checkpoint: a folder with config.json and safetensors, or a file of save_model")
      ->required()
      ->type_name("DIR");
  app.add_option("--to", o.to, "folder to write, all of it or nothing")->type_name("DIR");
  examples::add_word<std::optional<Dialect>>(app, "--dialect", o.dialect,
                                             {{"retnet", Dialect::retnet},
                                              {"torchscale_v1", Dialect::torchscale_v1},
                                              {"torchscale_v2", Dialect::torchscale_v2},
                                              {"syncdoth", Dialect::syncdoth},
                                              {"xatl", Dialect::xatl},
                                              {"fla", Dialect::fla}},
                                             "the dialect to write");
  examples::add_word<std::optional<Dtype>>(
      app, "--dtype", o.dtype,
      {{"f32", Dtype::f32}, {"bf16", Dtype::bf16}, {"f16", Dtype::f16}, {"f64", Dtype::f64}},
      "type of the weights in the file; without it as they are");
  app.add_option("--max-shard", o.max_shard,
                 "bytes of tensors in one file, such as 500MB or 2GiB; more are split")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(true).description(""))
      ->default_str("5GB");
  examples::add_word(app, "--compat", o.compat,
                     {{"exact", Compat::exact}, {"reference", Compat::reference}},
                     "the scaling that a torchscale model gets in the dialect retnet: that of the "
                     "library, one in every form, or that of the original");
  app.add_flag("--force", o.force,
               "the folder may hold files: its checkpoint is replaced, all else stays");
  app.add_flag("--inspect", o.inspect, "write nothing, only say what --from is");

  app.final_callback([&o] {
    const bool some = !o.to.empty() || o.dialect, all = !o.to.empty() && o.dialect;
    if (o.inspect ? some : !all)
      throw CLI::ValidationError("--to and --dialect", "both, or --inspect instead");
  });
  app.footer(examples::help_footer(
      kDialects, "retnet_convert --from torchscale --to hf --dialect syncdoth --dtype bf16"));
}

}  // namespace
}  // namespace retnet_convert

int main(int argc, char** argv) {
  retnet_convert::Options options;
  CLI::App app("Converts RetNet checkpoints between dialects and types.", "retnet_convert");
  retnet_convert::describe(app, options);
  return examples::run_tool(app, argc, argv, [&] {
    if (!options.inspect) return retnet_convert::convert(options);
    retnet_convert::inspect(options);
    return 0;
  });
}
