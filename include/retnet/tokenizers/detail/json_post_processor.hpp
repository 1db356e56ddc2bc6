// SPDX-License-Identifier: MIT
// Post-processors of a tokenizer.json: the tokens around a text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/tokenizers/detail/json_node.hpp"
#include "retnet/tokenizers/detail/vocabulary.hpp"

namespace retnet::inline RETNET_ABI::detail {

struct TokensAround {
  std::vector<std::int32_t> before, behind;
};

/// {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, ...],
///  "special_tokens": {"<s>": {"ids": [1], ...}}}
inline TokensAround read_template(const JsonNode& node) {
  node.allow({"type", "single", "pair", "special_tokens"});
  constexpr std::size_t kMost = 1000;  // ids may be named again and again
  TokensAround around;
  bool seen_text = false;
  for (const JsonNode& item : node.at("single").items()) {
    item.allow({"SpecialToken", "Sequence"});
    if (item.find("Sequence")) {
      if (seen_text || item.at("Sequence").at("id").text() != "A") item.refuse("the text A, once");
      seen_text = true;
      continue;
    }
    const std::string& name = item.at("SpecialToken").at("id").text();
    for (const JsonNode& id : node.at("special_tokens").at(name).at("ids").items()) {
      const auto value = id.integer();
      if (value < 0 || value > kLargestTokenId) id.refuse("the id of a token");
      auto& side = seen_text ? around.behind : around.before;
      if (side.size() == kMost)
        item.refuse("one token more", concat("at most ", kMost, " of them"));
      side.push_back(static_cast<std::int32_t>(value));
    }
  }
  if (!seen_text) node.at("single").refuse("the text A, once");
  return around;
}

/// Throws std::invalid_argument for a post-processor that is not known.
inline TokensAround read_post_processor(const JsonNode& node) {
  const std::string& type = node.at("type").text();
  if (type == "TemplateProcessing") return read_template(node);
  if (type == "ByteLevel") return {};  // it moves offsets, which are not kept here
  if (type == "Sequence") {
    node.allow({"type", "processors"});
    TokensAround all;
    for (const JsonNode& item : node.at("processors").items()) {
      const auto [before, behind] = read_post_processor(item);
      all.before.insert(all.before.begin(), before.begin(), before.end());
      all.behind.insert(all.behind.end(), behind.begin(), behind.end());
    }
    return all;
  }
  node.at("type").refuse("Sequence, ByteLevel or TemplateProcessing");
}

}  // namespace retnet::inline RETNET_ABI::detail
