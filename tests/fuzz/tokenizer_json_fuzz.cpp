// SPDX-License-Identifier: MIT
// Any bytes as a tokenizer.json, a zero byte, a tokenizer_config.json, a zero byte, and a text.
#include <optional>

#include "fuzz/tokenizer_properties.hpp"
#include "retnet/tokenizers/tokenizer_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retnet;
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view json = fuzz::take_section(rest), config = fuzz::take_section(rest);
  std::optional<JsonTokenizer> tokenizer;
  if (!fuzz::accepts([&] { tokenizer = JsonTokenizer::from_text(json, "fuzz", config); })) return 0;
  fuzz::check_tokenizer(*tokenizer, rest, false);
  return 0;
}
