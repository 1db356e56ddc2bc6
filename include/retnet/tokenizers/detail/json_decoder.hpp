// SPDX-License-Identifier: MIT
// Decoders of a tokenizer.json: what makes text of tokens again. Each step changes a list of
// tokens, which are then read in a row.
#pragma once

#include <algorithm>
#include <charconv>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/tokenizers/detail/byte_level.hpp"
#include "retnet/tokenizers/detail/json_node.hpp"
#include "retnet/tokenizers/detail/json_pattern.hpp"
#include "retnet/tokenizers/detail/json_pre_tokenizer.hpp"
#include "retnet/tokenizers/detail/unicode.hpp"

namespace retnet::inline RETNET_ABI::detail {

using Decoder = std::function<void(std::vector<std::string>&)>;

/// "<0x0A>" is the byte 10; -1 for any other token.
inline int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = -1;
  const auto [end, error] = std::from_chars(&token[3], &token[5], byte, 16);
  return error == std::errc() && end == &token[5] ? byte : -1;
}

/// A step that sees one token at a time.
template <class F>
Decoder for_each_token(F f) {
  return [f = std::move(f)](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) token = f(token);
  };
}

inline Decoder make_metaspace_decoder(const JsonNode& node) {
  return [fields = MetaspaceFields(node)](std::vector<std::string>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const bool drops = i == 0 && fields.scheme != PrependScheme::never;
      std::string text;
      std::size_t done = 0;
      for (std::size_t at; (at = tokens[i].find(fields.replacement, done)) != std::string::npos;
           done = at + fields.replacement.size())
        text.append(tokens[i], done, at - done).append(drops ? 0 : 1, ' ');
      tokens[i] = text.append(tokens[i], done);
    }
  };
}

inline Decoder make_strip_decoder(const JsonNode& node, bool fused) {
  node.allow({"type", "content", "start", "stop"});
  const std::string& content = node.at("content").text();
  if (content.empty() || front_char(content).bytes != content.size())
    node.at("content").refuse("one character");
  if (fused && content.size() > 1)
    node.at("content").refuse("one byte behind Fuse: what follows is not known yet");
  const auto count = [&](const char* key) {
    const auto number = node.find(key) ? node.at(key).integer() : 0;
    if (number < 0) node.at(key).refuse("0 or more");
    return number;
  };
  const auto start = count("start"), stop = count("stop");
  if (fused && stop > 0) node.at("stop").refuse("0 behind Fuse: what follows is not known yet");
  return for_each_token([=](std::string_view token) {
    for (auto n = start; n > 0 && token.starts_with(content); --n)
      token.remove_prefix(content.size());
    for (auto n = stop; n > 0 && token.ends_with(content); --n) token.remove_suffix(content.size());
    return std::string(token);
  });
}

/// `fused`: all tokens are one by now.
inline Decoder make_decoder_step(const JsonNode& node, bool& fused) {
  const std::string& type = node.at("type").text();
  if (type == "Strip") return make_strip_decoder(node, fused);
  if (fused && type != "Fuse") node.at("type").refuse("nothing but Strip behind Fuse");
  if (type == "Fuse") {
    node.allow({"type"});
    fused = true;
    return [](std::vector<std::string>& tokens) {
      std::string text;
      for (const std::string& token : tokens) text += token;
      tokens.assign(1, text);
    };
  }
  if (type == "ByteLevel") {
    node.allow({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    return for_each_token(letters_as_bytes);
  }
  if (type == "ByteFallback") {
    node.allow({"type"});
    return for_each_token([](const std::string& token) {
      const int byte = byte_of_token(token);
      return byte < 0 ? token : std::string(1, static_cast<char>(byte));
    });
  }
  if (type == "Metaspace") return make_metaspace_decoder(node);
  if (type == "Replace") {
    node.allow({"type", "pattern", "content"});
    return for_each_token([pattern = Pattern(node.at("pattern")),
                           content = node.at("content").text()](const std::string& token) {
      return pattern.replaced(token, content);
    });
  }
  node.at("type").refuse("Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Strip or Replace");
}

/// Throws std::invalid_argument for a decoder that is not known.
inline Decoder make_decoder(const JsonNode& node) {
  std::vector<Decoder> steps;
  bool fused = false;
  add_steps(
      node, "decoders", [&](const JsonNode& step) { return make_decoder_step(step, fused); },
      steps);
  return [steps](std::vector<std::string>& tokens) {
    const auto bytes = [&] {
      std::size_t n = 0;
      for (const std::string& token : tokens) n += token.size();
      return n;
    };
    const std::size_t before = bytes();
    for (const Decoder& step : steps) {
      step(tokens);
      check_growth("JsonTokenizer::decode", before, bytes());
    }
  };
}

}  // namespace retnet::inline RETNET_ABI::detail
