// SPDX-License-Identifier: MIT
// A checkpoint opened and checked: the dialect, the config, and the bytes of every parameter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/io/detail/rel_pos.hpp"
#include "retnet/io/dialect.hpp"
#include "retnet/io/key_map.hpp"
#include "retnet/io/model_file.hpp"
#include "retnet/io/pretrained_options.hpp"
#include "retnet/io/shards.hpp"
#include "retnet/model/retnet_model.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr const char* kLoad = "load_pretrained";

struct OpenCheckpoint {
  std::shared_ptr<const ShardedSafetensors> files;
  PretrainedInfo info;
  ParamLayout layout;                               // side by side
  std::map<std::string, StoredTensor> stored = {};  // of each parameter, its rows only
};

/// The name of the embedding, "decoder.embed_tokens.weight", tells what stands before all others.
inline std::string find_prefix(const ShardedSafetensors& files, Dialect dialect) {
  const std::string_view name =
      dialect == Dialect::fla ? "embeddings.weight" : "embed_tokens.weight";
  std::optional<std::string> prefix;
  for (const StoredTensor* t : files.tensors()) {
    const std::string_view text = t->name;
    if (!text.ends_with(name)) continue;
    const auto before = text.substr(0, text.size() - name.size());
    if (!before.empty() && !before.ends_with('.')) continue;
    RETNET_CHECK(!prefix, kLoad, files.name(), ": both ", shown(*prefix), name, " and ",
                 shown(text), ", expected one embedding");
    prefix = before;
  }
  RETNET_CHECK(prefix.has_value(), kLoad, files.name(), ": no tensor ", name,
               ", expected the embedding of a ", word(dialect), " model");
  return *prefix;
}

inline KeyMap find_keys(const ShardedSafetensors& files, Dialect dialect) {
  KeyMap keys(dialect);
  if (dialect == Dialect::retnet) return keys;
  keys.prefix(find_prefix(files, dialect));
  if (dialect != Dialect::fla) return keys;
  bool gated = false, split = false;
  for (const StoredTensor* t : files.tensors()) {
    gated |= t->name.ends_with(".attn.g_norm_swish_gate.weight");
    split |= t->name.ends_with(".mlp.up_proj.weight");
  }
  return keys.gated_norm(gated).fused_mlp(!split);
}

/// Matches parameters with tensors, and notes everything that does not fit.
class TensorMatch {
 public:
  explicit TensorMatch(OpenCheckpoint& open) : open_(open) {
    for (const StoredTensor* t : open.files->tensors()) left_.emplace(t->name, t);
  }

  void parameter(const ParamEntry& entry) {
    const Source source = open_.info.keys.source(entry);
    const StoredTensor* t = open_.files->find(source.key);
    const Index cols = entry.place.cols;
    const std::vector<Index> shape = source.rows_in_file == 1
                                         ? std::vector<Index>{cols}
                                         : std::vector<Index>{source.rows_in_file, cols};
    if (t == nullptr) return note("missing: ", source.key, ", expected ", shape_text(shape));
    left_.erase(source.key);
    // Other tools keep a vector as [1,n] now and then, and a matrix of one row is one as well.
    const bool row = source.rows_in_file == 1 && t->shape == std::vector<Index>{1, cols};
    if (!is_float(t->dtype) || (t->shape != shape && !row))
      return note(source.key, " is ", t->describe(), ", expected ", readable_dtypes<float>(), " ",
                  shape_text(shape));
    if (dtype_bytes(t->dtype) > dtype_bytes(open_.info.dtype) || open_.stored.empty())
      open_.info.dtype = t->dtype;
    const std::size_t bytes = static_cast<std::size_t>(cols) * dtype_bytes(t->dtype);
    open_.stored[entry.name] = {
        t->name,
        t->dtype,
        {entry.place.rows, cols},
        t->bytes.subspan(static_cast<std::size_t>(source.first_row) * bytes,
                         static_cast<std::size_t>(entry.place.rows) * bytes)};
  }

  /// A tied output that the file repeats must be the embedding.
  void tied_output() {
    const std::string key = open_.info.keys.output_key();
    const StoredTensor* t = open_.files->find(key);
    const auto embedding = open_.stored.find("embed_tokens.weight");
    if (t == nullptr || embedding == open_.stored.end()) return;
    left_.erase(key);
    if (t->dtype != embedding->second.dtype ||
        !std::ranges::equal(t->bytes, embedding->second.bytes))
      note(key, " is ", t->describe(), " and not the embedding, expected the same numbers, since ",
           "the config ties them");
  }
  /// Tensors that are known and are no parameters.
  void beside(const std::string& key) { left_.erase(key); }

  void finish() {
    for (const auto& [name, t] : left_) note("unknown: ", shown(name), " ", t->describe());
    RETNET_CHECK(problems_.empty(), kLoad, open_.files->name(), " holds ",
                 open_.files->tensors().size(), " tensors that are not those of its config, a ",
                 word(open_.info.dialect), " model:", problems_);
  }

