// SPDX-License-Identifier: MIT
// Tokens by id and ids by token, each at most once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// Above any real vocabulary; an id beyond it is a mistake, and vocab_size() a size to allocate.
inline constexpr std::int32_t kLargestTokenId = (1 << 24) - 1;
/// Texts are counted in 32 bits, at up to two bytes for one where bytes are spelt as letters.
inline constexpr std::size_t kLargestText = std::size_t{1} << 30;

inline void check_text_size(const char* where, std::string_view text) {
  RETNET_CHECK(text.size() <= kLargestText, where, "the text has ", text.size(),
               " bytes, expected at most ", kLargestText);
}

/// What steps in a row may make of a text. Those of real tokenizers stay far below; a file could
/// as well ask for ten times the text, ten times over.
inline void check_growth(const char* where, std::size_t before, std::size_t after) {
  const std::size_t most = 32 * before + 4096;
  RETNET_CHECK(after <= most, where, "the tokenizer makes ", after, " bytes of ", before,
               ", expected at most ", most);
}

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>()(text);
  }
};

class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(const Vocabulary&) = delete;  // tokens_ points into ids_
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(const Vocabulary&) = delete;
  Vocabulary& operator=(Vocabulary&&) = default;

  /// Makes room for so many tokens.
  void reserve(std::size_t count) {
    ids_.reserve(count);
    tokens_.reserve(count);
  }

  /// Throws std::invalid_argument for a token or id that is there already, naming the source, whose
  /// parts become text only then.
  template <class... Source>
  void add(const char* where, std::string_view token, std::int64_t id, const Source&... source) {
    RETNET_CHECK(id >= 0 && id <= kLargestTokenId, where, source..., ": token ", shown(token),
                 " has id ", id, ", expected 0 to ", kLargestTokenId);
    const auto key = static_cast<std::int32_t>(id);
    const auto [it, is_new] = ids_.emplace(token, key);
    RETNET_CHECK(is_new, where, source..., ": token ", shown(token), " is given twice, with ids ",
                 it->second, " and ", id, ", expected distinct tokens");
    const auto [other, is_free] = tokens_.emplace(key, &it->first);
    RETNET_CHECK(is_free, where, source..., ": id ", id, " is given to ", shown(*other->second),
                 " and to ", shown(token), ", expected distinct ids");
    if (key >= size_) size_ = key + 1;
  }

  std::optional<std::int32_t> find(std::string_view token) const {
    const auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional(it->second);
  }
  /// Null if there is none of that id.
  const std::string* token(std::int32_t id) const {
    const auto it = tokens_.find(id);
    return it == tokens_.end() ? nullptr : it->second;
  }
  /// Throws std::invalid_argument if there is none of that id.
  const std::string& at(const char* where, std::int32_t id) const {
    const std::string* found = token(id);
    RETNET_CHECK(found != nullptr, where, "id ", id, " has no token, expected one of the ",
                 ids_.size(), " ids from 0 to ", size_ - 1, " that do");
    return *found;
  }
  std::int32_t size() const { return size_; }  // the largest id + 1

 private:
  std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>> ids_;
  std::unordered_map<std::int32_t, const std::string*> tokens_;  // into ids_, whose nodes stay
  std::int32_t size_ = 0;
};

}  // namespace retnet::inline RETNET_ABI::detail
