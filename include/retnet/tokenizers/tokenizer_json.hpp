// SPDX-License-Identifier: MIT
// Reads tokenizer.json, the format of Hugging Face's tokenizers, with models of type BPE: those of
// GPT-2, GPT-NeoX, Llama and their kin. What a file asks for is done as there, or refused by name.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/file.hpp"
#include "retnet/tokenizers/detail/added_tokens.hpp"
#include "retnet/tokenizers/detail/json_bpe.hpp"
#include "retnet/tokenizers/detail/json_decoder.hpp"
#include "retnet/tokenizers/detail/json_node.hpp"
#include "retnet/tokenizers/detail/json_normalizer.hpp"
#include "retnet/tokenizers/detail/json_post_processor.hpp"
#include "retnet/tokenizers/detail/json_pre_tokenizer.hpp"
#include "retnet/tokenizers/tokenizer.hpp"

namespace retnet::inline RETNET_ABI {

/// decode() gives bytes as they are, where the original puts U+FFFD for those that are not UTF-8;
/// and a character without a token is an error, where the original leaves it out of the text. What
/// is a letter, a sign or a normal form is up to ICU's tables, which may know newer characters.
///
/// bos, eos, pad and unk are those that tokenizer_config.json names, else bos and eos are what the
/// post-processor puts before and behind a text, and unk is the model's.
class JsonTokenizer final : public Tokenizer {
 public:
  static constexpr std::string_view kFileName = "tokenizer.json";

  /// Reads tokenizer_config.json too, if it lies beside the file. Throws std::system_error when a
  /// file cannot be read, else what from_text throws.
  explicit JsonTokenizer(const std::string& path) : JsonTokenizer(from_file(path)) {}

  /// The same from memory; `source` stands for the file in messages, `config` may be empty. Throws
  /// std::invalid_argument naming source and place for what is malformed, contradictory, or not
  /// known here.
  static JsonTokenizer from_text(std::string_view json, std::string_view source = kFileName,
                                 std::string_view config = {}) {
    const nlohmann::json parsed = detail::parse_tokenizer_json(json, source);
    JsonTokenizer tokenizer(detail::JsonNode(source, parsed));
    if (!config.empty()) {
      const std::string name = detail::concat("tokenizer_config.json of ", source);
      const nlohmann::json names = detail::parse_tokenizer_json(config, name);
      tokenizer.read_config(detail::JsonNode(name, names));
    }
    return tokenizer;
  }

  std::int32_t vocab_size() const override {
    return (std::max)(model_.vocabulary().size(), added_.vocabulary().size());
  }
  std::optional<std::int32_t> find(std::string_view token) const override {
    const auto id = added_.vocabulary().find(token);
    return id ? id : model_.vocabulary().find(token);
  }

 private:
  static JsonTokenizer from_file(const std::string& path) {
    const MappedFile file(path);
    const auto config = std::filesystem::path(path).replace_filename("tokenizer_config.json");
    std::error_code ignored;
    MappedFile config_file;
    if (std::filesystem::exists(config, ignored)) config_file = MappedFile(config.string());
    return from_text(text_of(file), path, text_of(config_file));
  }

  explicit JsonTokenizer(const detail::JsonNode& node) : model_(node.at("model")) {
    node.allow({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                "post_processor", "decoder", "model"});
    for (const char* key : {"truncation", "padding"})
      if (const auto set = node.find(key)) set->refuse("null: a text has the tokens that it has");
    if (const auto part = node.find("normalizer")) normalizer_ = detail::make_normalizer(*part);
    if (const auto part = node.find("pre_tokenizer"))
      pre_tokenizer_ = detail::make_pre_tokenizer(*part);
    if (const auto part = node.find("decoder")) decoder_ = detail::make_decoder(*part);
    if (const auto part = node.find("added_tokens"))
      added_ = detail::AddedTokens(*part, model_.vocabulary(), normalizer_);
    if (const auto part = node.find("post_processor")) around_ = detail::read_post_processor(*part);
    for (const auto* ids : {&around_.before, &around_.behind})
      for (const std::int32_t id : *ids) token(detail::kJsonWhere, id);
    if (!around_.before.empty()) special_.bos = around_.before.front();
    if (!around_.behind.empty()) special_.eos = around_.behind.back();
    special_.unk = model_.unk();
  }

  void read_config(const detail::JsonNode& node) {
    const auto read = [&](const char* key, std::optional<std::int32_t>& id) {
      const auto name = node.find(key);
      if (!name) return;
      // A name may be of a token that only other files know.
      id = find(name->json().is_object() ? name->at("content").text() : name->text());
    };
    read("bos_token", special_.bos);
    read("eos_token", special_.eos);
    read("pad_token", special_.pad);
    read("unk_token", special_.unk);
  }

  static std::string_view text_of(const MappedFile& file) {
    const auto bytes = file.bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  const std::string& token(const char* where, std::int32_t id) const {
    const std::string* added = added_.vocabulary().token(id);
    return added != nullptr ? *added : model_.vocabulary().at(where, id);
  }

  void do_encode(std::string_view text, const EncodeOptions& options,
                 std::vector<std::int32_t>& ids) const override {
    detail::check_text_size(detail::kEncodeWhere, text);
    detail::check_utf8(detail::kEncodeWhere, text);
    if (options.add_special) ids = around_.before;
    detail::JsonBpe::Scratch scratch;
    for (const auto& [range, id] : added_.split(text, false, options.parse_special)) {
      if (id != detail::AddedTokens::kNoToken)
        ids.push_back(id);
      else
        encode_part(range.of(text), range.begin == 0, options.parse_special, scratch, ids);
    }
    if (options.add_special) ids.insert(ids.end(), around_.behind.begin(), around_.behind.end());
  }

  void encode_part(std::string_view raw, bool at_start, bool parse_special,
                   detail::JsonBpe::Scratch& scratch, std::vector<std::int32_t>& ids) const {
    std::string text(raw);
    if (normalizer_) text = normalizer_(std::move(text));
    detail::check_text_size(detail::kEncodeWhere, text);
    for (const auto& [range, id] : added_.split(text, true, parse_special)) {
      if (id != detail::AddedTokens::kNoToken) {
        ids.push_back(id);
        continue;
      }
      detail::Pieces pieces{{std::string(range.of(text)), at_start && range.begin == 0}};
      if (pre_tokenizer_) pre_tokenizer_(pieces);
      for (const detail::Piece& piece : pieces) model_.encode(piece.text, scratch, ids);
    }
  }

  std::string do_decode(std::span<const std::int32_t> ids,
                        const DecodeOptions& options) const override {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const std::int32_t id : ids) {
      const std::string& text = token("JsonTokenizer::decode", id);
      if (!options.skip_special || !added_.is_special(id)) tokens.push_back(text);
    }
    if (decoder_) decoder_(tokens);
    std::string out;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (!decoder_ && i > 0) out += ' ';
      out += tokens[i];
    }
    return out;
  }

  detail::JsonBpe model_;
  detail::AddedTokens added_;
  detail::Normalizer normalizer_;
  detail::PreTokenizer pre_tokenizer_;
  detail::Decoder decoder_;
  detail::TokensAround around_;
};

}  // namespace retnet::inline RETNET_ABI
