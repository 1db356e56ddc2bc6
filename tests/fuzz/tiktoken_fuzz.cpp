// SPDX-License-Identifier: MIT
// Any bytes as a *.tiktoken. The first byte says how it is read; what follows a zero byte is a
// pattern or, with an encoding, a special token; what follows the second is a text.
#include <array>
#include <optional>
#include <unordered_map>

#include "fuzz/tokenizer_properties.hpp"
#include "retnet/tokenizers/tiktoken.hpp"

namespace retnet {
namespace {

using Built = std::optional<TiktokenTokenizer>;  // none if it is refused

/// The 256 bytes as ranks 0 to 255, so that the input need not spell them out.
std::string byte_ranks() {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t b = 0; b < 256; ++b)
    out.append({kDigits[b >> 2], kDigits[(b & 3) << 4]}).append(detail::concat("== ", b, "\n"));
  return out;
}

Built build(unsigned how, std::string_view given, std::string_view middle) {
  static constexpr std::array kEncodings{"gpt2", "cl100k_base", "o200k_base", "", "", "", "", ""};
  static const std::string bytes = byte_ranks();
  std::string ranks(given);
  if ((how & 8U) != 0) ranks.append("\n").append(bytes);  // behind: what is wrong is met at once
  TiktokenOptions options{.encoding = kEncodings[how & 7U]};
  if (options.encoding.empty())
    options.pattern = middle.empty() ? R"(\s+|\S+)" : middle;
  else if (!middle.empty())
    options.special_tokens[std::string(middle)] = 1000;
  Built tokenizer;
  fuzz::accepts([&] { tokenizer = TiktokenTokenizer::from_text(ranks, options, "fuzz"); });
  return tokenizer;
}

/// Most inputs differ from one before in their text alone; reading and compiling what stands before
/// it takes longer than all else together.
const Built& built(unsigned how, std::string_view given, std::string_view middle) {
  constexpr std::size_t kKept = 1024;
  static std::unordered_map<std::string, Built> kept;
  std::string key(1, static_cast<char>(how & 15U));
  key.append(given).append(1, '\0').append(middle);
  const auto found = kept.find(key);
  if (found != kept.end()) return found->second;
  if (kept.size() == kKept) kept.clear();
  return kept.emplace(std::move(key), build(how, given, middle)).first->second;
}

}  // namespace
}  // namespace retnet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retnet;
  if (size == 0) return 0;
  std::string_view rest = fuzz::text_of(data + 1, size - 1);
  const std::string_view ranks = fuzz::take_section(rest), middle = fuzz::take_section(rest);
  constexpr std::size_t kShort = 128;  // what shows in long texts alone, an eighth of all may find
  if ((data[0] >> 4U) % 8 != 0) rest = rest.substr(0, kShort);
  const Built& tokenizer = built(data[0], ranks, middle);
  if (tokenizer) fuzz::check_tokenizer(*tokenizer, rest, true);
  return 0;
}
