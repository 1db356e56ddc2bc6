// SPDX-License-Identifier: MIT
// A model as the tensors of a dialect, in one file or in shards of bounded size.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "retnet/io/detail/rel_pos.hpp"
#include "retnet/io/dialect.hpp"
#include "retnet/io/key_map.hpp"
#include "retnet/io/model_file.hpp"
#include "retnet/io/safetensors.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr const char* kSave = "save_pretrained";

/// One file of a checkpoint: what it shall hold, by number.
struct Shard {
  std::vector<std::size_t> tensors;
  std::uint64_t bytes = 0;
};

/// A tensor that is larger than a shard may be has one of its own.
inline std::vector<Shard> split_shards(const std::vector<std::uint64_t>& sizes,
                                       std::uint64_t largest) {
  std::vector<Shard> out(1);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (out.back().bytes > 0 && out.back().bytes + sizes[i] > largest) out.emplace_back();
    out.back().tensors.push_back(i);
    out.back().bytes += sizes[i];
  }
  return out;
}

inline std::string shard_name(std::size_t number, std::size_t count) {
  if (count == 1) return "model.safetensors";
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "model-%05zu-of-%05zu.safetensors", number + 1, count);
  return text.data();
}

/// f of a value of the C++ type that a dtype is stored from.
template <class F>
void with_stored_type(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::f64: return f(double{});
    case Dtype::f32: return f(float{});
    case Dtype::f16: return f(half{});
    case Dtype::bf16: return f(bfloat16{});
    default:
      throw_invalid(kSave, "dtype = ", dtype_name(dtype), ", expected ", readable_dtypes<float>());
  }
}

/// Adds the buffers of the torchscale family, in float32 if that is exact.
class RelPosTensors {
 public:
  RelPosTensors(const RetNetConfig& config, const KeyMap& keys) {
    if (!has_rel_pos(keys.dialect())) return;
    const RetentionConfig r = retention_of(config);
    const bool turns = r.rotation != RotationLayout::none;
    rules_ = (!turns || (r.theta == ThetaKind::inclusive && r.theta_base == 10000.0)) &&
             (r.decay == DecayKind::pow2 ||
              (r.decay == DecayKind::linspace && keys.dialect() == Dialect::syncdoth));
    RelPos values = rel_pos_of(r, keys.dialect());
    add(keys.angle_key(), std::move(values.angle), [](double x) { return x; });
    const bool xatl = keys.dialect() == Dialect::xatl;
    add(keys.decay_key(), std::move(values.decay),
        [xatl](double x) { return xatl ? std::exp2(x) : std::exp(x); });
  }

  std::uint64_t bytes() const {
    std::uint64_t n = 0;
    for (const auto& t : tensors_) n += t.wide.size() * (t.is_narrow() ? 4 : 8);
    return n;
  }
  std::vector<std::string> keys() const {
    std::vector<std::string> out;
    for (const auto& t : tensors_) out.push_back(t.key);
    return out;
  }
  void add_to(SafetensorsWriter& out) const {
    if (rules_) out.metadata(kRelPosKey, kRelPosRules);
    for (const auto& t : tensors_) {
      const std::vector<Index> shape{static_cast<Index>(t.wide.size())};
      if (t.is_narrow()) {
        out.add(t.key, shape, t.narrow);
      } else {
        out.add(t.key, shape, t.wide);
      }
    }
  }

 private:
  struct Tensor {
    std::string key;
    std::vector<double> wide;
    std::vector<float> narrow;  // as many, unless the numbers need the wide ones

    bool is_narrow() const { return narrow.size() == wide.size(); }
  };

  // `meaning` is what a reader makes of a number.
  template <class F>
  void add(std::string key, std::vector<double> values, const F& meaning) {
    Tensor t{std::move(key), std::move(values), {}};
    for (const double x : t.wide) {
      t.narrow.push_back(static_cast<float>(x));
      if (rules_ || meaning(static_cast<double>(t.narrow.back())) == meaning(x)) continue;
      t.narrow.clear();
      break;
    }
    if (!t.key.empty()) tensors_.push_back(std::move(t));  // [0] too, of a model that does not turn
  }

