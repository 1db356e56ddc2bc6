// SPDX-License-Identifier: MIT
// Finds whole tokens, such as "<|endoftext|>", in a text: the leftmost, of those the longest.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"

namespace retnet::inline RETNET_ABI::detail {

class TokenFinder {
 public:
  /// False if there is none.
  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::int32_t id = 0;
    explicit operator bool() const { return end > begin; }
  };

  TokenFinder() = default;
  /// Empty tokens are passed over; of equal ones the first counts.
  explicit TokenFinder(std::vector<std::pair<std::string, std::int32_t>> tokens)
      : tokens_(std::move(tokens)) {
    std::erase_if(tokens_, [](const auto& token) { return token.first.empty(); });
    std::ranges::stable_sort(tokens_, {}, &Token::first);
    const auto same = [](const Token& a, const Token& b) { return a.first == b.first; };
    tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
    for (const auto& [text, id] : tokens_) first_bytes_.set(static_cast<unsigned char>(text[0]));
  }

  Match find(std::string_view text, std::size_t from) const {
    for (std::size_t i = from; i < text.size(); ++i) {
      if (!first_bytes_[static_cast<unsigned char>(text[i])]) continue;
      if (const auto match = longest_at(text, i)) return match;
    }
    return {};
  }

 private:
  using Token = std::pair<std::string, std::int32_t>;

  /// Narrows the sorted tokens down to those that go on as the text does, byte by byte.
  Match longest_at(std::string_view text, std::size_t begin) const {
    Match best;
    auto low = tokens_.begin(), high = tokens_.end();
    for (std::size_t i = 0; low != high && begin + i < text.size(); ++i) {
      // A token that ends here sorts before those that go on, as -1 does before bytes.
      const auto byte = [i](const Token& token) {
        return i < token.first.size() ? static_cast<unsigned char>(token.first[i]) : -1;
      };
      const int wanted = static_cast<unsigned char>(text[begin + i]);
      low = std::ranges::lower_bound(low, high, wanted, {}, byte);
      high = std::ranges::upper_bound(low, high, wanted, {}, byte);
      if (low != high && low->first.size() == i + 1) best = {begin, begin + i + 1, low->second};
    }
    return best;
  }

  std::vector<Token> tokens_;
  std::bitset<256> first_bytes_;
};

}  // namespace retnet::inline RETNET_ABI::detail
