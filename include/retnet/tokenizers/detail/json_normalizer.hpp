// SPDX-License-Identifier: MIT
// Normalizers of a tokenizer.json: what changes a text before it is split.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/tokenizers/detail/json_node.hpp"
#include "retnet/tokenizers/detail/json_pattern.hpp"
#include "retnet/tokenizers/detail/unicode.hpp"

namespace retnet::inline RETNET_ABI::detail {

using Normalizer = std::function<std::string(std::string)>;

inline std::string stripped(std::string_view text, bool left, bool right) {
  std::size_t first = text.size(), last = 0, i = 0;  // of what is no space
  for_each_char(text, [&](char32_t code, std::string_view bytes) {
    if (!is_space(code)) {
      first = (std::min)(first, i);
      last = i + bytes.size();
    }
    i += bytes.size();
  });
  const std::size_t begin = left ? first : 0;
  const std::size_t end = right ? (std::max)(last, begin) : text.size();
  return std::string(text.substr(begin, end - begin));
}

inline Normalizer make_normalizer_step(const JsonNode& node) {
  const std::string& type = node.at("type").text();
  using Form = std::pair<const char*, NormalForm>;
  for (const auto& [name, form] :
       {Form{"NFC", NormalForm::nfc}, Form{"NFD", NormalForm::nfd}, Form{"NFKC", NormalForm::nfkc},
        Form{"NFKD", NormalForm::nfkd}}) {
    if (type != name) continue;
    node.allow({"type"});
    return [form = form](const std::string& text) { return normalized(kEncodeWhere, form, text); };
  }
  if (type == "Lowercase") {
    node.allow({"type"});
    return [](const std::string& text) { return lower_case(text); };
  }
  if (type == "Strip") {
    node.allow({"type", "strip_left", "strip_right"});
    return [left = node.boolean("strip_left", true), right = node.boolean("strip_right", true)](
               const std::string& text) { return stripped(text, left, right); };
  }
  if (type == "Prepend") {
    node.allow({"type", "prepend"});
    return [front = node.at("prepend").text()](const std::string& text) {
      return text.empty() ? text : concat(front, text);
    };
  }
  if (type == "Replace") {
    node.allow({"type", "pattern", "content"});
    return [pattern = Pattern(node.at("pattern")), content = node.at("content").text()](
               const std::string& text) { return pattern.replaced(text, content); };
  }
  node.at("type").refuse("Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend or Replace");
}

/// Throws std::invalid_argument for a normalizer that is not known.
inline Normalizer make_normalizer(const JsonNode& node) {
  std::vector<Normalizer> steps;
  add_steps(node, "normalizers", make_normalizer_step, steps);
  return [steps](std::string text) {
    const std::size_t before = text.size();
    for (const Normalizer& step : steps) {
      text = step(std::move(text));
      check_growth(kEncodeWhere, before, text.size());
    }
    return text;
  };
}

}  // namespace retnet::inline RETNET_ABI::detail
