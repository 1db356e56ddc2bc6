// SPDX-License-Identifier: MIT
// Any bytes as a config.json, ours or of a dialect. The first byte says how it is read, what follows
// a zero byte are the names of tensors beside it, a line each. What is accepted can be written and
// read again, and where it is small enough for a file its parameters can be laid out.
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "retnet/io/dialect.hpp"
#include "retnet/io/model_file.hpp"

namespace retnet {
namespace {

using fuzz::accepts;
using fuzz::require;

std::vector<std::string> lines(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    out.emplace_back(line);
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return out;
}

void write_again(const RetNetConfig& config, Dialect dialect) {
  const std::string own = config_to_json(config);
  require(config_to_json(config_from_json(own)) == own, "our own JSON is the config");
  std::string text;
  if (!accepts([&] { text = dialect_config_to_json(config, dialect); })) return;
  const Compat compat = config.retention.compat() ? Compat::reference : Compat::exact;
  const RetNetConfig back = dialect_config_from_json(text, dialect, {.compat = compat});
  require(dialect_config_to_json(back, dialect) == text, "a dialect's JSON is the config");
}

void lay_out(const RetNetConfig& config) {
  constexpr double kElements = 4096;  // of the file that this is the config of
  if (!accepts([&] { detail::check_model_size("fuzz", "fuzz", kElements, config); })) return;
  const auto model = RetNetModel<float>::without_weights(config);
  require(model.layout().count() > 0 && model.layout().size() >= model.layout().count(),
          "a model has parameters");
}

}  // namespace
}  // namespace retnet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retnet;
  if (size == 0) return 0;
  const unsigned how = data[0];
  const auto dialect = static_cast<Dialect>((how & 7U) % 6);
  const DialectOptions options{.compat = (how & 8U) != 0 ? Compat::reference : Compat::exact,
                               .ignore_unknown_keys = (how & 16U) != 0};
  std::string_view rest = fuzz::text_of(data + 1, size - 1);
  const std::string_view text = fuzz::take_section(rest);
  accepts([&] { detect_dialect(text, lines(rest), "fuzz"); });
  RetNetConfig config;
  if (!accepts([&] { config = dialect_config_from_json(text, dialect, options, "fuzz"); }))
    return 0;
  require(accepts([&] { write_again(config, dialect); }), "what is read can be written");
  lay_out(config);
  return 0;
}
