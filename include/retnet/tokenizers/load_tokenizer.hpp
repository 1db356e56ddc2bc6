// SPDX-License-Identifier: MIT
// A tokenizer from a folder, by the files that are in it.
#pragma once

#include <cerrno>
#include <concepts>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/file.hpp"
#include "retnet/tokenizers/tiktoken.hpp"
#include "retnet/tokenizers/tokenizer.hpp"
#include "retnet/tokenizers/tokenizer_json.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

/// The file of a kind, "tokenizer.json" or "*.tiktoken": of such a name in a folder, or the path
/// itself if it ends alike. Empty if there is none.
inline std::string file_of_kind(std::string_view kind, const std::filesystem::path& path) {
  const auto ending = std::filesystem::path(kind).extension();
  if (!std::filesystem::is_directory(path)) return path.extension() == ending ? path.string() : "";
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    const auto& file = entry.path();
    if (kind.starts_with('*') ? file.extension() == ending : file.filename() == kind)
      found.push_back(file.string());
  }
  RETNET_CHECK(found.size() <= 1, "load_tokenizer", path.string(), " has ", found.size(), " files ",
               kind, ", expected one: name it");
  return found.empty() ? "" : found.front();
}

}  // namespace detail

/// Reads tokenizer.json or *.tiktoken: the first that is there, in a folder or as the path itself.
/// Further kinds are named as arguments: load_tokenizer<SentencePieceTokenizer>(folder), with
/// retnet/tokenizers/sentencepiece.hpp, reads tokenizer.model too.
/// Throws std::invalid_argument when there is none of these, std::system_error when the path cannot
/// be read, else what the tokenizer's constructor throws.
template <std::derived_from<Tokenizer>... More>
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& folder_or_file) {
  if (!std::filesystem::exists(folder_or_file))
    detail::throw_system(ENOENT, "load_tokenizer", "read", folder_or_file);
  std::unique_ptr<Tokenizer> tokenizer;
  std::string wanted;
  const auto try_kind = [&]<class Kind>(std::type_identity<Kind>) {
    wanted += detail::concat(wanted.empty() ? "" : ", ", Kind::kFileName);
    if (tokenizer) return;
    const std::string path = detail::file_of_kind(Kind::kFileName, folder_or_file);
    if (!path.empty()) tokenizer = std::make_unique<Kind>(path);
  };
  try_kind(std::type_identity<JsonTokenizer>());
  (try_kind(std::type_identity<More>()), ...);
  try_kind(std::type_identity<TiktokenTokenizer>());
  RETNET_CHECK(tokenizer != nullptr, "load_tokenizer", folder_or_file,
               " holds no tokenizer, expected ", wanted,
               sizeof...(More) == 0 ? " (other kinds are template arguments)" : "");
  return tokenizer;
}

}  // namespace retnet::inline RETNET_ABI