 private:
  template <class... Text>
  void note(const Text&... text) {
    problems_ += concat("\n  ", text...);
  }

  OpenCheckpoint& open_;
  std::map<std::string_view, const StoredTensor*> left_;
  std::string problems_;
};

inline std::string text_of(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Dialect and config, before any tensor is looked at.
inline void read_config(const LoadOptions& options, OpenCheckpoint& open) {
  const ShardedSafetensors& files = *open.files;
  PretrainedInfo& info = open.info;
  const auto format = files.metadata().find("format");
  const bool ours = format != files.metadata().end() && format->second == "retnet";
  if (options.dialect.value_or(ours ? Dialect::retnet : Dialect::fla) == Dialect::retnet) {
    info.dialect = Dialect::retnet;
    check_version(kLoad, files.name(), files.metadata());
    const auto config = files.metadata().find("config");
    RETNET_CHECK(ours && config != files.metadata().end(), kLoad, files.name(),
                 " holds no config in its metadata, expected a file that save_model wrote");
    info.config = config_from_json(config->second, files.name());
    return;
  }
  std::vector<std::string> names;
  for (const StoredTensor* t : files.tensors()) names.push_back(t->name);
  const std::string path = files.beside("config.json");
  refuse_foreign_tensors(names, files.name());
  const std::string text = text_of(path);
  info.dialect = options.dialect ? *options.dialect : detect_dialect(text, names, path);
  info.config = dialect_config_from_json(text, info.dialect,
                                         {options.compat, options.ignore_unknown_keys}, path);
}

/// Throws as inspect_pretrained does.
inline OpenCheckpoint open_checkpoint(const std::string& path, const LoadOptions& options) {
  OpenCheckpoint open;
  open.files = std::make_shared<const ShardedSafetensors>(path);
  read_config(options, open);
  PretrainedInfo& info = open.info;
  double elements = 0.0;
  for (const StoredTensor* t : open.files->tensors()) elements += static_cast<double>(t->size());
  check_model_size(kLoad, open.files->name(), elements, info.config);
  info.keys = find_keys(*open.files, info.dialect);
  if (has_rel_pos(info.dialect)) apply_rel_pos(*open.files, info.keys, info.config);
  info.files = open.files->files().size();
  open.layout = RetNetModel<float>::without_weights(info.config).layout();
  info.parameters = open.layout.count();

  TensorMatch match(open);
  for (const auto& entry : open.layout.entries()) match.parameter(entry);
  if (info.config.tied_output) match.tied_output();
  if (has_rel_pos(info.dialect)) {
    match.beside(info.keys.angle_key());
    match.beside(info.keys.decay_key());
    match.beside(concat(info.keys.prefix(), "version"));  // fairseq's
  }
  match.finish();
  return open;
}

/// The model on the mapped file. None if the file holds another type, or holds it unaligned.
template <ComputeScalar Scalar, class Weight>
std::optional<RetNetModel<Scalar, Weight>> borrow_weights(const OpenCheckpoint& open) {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
  for (const auto& [name, t] : open.stored) {
    const auto address = reinterpret_cast<std::uintptr_t>(t.bytes.data());
    if (t.dtype != dtype_of<Weight>() || address % alignof(Weight) != 0) return std::nullopt;
    const std::byte* last = t.bytes.data() + t.bytes.size();
    begin = begin == nullptr ? t.bytes.data() : std::min(begin, t.bytes.data());
    end = end == nullptr ? last : std::max(end, last);
  }
  const auto elements = [&](const std::byte* to) {
    return static_cast<std::size_t>(to - begin) / sizeof(Weight);
  };
  ParamLayout places([&](const std::string& name, Index, Index) {
    return static_cast<Index>(elements(open.stored.at(name).bytes.data()));
  });
  const std::span<const Weight> flat(reinterpret_cast<const Weight*>(begin), elements(end));
  return RetNetModel<Scalar, Weight>(open.info.config, std::move(places),
                                     ParamBuffer<Weight>(flat, open.files));
}

/// The model on memory of its own. Pages of the file leave memory as they have been read, so that
/// the model is there once.
template <ComputeScalar Scalar, class Weight>
RetNetModel<Scalar, Weight> convert_weights(const OpenCheckpoint& open) {
  ParamBuffer<Weight> weights(open.layout);
  for (const auto& entry : open.layout.entries()) {
    const StoredTensor& t = open.stored.at(entry.name);
    open.files->read(t, std::span<Weight>(weights[entry.place].data,
                                          static_cast<std::size_t>(entry.place.size())));
    open.files->release(t);
  }
  return RetNetModel<Scalar, Weight>(open.info.config, std::move(weights));
}

}  // namespace retnet::inline RETNET_ABI::detail