  bool rules_ = false;
  std::vector<Tensor> tensors_;
};

inline void write_text(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.write("\n");
  file.commit();
}

/// {"metadata": {"total_size": ...}, "weight_map": {...}}
inline std::string index_json(std::uint64_t total,
                              const std::map<std::string, std::string>& file_of) {
  nlohmann::ordered_json json;
  json["metadata"]["total_size"] = total;
  json["weight_map"] = file_of;
  return json.dump(2);
}

inline std::uint64_t stored_bytes(const KeyedTensor& tensor, Dtype storage) {
  std::uint64_t n = dtype_bytes(storage);
  for (const Index d : tensor.shape) n *= static_cast<std::uint64_t>(d);
  return n;
}

/// One file: the tensors of a shard, and the buffers if they are given.
template <class Weight>
void write_shard(const std::string& path, const RetNetConfig& config, Dialect dialect,
                 const std::vector<KeyedTensor>& tensors, const Shard& shard,
                 const ParamBuffer<Weight>& weights, Dtype storage, const RelPosTensors* rel_pos) {
  with_stored_type(storage, [&]<class To>(To) {
    std::vector<std::vector<To>> values;  // alive until the file is written
    values.reserve(shard.tensors.size());
    SafetensorsWriter out;
    if (dialect == Dialect::retnet) {
      describe_model(out, config);
    } else {
      out.metadata("format", "pt");  // without it, transformers refuses the file
    }
    for (const std::size_t i : shard.tensors)
      out.add(tensors[i].key, tensors[i].shape,
              values.emplace_back(gather<To>(tensors[i], weights)));
    if (rel_pos != nullptr) rel_pos->add_to(out);
    out.write(path);
  });
}

template <class Weight>
void write_checkpoint(const std::string& folder, const RetNetConfig& config,
                      const ParamLayout& layout, const ParamBuffer<Weight>& weights,
                      Dialect dialect, const std::string& config_text, Dtype storage,
                      std::uint64_t max_shard_bytes) {
  const auto in_folder = [&](const std::string& name) {
    return (std::filesystem::path(folder) / name).string();
  };
  with_stored_type(storage, [](auto) {});  // a type that cannot be stored leaves no folder behind
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw_system(error.value(), kSave, "create", folder);
  const KeyMap keys = KeyMap(dialect).gated_norm(config.retention.gate);
  const auto tensors = keyed_tensors(keys, layout);
  const RelPosTensors rel_pos(config, keys);
  std::vector<std::uint64_t> sizes;
  for (const auto& t : tensors) sizes.push_back(stored_bytes(t, storage));
  const auto shards = split_shards(sizes, max_shard_bytes);

  std::uint64_t total = rel_pos.bytes();
  std::map<std::string, std::string> file_of;
  for (std::size_t s = 0; s < shards.size(); ++s) {
    const std::string name = shard_name(s, shards.size());
    write_shard(in_folder(name), config, dialect, tensors, shards[s], weights, storage,
                s == 0 ? &rel_pos : nullptr);
    for (const std::size_t i : shards[s].tensors) file_of[tensors[i].key] = name;
    total += shards[s].bytes;
  }
  for (const auto& key : rel_pos.keys()) file_of[key] = shard_name(0, shards.size());

  // An older checkpoint in the folder must not be taken for this one.
  const std::string whole = "model.safetensors", index = "model.safetensors.index.json";
  if (shards.size() > 1) write_text(in_folder(index), index_json(total, file_of));
  remove_file(in_folder(shards.size() > 1 ? whole : index));
  if (dialect != Dialect::retnet) write_text(in_folder("config.json"), config_text);
}

}  // namespace retnet::inline RETNET_ABI::detail
