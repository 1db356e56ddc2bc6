// SPDX-License-Identifier: MIT
// Which tensor of a checkpoint holds a parameter. One table per dialect, for reading, for writing
// and for gradients.
#pragma once

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/core/params.hpp"
#include "retnet/io/dialect_options.hpp"
#include "retnet/io/dtype.hpp"

namespace retnet::inline RETNET_ABI {

/// Rows [first_row, first_row + rows of the parameter) of the tensor `key`, which has
/// `rows_in_file` rows. A vector is one row.
struct Source {
  std::string key;
  Index first_row = 0;
  Index rows_in_file = 0;
};

namespace detail {

/// Ours, theirs: what stands between "layers.N." and ".weight" or ".bias". A part that is not in
/// the table has the same name on both sides.
struct KeyName {
  std::string_view ours, theirs;
};

inline std::span<const KeyName> key_names(Dialect dialect) {
  static constexpr std::array kTorchscale = {
      KeyName{"embedding_norm", "layernorm_embedding"},
      KeyName{"retention_norm", "retention_layer_norm"},
      KeyName{"retention.head_norm", "retention.group_norm"},
      KeyName{"attention_norm", "retention_layer_norm"},
      KeyName{"attention.q_proj", "retention.q_proj"},
      KeyName{"attention.k_proj", "retention.k_proj"},
      KeyName{"attention.v_proj", "retention.v_proj"},
      KeyName{"attention.out_proj", "retention.out_proj"},
      KeyName{"ffn_norm", "final_layer_norm"},
      KeyName{"ffn.sub_norm", "ffn.ffn_layernorm"},
      KeyName{"final_norm", "layer_norm"},
  };
  static constexpr std::array kFla = {
      KeyName{"embed_tokens", "embeddings"},
      KeyName{"retention_norm", "attn_norm"},
      KeyName{"retention.q_proj", "attn.q_proj"},
      KeyName{"retention.k_proj", "attn.k_proj"},
      KeyName{"retention.v_proj", "attn.v_proj"},
      KeyName{"retention.g_proj", "attn.g_proj"},
      KeyName{"retention.out_proj", "attn.o_proj"},
      KeyName{"retention.head_norm", "attn.g_norm"},
      KeyName{"attention_norm", "attn_norm"},
      KeyName{"attention.q_proj", "attn.q_proj"},
      KeyName{"attention.k_proj", "attn.k_proj"},
      KeyName{"attention.v_proj", "attn.v_proj"},
      KeyName{"attention.out_proj", "attn.o_proj"},
      KeyName{"ffn_norm", "mlp_norm"},
      KeyName{"ffn.fc1", "mlp.gate_proj"},
      KeyName{"ffn.gate", "mlp.up_proj"},
      KeyName{"ffn.fc2", "mlp.down_proj"},
      KeyName{"final_norm", "norm"},
  };
  switch (dialect) {
    case Dialect::retnet: break;
    case Dialect::fla: return kFla;
    default: return kTorchscale;
  }
  return {};
}

}  // namespace detail

/// The key map of one checkpoint: a dialect, and what may differ between its files.
class KeyMap {
 public:
  KeyMap() = default;
  /// The keys that save_pretrained writes.
  explicit KeyMap(Dialect dialect)
      : dialect_(dialect), prefix_(detail::is_hugging_face(dialect) ? "model." : "") {}

  /// What stands before every key ("decoder."); the output projection of the Hugging Face dialects
  /// lies outside of "model.".
  KeyMap& prefix(std::string text) {
    prefix_ = std::move(text);
    return *this;
  }
  /// fla: the head norm is called g_norm_swish_gate, as where it is fused with the gate.
  KeyMap& gated_norm(bool on) {
    gated_norm_ = on;
    return *this;
  }
  /// fla before 2025-02-09: one matrix gate_proj [2 I, d], the rows of up_proj in its second half.
  KeyMap& fused_mlp(bool on) {
    fused_mlp_ = on;
    return *this;
  }

