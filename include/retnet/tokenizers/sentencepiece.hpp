// SPDX-License-Identifier: MIT
// SentencePiece models (tokenizer.model), by the library of that name.
#pragma once

#include <sentencepiece_processor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/io/file.hpp"
#include "retnet/tokenizers/detail/utf8.hpp"
#include "retnet/tokenizers/tokenizer.hpp"

namespace retnet::inline RETNET_ABI {

/// What a model was trained with around a text; its file does not say.
struct SentencePieceOptions {
  bool add_bos = false;
  bool add_eos = false;
};

/// Control tokens such as "<s>" are never read from a text, whatever EncodeOptions say; the symbols
/// that the model's maker defined always are.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  static constexpr std::string_view kFileName = "tokenizer.model";

  /// Throws std::system_error when the file cannot be read, else what from_bytes throws.
  explicit SentencePieceTokenizer(const std::string& path, SentencePieceOptions options = {})
      : SentencePieceTokenizer(text_of(MappedFile(path)), path, options) {}

  /// The same from memory; `source` stands for the file in messages. Throws std::invalid_argument
  /// naming it for what is no model, and for options that the model has no token for.
  static SentencePieceTokenizer from_bytes(std::string_view model,
                                           std::string_view source = kFileName,
                                           SentencePieceOptions options = {}) {
    return SentencePieceTokenizer(std::string(model), source, options);
  }

  std::int32_t vocab_size() const override { return processor_->GetPieceSize(); }
  std::optional<std::int32_t> find(std::string_view token) const override {
    const int id = processor_->PieceToId(token);
    return processor_->IdToPiece(id) == token ? std::optional(id) : std::nullopt;
  }

 private:
  SentencePieceTokenizer(const std::string& model, std::string_view source,
                         SentencePieceOptions options)
      : processor_(std::make_shared<sentencepiece::SentencePieceProcessor>()), options_(options) {
    constexpr const char* kWhere = "SentencePieceTokenizer::SentencePieceTokenizer";
    const auto status = processor_->LoadFromSerializedProto(model);
    RETNET_CHECK(status.ok() && processor_->GetPieceSize() > 0, kWhere, source,
                 " is not a SentencePiece model: ", detail::shown(status.ToString()));
    const auto id = [](int value) { return value < 0 ? std::nullopt : std::optional(value); };
    special_ = {.bos = id(processor_->bos_id()),
                .eos = id(processor_->eos_id()),
                .pad = id(processor_->pad_id()),
                .unk = id(processor_->unk_id())};
    RETNET_CHECK((!options.add_bos || special_.bos) && (!options.add_eos || special_.eos), kWhere,
                 source, " lacks the bos or eos that the options ask for");
  }

  static std::string text_of(const MappedFile& file) {
    const auto bytes = file.bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  void do_encode(std::string_view text, const EncodeOptions& options,
                 std::vector<std::int32_t>& ids) const override {
    constexpr const char* kWhere = "SentencePieceTokenizer::encode";
    detail::check_utf8(kWhere, text);
    const auto status = processor_->Encode(text, &ids);
    RETNET_CHECK(status.ok(), kWhere, detail::shown(status.ToString()));
    if (options.add_special && options_.add_bos) ids.insert(ids.begin(), *special_.bos);
    if (options.add_special && options_.add_eos) ids.push_back(*special_.eos);
  }

  std::string do_decode(std::span<const std::int32_t> ids,
                        const DecodeOptions& options) const override {
    constexpr const char* kWhere = "SentencePieceTokenizer::decode";
    for (const std::int32_t id : ids)
      RETNET_CHECK(id >= 0 && id < vocab_size(), kWhere, "id ", id, ", expected 0 to ",
                   vocab_size() - 1);
    const auto pieces = processor_->DecodeIdsAsImmutableProto({ids.begin(), ids.end()});
    std::string text;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::string& name = processor_->IdToPiece(ids[i]);
      if (processor_->IsByte(ids[i]))
        text += static_cast<char>(std::stoi(name.substr(3, 2), nullptr, 16));  // <0x0A>
      else if (processor_->IsControl(ids[i]))
        text += options.skip_special ? std::string() : name;
      else
        text += pieces.pieces(static_cast<int>(i)).surface();
    }
    return text;
  }

  std::shared_ptr<sentencepiece::SentencePieceProcessor> processor_;
  SentencePieceOptions options_;
};

}  // namespace retnet::inline RETNET_ABI
