// SPDX-License-Identifier: MIT
// Reads the kinds of tokenizers whose libraries were found when this was built.
#include "retnet_generate/find_tokenizer.hpp"

#include <algorithm>
#include <filesystem>

#ifdef RETNET_EXAMPLES_HAVE_TOKENIZERS
#include "retnet/tokenizers/load_tokenizer.hpp"
#endif
#ifdef RETNET_EXAMPLES_HAVE_SENTENCEPIECE
#include "retnet/tokenizers/sentencepiece.hpp"
#endif

namespace retnet_generate {
namespace {

namespace fs = std::filesystem;
using Pointer = std::unique_ptr<retnet::Tokenizer>;
constexpr const char* kWhere = "retnet_generate";

Pointer load(const std::string& place) {
#if defined(RETNET_EXAMPLES_HAVE_SENTENCEPIECE)
  return retnet::load_tokenizer<retnet::SentencePieceTokenizer>(place);
#elif defined(RETNET_EXAMPLES_HAVE_TOKENIZERS)
  return retnet::load_tokenizer(place);
#else
  retnet::detail::throw_invalid(kWhere, "cannot read the tokenizer in ", place,
                                ": built without ICU (Debian: libicu-dev)");
#endif
}

bool holds_tokenizer(const fs::path& folder) {
  return std::any_of(fs::directory_iterator(folder), {}, [](const auto& entry) {
    const std::string name = entry.path().filename().string();
    return name == "tokenizer.json" || name == "tokenizer.model" || name.ends_with(".tiktoken");
  });
}

fs::path folder_of(const fs::path& model) {
  if (fs::is_directory(model)) return model;
  return model.has_parent_path() ? model.parent_path() : fs::path(".");
}

}  // namespace

Pointer find_tokenizer(const Options& o, Index vocab) {
  const fs::path place = o.tokenizer.empty() ? folder_of(o.model) : fs::path(o.tokenizer);
  if (o.tokenizer.empty() && !holds_tokenizer(place)) {
    RETNET_CHECK(vocab == 256, kWhere, place.string(), " holds no tokenizer, and the model has ",
                 vocab, " tokens, not the 256 of bytes; expected --tokenizer");
    return std::make_unique<retnet::ByteTokenizer>();
  }
  Pointer tokenizer = load(place.string());
  const Index size = tokenizer->vocab_size();
  RETNET_CHECK(size == vocab || (size < vocab && o.padded_vocabulary), kWhere, "the tokenizer in ",
               place.string(), " has ", size, " tokens, the model ", o.model, " has ", vocab,
               ", expected the same number",
               size < vocab ? ", or --padded-vocab if the rest is padding" : "");
  return tokenizer;
}

}  // namespace retnet_generate