  Dialect dialect() const { return dialect_; }
  const std::string& prefix() const { return prefix_; }

  /// Where the parameter lies.
  Source source(const ParamEntry& entry) const {
    const Index rows = entry.place.rows;
    if (fused_mlp_ && entry.name.ends_with("ffn.fc1.weight")) return {key(entry.name), 0, 2 * rows};
    if (fused_mlp_ && entry.name.ends_with("ffn.gate.weight")) {
      const std::string_view name(entry.name);
      const auto layer = name.substr(0, name.size() - std::string_view("ffn.gate.weight").size());
      return {key(detail::concat(layer, "ffn.fc1.weight")), rows, 2 * rows};
    }
    return {key(entry.name), 0, rows};
  }

  /// The buffers of the torchscale family: angles and log decays. Empty for a dialect without.
  std::string angle_key() const { return buffer_key("angle"); }
  std::string decay_key() const { return buffer_key("decay"); }
  /// Where a tied output projection would lie, if the file repeats it.
  std::string output_key() const { return key("output_projection.weight"); }

 private:
  std::string buffer_key(std::string_view name) const {
    if (dialect_ == Dialect::retnet || dialect_ == Dialect::fla) return {};
    return detail::concat(prefix_, "retnet_rel_pos.", name);
  }

  // "layers.3.ffn.sub_norm.weight" has the parts "layers.3.", "ffn.sub_norm", ".weight".
  std::string key(std::string_view name) const {
    std::size_t begin = 0;
    if (name.starts_with("layers.")) begin = name.find('.', 7) + 1;
    const std::size_t end = name.rfind('.');
    const auto part = name.substr(begin, end - begin);
    if (part == "output_projection" && detail::is_hugging_face(dialect_))
      return detail::concat(outer_prefix(), "lm_head", name.substr(end));
    std::string_view theirs = part;
    for (const auto& known : detail::key_names(dialect_))
      if (known.ours == part) theirs = known.theirs;
    const bool gated = gated_norm_ && theirs == "attn.g_norm";
    return detail::concat(prefix_, name.substr(0, begin), theirs, gated ? "_swish_gate" : "",
                          name.substr(end));
  }
  std::string_view outer_prefix() const {
    std::string_view text = prefix_;
    if (text.ends_with("model.")) text.remove_suffix(std::string_view("model.").size());
    return text;
  }

  Dialect dialect_ = Dialect::retnet;
  std::string prefix_;
  bool gated_norm_ = false;
  bool fused_mlp_ = false;
};

/// A tensor of a checkpoint, made of one parameter or, joined by rows, of two.
struct KeyedTensor {
  std::string key;
  std::vector<Index> shape;
  std::vector<Param> parts;
};

/// The tensors that hold the parameters of a layout: their weights, or under "grad." their
/// gradients.
inline std::vector<KeyedTensor> keyed_tensors(const KeyMap& keys, const ParamLayout& layout) {
  std::vector<KeyedTensor> out;
  for (const auto& entry : layout.entries()) {
    const Source source = keys.source(entry);
    if (source.first_row > 0) {  // the first part came before it
      for (auto& t : out)
        if (t.key == source.key) t.parts.push_back(entry.place);
      continue;
    }
    std::vector<Index> shape{source.rows_in_file, entry.place.cols};
    if (entry.place.rows == 1) shape.erase(shape.begin());
    out.push_back({source.key, std::move(shape), {entry.place}});
  }
  return out;
}

/// The elements of such a tensor, as values of the type that they shall be stored in.
template <detail::StoredFloat To, detail::StoredFloat S>
std::vector<To> gather(const KeyedTensor& tensor, const ParamBuffer<S>& buffer) {
  std::vector<To> out;
  for (const Param part : tensor.parts) {
    const auto window = buffer[part];
    std::transform(window.data, window.data + part.size(), std::back_inserter(out),
                   [](const S& x) { return scalar_cast<To>(x); });
  }
  return out;
}

}  // namespace retnet::inline RETNET_ABI
