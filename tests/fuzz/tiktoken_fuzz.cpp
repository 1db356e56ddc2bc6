// SPDX-License-Identifier: MIT
// Any bytes as a *.tiktoken. The first byte says how it is read; what follows a zero byte is a
// pattern or, with an encoding, a special token; what follows the second is a text.
#include <array>
#include <optional>

#include "fuzz/tokenizer_properties.hpp"
#include "retnet/tokenizers/tiktoken.hpp"

namespace retnet {
namespace {

/// The 256 bytes as ranks 0 to 255, so that the input need not spell them out.
std::string byte_ranks() {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t b = 0; b < 256; ++b)
    out.append({kDigits[b >> 2], kDigits[(b & 3) << 4]}).append(detail::concat("== ", b, "\n"));
  return out;
}

}  // namespace
}  // namespace retnet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retnet;
  // Mostly none: their patterns take longer to compile than all else together.
  static constexpr std::array kEncodings{"gpt2", "cl100k_base", "o200k_base", "", "", "", "", ""};
  static const std::string bytes = byte_ranks();
  if (size == 0) return 0;
  const unsigned how = data[0];
  std::string_view rest = fuzz::text_of(data + 1, size - 1);
  std::string ranks((how & 8U) != 0 ? bytes : "");
  ranks += fuzz::take_section(rest);
  const std::string middle(fuzz::take_section(rest));
  TiktokenOptions options{.encoding = kEncodings[how & 7U]};
  if (options.encoding.empty())
    options.pattern = middle.empty() ? R"(\s+|\S+)" : middle;
  else if (!middle.empty())
    options.special_tokens[middle] = 1000;
  std::optional<TiktokenTokenizer> tokenizer;
  if (!fuzz::accepts([&] { tokenizer = TiktokenTokenizer::from_text(ranks, options, "fuzz"); }))
    return 0;
  fuzz::check_tokenizer(*tokenizer, rest, true);
  return 0;
}
