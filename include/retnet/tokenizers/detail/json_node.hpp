// SPDX-License-Identifier: MIT
// A place in a tokenizer.json, which knows its way from the top, so that errors can tell it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr const char* kJsonWhere = "JsonTokenizer::from_text";

/// Borrows the JSON and the name of its source. Every function throws std::invalid_argument naming
/// the source and the place when the value is not what it asks for.
class JsonNode {
 public:
  using Json = nlohmann::json;

  JsonNode(std::string_view source, const Json& json, std::string path = "")
      : source_(source), json_(&json), path_(std::move(path)) {}

  std::string_view source() const { return source_; }
  const Json& json() const { return *json_; }

  /// None if the key is missing or its value null.
  std::optional<JsonNode> find(const std::string& key) const {
    const auto it = object().find(key);
    if (it == json_->end() || it->is_null()) return std::nullopt;
    return JsonNode(source_, *it, concat(path_, path_.empty() ? "" : ".", shown(key)));
  }
  JsonNode at(const std::string& key) const {
    auto node = find(key);
    if (!node) refuse(concat("without ", shown(key)), "it to be given");
    return *std::move(node);
  }
  std::vector<JsonNode> items() const {
    if (!json_->is_array()) refuse(given(), "an array");
    std::vector<JsonNode> nodes;
    for (std::size_t i = 0; i < json_->size(); ++i)
      nodes.emplace_back(source_, (*json_)[i], concat(path_, "[", i, "]"));
    return nodes;
  }
  const std::string& text() const {
    if (!json_->is_string()) refuse(given(), "a string");
    return json_->get_ref<const std::string&>();
  }
  std::int64_t integer() const {
    if (!json_->is_number_integer()) refuse(given(), "an integer");
    return json_->get<std::int64_t>();
  }
  bool boolean(const char* key, bool otherwise) const {
    const auto node = find(key);
    if (!node) return otherwise;
    if (!node->json_->is_boolean()) node->refuse(node->given(), "true or false");
    return node->json_->get<bool>();
  }
  std::string text(const char* key, const char* otherwise) const {
    const auto node = find(key);
    return node ? node->text() : otherwise;
  }
  const Json& object() const {
    if (!json_->is_object()) refuse(given(), "an object");
    return *json_;
  }

  /// A key that nobody knows could change what all the others mean.
  void allow(std::initializer_list<std::string_view> keys) const {
    for (const auto& [key, value] : object().items())
      if (std::ranges::find(keys, key) == keys.end()) refuse_key(key);
  }

  [[noreturn]] void refuse(std::string_view given, std::string_view expected) const {
    throw_invalid(kJsonWhere, source_, ": ", path_.empty() ? "the file" : path_, " is ", given,
                  ", expected ", expected);
  }
  [[noreturn]] void refuse(std::string_view expected) const { refuse(given(), expected); }

 private:
  [[noreturn]] void refuse_key(std::string_view key) const {
    throw_invalid(kJsonWhere, source_, ": ", path_.empty() ? "the file" : path_, " has a field ",
                  shown(key), ", expected only fields that this reader knows");
  }
  std::string given() const {
    return json_->is_structured()
               ? concat("an ", json_->type_name())
               : shown(json_->dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  std::string_view source_;
  const Json* json_;
  std::string path_;
};

/// The steps that a normalizer, pre-tokenizer or decoder consists of, Sequences within Sequences in
/// a row: make(node) for each that is no Sequence. `key` is where a Sequence has them.
template <class Step, class Make>
void add_steps(const JsonNode& node, const char* key, const Make& make, std::vector<Step>& steps) {
  constexpr std::size_t kMost = 32;
  if (node.at("type").text() != "Sequence") {
    if (steps.size() == kMost) node.refuse("one step more", concat("at most ", kMost, " of them"));
    return steps.push_back(make(node));
  }
  node.allow({"type", key});
  for (const JsonNode& item : node.at(key).items()) add_steps(item, key, make, steps);
}

/// JSON without doubled keys, which the parser by itself would take the last of, and without
/// depths that no tokenizer has.
inline nlohmann::json parse_tokenizer_json(std::string_view text, std::string_view source) {
  using Json = nlohmann::json;
  constexpr int kDeepest = 64;
  std::vector<std::unordered_set<std::string>> open;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    RETNET_CHECK(depth <= kDeepest, kJsonWhere, source, " is nested deeper than ", kDeepest,
                 " levels");
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      RETNET_CHECK(open.back().insert(key).second, kJsonWhere, source, ": ", shown(key),
                   " is given twice, expected distinct keys");
    }
    return true;
  };
  // The parser would take a zero byte for the end.
  RETNET_CHECK(text.find('\0') == std::string_view::npos, kJsonWhere, source,
               " holds a zero byte, expected JSON");
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& e) {
    throw_invalid(kJsonWhere, source, " is not JSON, expected a tokenizer: ", shown(e.what()));
  }
}

}  // namespace retnet::inline RETNET_ABI::detail
