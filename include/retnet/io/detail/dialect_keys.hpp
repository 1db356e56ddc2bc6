// SPDX-License-Identifier: MIT
// The keys of a foreign config.json, each asked for by name: what is left over at the end is a
// mistake, or something that this library does not know.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/core/scalar.hpp"
#include "retnet/io/detail/json_text.hpp"
#include "retnet/io/dialect_options.hpp"
#include "retnet/model/config.hpp"

namespace retnet::inline RETNET_ABI::detail {

class DialectKeys {
  using Json = nlohmann::json;

 public:
  DialectKeys(Dialect dialect, const Json& json, DialectOptions options, std::string_view source)
      : dialect_(dialect), options_(options), source_(source), json_(json) {
    RETNET_CHECK(json.is_object(), kWhere, source, " is ", describe(json), ", expected an object");
  }

  Dialect dialect() const { return dialect_; }
  Compat compat() const { return options_.compat; }

  /// The value of a key; null where there is none. Python's None is a value.
  const Json* find(const char* key) {
    known_.insert(key);
    const auto it = json_.find(key);
    return it == json_.end() ? nullptr : &*it;
  }
  bool none(const char* key) {
    const Json* value = find(key);
    return value != nullptr && value->is_null();
  }

  /// Widths and counts. Sums and products of them must not overflow before they are compared with
  /// the tensors; nothing that exists comes near the bound.
  Index size(const char* key, Index otherwise) {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    const std::int64_t n = value->is_number_integer() ? value->get<std::int64_t>() : 0;
    if (n < 1 || n > kLargest) fail(key, *value, "an integer from 1 to 2^31 - 1");
    return static_cast<Index>(n);
  }
  /// The same under either of two names.
  Index size(const char* key, const char* other, Index otherwise) {
    alias(key, other);
    return size(key, size(other, otherwise));
  }
  /// The same where None stands for a rule.
  std::optional<Index> optional_size(const char* key) {
    if (find(key) == nullptr || none(key)) return std::nullopt;
    return size(key, 0);
  }
  double number(const char* key, double otherwise) {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number() || !std::isfinite(value->get<double>()))
      fail(key, *value, "a finite number");
    return value->get<double>();
  }
  bool flag(const char* key, bool otherwise) {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(key, *value, "true or false");
    return value->get<bool>();
  }
  Activation activation(const char* key, const char* otherwise,
                        std::initializer_list<std::pair<const char*, Activation>> known) {
    const Json* value = find(key);
    const Json fallback(otherwise);
    std::string words;
    for (const auto& [name, kind] : known) {
      if ((value == nullptr ? fallback : *value) == name) return kind;
      words += concat(words.empty() ? "" : ", ", name);
    }
    fail(key, *value, concat("one of ", words));
  }
  /// The value of `key` under another name as well; both may be there if they agree.
  void alias(const char* key, const char* other) {
    const Json *first = find(key), *second = find(other);
    if (first != nullptr && second != nullptr && *first != *second)
      fail(other, *second, concat("what ", key, " says, ", describe(*first)));
  }

  /// Keys that do not change the function.
  void inert(std::initializer_list<const char*> keys) {
    for (const char* key : keys) known_.insert(key);
  }
  /// A feature that is off in every model that runs here: false, 0, null or an empty list.
  void refuse(const char* key, std::string_view what, std::string_view mend) {
    const Json* value = find(key);
    if (value == nullptr || value->is_null() || *value == false || *value == 0 ||
        (value->is_array() && value->empty()))
      return;
    refuse_value(key, *value, what, mend);
  }
  [[noreturn]] void refuse_value(const char* key, const Json& value, std::string_view what,
                                 std::string_view mend) const {
    throw_invalid(kWhere, source_, ": ", key, " = ", describe(value), ": ", what,
                  "\n  mend: ", mend, "\n  see: retnet/io/dialect.hpp");
  }
  [[noreturn]] void fail(std::string_view key, const Json& value, std::string_view expected) const {
    throw_invalid(kWhere, source_, ": ", key, " is ", describe(value), ", expected ", expected);
  }

  /// Call it last.
  void finish() const {
    if (options_.ignore_unknown_keys) return;
    std::string unknown;
    for (const auto& [key, value] : json_.items())
      if (!known_.contains(key)) unknown += concat(unknown.empty() ? "" : ", ", shown(key));
    RETNET_CHECK(unknown.empty(), kWhere, source_, ": unknown keys for a ", word(dialect_),
                 " model: ", unknown,
                 "\n  mend: remove them, or set ignore_unknown_keys if they do not change the "
                 "function\n  see: retnet/io/dialect.hpp");
  }

 private:
  static constexpr const char* kWhere = "dialect_config_from_json";
  static constexpr std::int64_t kLargest = 2147483647;

  Dialect dialect_;
  DialectOptions options_;
  std::string_view source_;
  const Json& json_;
  std::set<std::string, std::less<>> known_;
};

/// The parts of a config with the width of the model filled in.
inline RetentionConfig retention_of(const RetNetConfig& c) {
  RetentionConfig r = c.retention;
  if (r.d_model == 0) r.d_model = c.d_model;
  return r;
}
inline FeedForwardConfig feed_forward_of(const RetNetConfig& c) {
  FeedForwardConfig f = c.feed_forward;
  if (f.d_model == 0) f.d_model = c.d_model;
  return f;
}

/// What every Hugging Face config may hold beside the model: bookkeeping, and how to generate.
inline void hugging_face_keys(DialectKeys& keys) {
  if (const auto* names = keys.find("architectures"); names != nullptr && names->is_array())
    for (const auto& name : *names)
      if (name.is_string() && !name.get_ref<const std::string&>().ends_with("ForCausalLM"))
        keys.refuse_value("architectures", name, "a head other than a language model's",
                          "a ...ForCausalLM checkpoint");
  keys.inert({"_attn_implementation",
              "_commit_hash",
              "_name_or_path",
              "add_cross_attention",
              "attn_implementation",
              "auto_map",
              "bad_words_ids",
              "begin_suppress_tokens",
              "bos_token_id",
              "chunk_size_feed_forward",
              "cross_attention_hidden_size",
              "decoder_start_token_id",
              "diversity_penalty",
              "do_sample",
              "dtype",
              "early_stopping",
              "encoder_no_repeat_ngram_size",
              "eos_token_id",
              "exponential_decay_length_penalty",
              "finetuning_task",
              "forced_bos_token_id",
              "forced_eos_token_id",
              "id2label",
              "initializer_range",
              "is_decoder",
              "is_encoder_decoder",
              "label2id",
              "length_penalty",
              "max_length",
              "min_length",
              "model_type",
              "no_repeat_ngram_size",
              "num_beam_groups",
              "num_beams",
              "num_return_sequences",
              "output_attentions",
              "output_hidden_states",
              "output_scores",
              "pad_token_id",
              "prefix",
              "problem_type",
              "pruned_heads",
              "remove_invalid_values",
              "repetition_penalty",
              "return_dict",
              "return_dict_in_generate",
              "sep_token_id",
              "suppress_tokens",
              "task_specific_params",
              "temperature",
              "tf_legacy_loss",
              "tie_encoder_decoder",
              "tokenizer_class",
              "top_k",
              "top_p",
              "torch_dtype",
              "torchscript",
              "transformers_version",
              "typical_p",
              "unk_token_id",
              "use_bfloat16",
              "use_cache"});
}

}  // namespace retnet::inline RETNET_ABI::detail
