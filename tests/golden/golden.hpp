// SPDX-License-Identifier: MIT
// Golden cases: what the reference implementations of other RetNets compute, and how their weights
// and configurations read here. data/README.md says what the files hold.
//
// Whatever a case.json announces must be in the files: a missing tensor throws, and so fails a
// test.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "golden/archive.hpp"
#include "retnet/model/retnet_model.hpp"
#include "support/compare.hpp"

#ifndef RETNET_GOLDEN_DIR
#define RETNET_GOLDEN_DIR RETNET_TEST_DATA_DIR "/golden/data"
#endif

namespace retnet::golden {

/// The folders of data/<group> whose names start with `prefix`, in order.
inline std::vector<std::string> names(const std::string& prefix, const std::string& group = "") {
  std::vector<std::string> out;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(RETNET_GOLDEN_DIR) / group)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && std::filesystem::exists(entry.path() / "case.json"))
      out.push_back(group.empty() ? name : group + "/" + name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// A case name as GoogleTest wants it.
template <class Info>
std::string test_name(const Info& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("no file " + path.string());
  return nlohmann::json::parse(in);
}

/// The JSON value of `key`, or `otherwise` where it is absent or null.
template <class T>
T value_or(const nlohmann::json& json, const char* key, T otherwise) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? otherwise : found->get<T>();
}

/// One folder of data/.
class Case {
 public:
  explicit Case(const std::string& name)
      : name_(name), info_(read_json(folder() / "case.json")), io_(folder() / "io.safetensors") {
    if (!std::filesystem::exists(folder() / "config.json")) return;  // of an operator: no model
    config_ = read_json(folder() / "config.json");
    model_ = Archive(folder() / "model.safetensors");
  }

  const std::string& name() const { return name_; }
  const nlohmann::json& info() const { return info_; }
  const nlohmann::json& config() const { return config_; }
  const Archive& io() const { return io_; }
  const Archive& model() const { return model_; }
  bool fla() const { return info_.at("format") == "fla"; }
  double tolerance(const std::string& what) const {
    return info_.at("tolerance_rel").at(what).get<double>();
  }

 private:
  std::filesystem::path folder() const { return std::filesystem::path(RETNET_GOLDEN_DIR) / name_; }

  std::string name_;
  nlohmann::json info_, config_;
  Archive io_, model_;
};

namespace detail {

inline Activation activation_of(const std::string& name) {
  if (name == "gelu") return Activation::gelu;
  if (name == "swish" || name == "silu") return Activation::swish;
  if (name == "relu") return Activation::relu;
  throw std::runtime_error("unknown activation " + name);
}

inline std::string prefix_of(const Case& c) { return c.info().at("key_prefix").get<std::string>(); }

inline RetNetConfig torchscale_config(const Case& c, Normalization normalization) {
  const auto& j = c.config();
  const auto integer = [&](const char* key) { return j.at(key).get<Index>(); };
  const double eps = j.at("layernorm_eps").get<double>();
  RetNetConfig out = presets::torchscale_v2({.vocab = integer("vocab_size"),
                                             .d_model = integer("decoder_embed_dim"),
                                             .layers = integer("decoder_layers"),
                                             .heads = integer("decoder_retention_heads"),
                                             .d_value = integer("decoder_value_embed_dim"),
                                             .ffn = integer("decoder_ffn_embed_dim")});
  out.feed_forward.activation = activation_of(j.at("activation_fn").get<std::string>());
  out.norm_eps = eps;
  out.retention.head_norm_eps = eps;
  const bool normalize_before = j.at("decoder_normalize_before").get<bool>();
  out.residual = normalize_before ? Residual::pre : Residual::post;
  out.final_norm = normalize_before;
  out.deepnorm = j.at("deepnorm").get<bool>();
  out.scale_embedding = !j.at("no_scale_embedding").get<bool>();
  out.embedding_norm = j.at("layernorm_embedding").get<bool>();
  out.tied_output = j.at("share_decoder_input_output_embed").get<bool>();
  out.retention.normalization = normalization;
  // The buffers in the file decide; each angle stands there twice, once for each half of a pair.
  out.retention.theta = ThetaKind::values;
  const Array& angle = c.model().at(prefix_of(c) + "retnet_rel_pos.angle");
  for (std::size_t i = 0; i < angle.values.size(); i += 2)
    out.retention.theta_values.push_back(angle.values[i]);
  out.retention.decay = DecayKind::values;
  for (const double d : c.model().at(prefix_of(c) + "retnet_rel_pos.decay").values)
    out.retention.gamma.push_back(std::exp(d));
  return out;
}

inline RetNetConfig fla_config(const Case& c) {
  const auto& j = c.config();
  const auto integer = [&](const char* key) { return j.at(key).get<Index>(); };
  const auto d = integer("hidden_size");
  const auto wide = [&](const char* key) {
    return static_cast<Index>(j.at(key).get<double>() * static_cast<double>(d));
  };
  const double eps = value_or(j, "norm_eps", value_or(j, "rms_norm_eps", 1e-6));
  RetNetConfig out = presets::fla({.vocab = integer("vocab_size"),
                                   .d_model = d,
                                   .layers = integer("num_hidden_layers"),
                                   .heads = integer("num_heads"),
                                   .d_value = wide("expand_v"),
                                   .ffn = value_or(j, "intermediate_size", Index{0})});
  out.retention.d_key = wide("expand_k");
  out.retention.kv_heads = value_or(j, "num_kv_heads", Index{0});
  out.retention.gate = j.at("use_output_gate").get<bool>();
  out.retention.gate_activation = activation_of(j.at("hidden_act").get<std::string>());
  out.retention.head_norm_eps = eps;
  out.retention.head_norm_affine =
      j.at("elementwise_affine").get<bool>() ? Affine::per_head_dim : Affine::none;
  out.norm_eps = eps;
  out.tied_output = j.at("tie_word_embeddings").get<bool>();
  return out;
}

using Names = std::vector<std::pair<std::string, std::string>>;

// Ours on the left. The first entry that occurs in a name is replaced.
inline const Names& torchscale_names() {
  static const Names names{{"embedding_norm.", "layernorm_embedding."},
                           {"retention_norm.", "retention_layer_norm."},
                           {"ffn_norm.", "final_layer_norm."},
                           {"final_norm.", "layer_norm."}};
  return names;
}
inline const Names& fla_names() {
  static const Names names{{"embed_tokens.", "model.embeddings."},
                           {"output_projection.", "lm_head."},
                           {"final_norm.", "model.norm."},
                           {"retention_norm.", "attn_norm."},
                           {"ffn_norm.", "mlp_norm."},
                           {"retention.out_proj.", "attn.o_proj."},
                           {"retention.head_norm.", "attn.g_norm_swish_gate."},
                           {"retention.", "attn."},
                           {"ffn.fc1.", "mlp.gate_proj."},
                           {"ffn.gate.", "mlp.up_proj."},
                           {"ffn.fc2.", "mlp.down_proj."}};
  return names;
}

}  // namespace detail

/// The model that the case describes. `normalization` is that of torchscale; fla has none.
inline RetNetConfig config_of(const Case& c, Normalization normalization) {
  RetNetConfig config =
      c.fla() ? detail::fla_config(c) : detail::torchscale_config(c, normalization);
  if (config.retention.head_norm_eps != c.info().at("head_norm_eps").get<double>())
    throw std::runtime_error(c.name() + ": head_norm_eps of config.json and case.json differ");
  return config;
}

/// Rows [first_row, first_row + rows) of a tensor in the file.
struct Source {
  std::string key;
  Index first_row = 0;
};

/// Where the parameter `name` lies in the model file.
inline Source source_of(const Case& c, const std::string& name) {
  std::string key = name;
  for (const auto& [ours, theirs] : c.fla() ? detail::fla_names() : detail::torchscale_names()) {
    const auto at = key.find(ours);
    if (at == std::string::npos) continue;
    key.replace(at, ours.size(), theirs);
    break;
  }
  if (!c.fla()) return {detail::prefix_of(c) + key};
  if (key.starts_with("layers.")) key = "model." + key;
  if (key.ends_with("g_norm_swish_gate.weight") && !c.model().has(key))
    key.replace(key.find("g_norm_swish_gate"), 17, "g_norm");
  if (key.ends_with("up_proj.weight") && !c.model().has(key)) {
    // the old layout: both factors in one matrix, the gate first
    key.replace(key.find("up_proj"), 7, "gate_proj");
    return {key, c.model().at(key).shape.at(0) / 2};
  }
  return {key};
}

/// The weights of the case in our layout. Every tensor of the file must find its place.
template <class W>
ParamBuffer<W> weights_of(const Case& c, const ParamLayout& layout) {
  ParamBuffer<W> out(layout);
  Index used = 0;
  for (const auto& entry : layout.entries()) {
    const Source source = source_of(c, entry.name);
    const Array& array = c.model().at(source.key);
    const Index rows = array.shape.size() > 1 ? array.shape[0] : 1;
    if (array.shape.back() != entry.place.cols || source.first_row + entry.place.rows > rows)
      throw std::runtime_error(c.name() + ": " + source.key + " does not fit " + entry.name);
    const Index offset = source.first_row * entry.place.cols;
    for (Index i = 0; i < entry.place.size(); ++i)
      out[entry.place].data[i] = scalar_cast<W>(array.values[static_cast<std::size_t>(offset + i)]);
    used += entry.place.size();
  }
  Index given = 0;
  for (const auto& [key, array] : c.model().arrays())
    if (key.find("retnet_rel_pos.") == std::string::npos) given += array.size();
  if (used != given) throw std::runtime_error(c.name() + ": weights in the file are left over");
  return out;
}

template <class S, class W = S>
RetNetModel<S, W> load(const Case& c, Normalization normalization) {
  const RetNetConfig config = config_of(c, normalization);
  const RetNetModel<S, W> fresh(config);  // for its layout
  return RetNetModel<S, W>(config, weights_of<W>(c, fresh.layout()));
}

inline Buffer<Token> tokens_of(const Array& ids) {
  Buffer<Token> out(ids.size());
  for (Index i = 0; i < ids.size(); ++i)
    out[i] = static_cast<Token>(ids.values[static_cast<std::size_t>(i)]);
  return out;
}

/// Where the model starts: B sequences of T, left padding where the mask is 0.
inline Sequences sequences_of(const Array& ids, const Array* mask) {
  const Index batch = ids.shape.at(0), tokens = ids.shape.at(1);
  if (mask == nullptr) return Sequences::dense(batch, tokens);
  std::vector<Index> padding;
  for (Index b = 0; b < batch; ++b) {
    const auto row = mask->values.begin() + b * tokens;
    padding.push_back(std::find(row, row + tokens, 1.0) - row);
  }
  return Sequences::left_padded(batch, tokens, std::span<const Index>(padding));
}

/// The form that a name of the golden files means: parallel, recurrent, chunkwise, chunkwise.c48.
inline Form form_of(const Case& c, const std::string& name) {
  if (name == "parallel") return Form::parallel();
  if (name == "recurrent") return Form::recurrent();
  if (name == "chunkwise") return Form::chunkwise(c.info().at("chunk_size").get<Index>());
  if (name.starts_with("chunkwise.c")) return Form::chunkwise(std::stol(name.substr(11)));
  throw std::runtime_error(c.name() + ": unknown form " + name);
}

/// Logits of all rows, [rows, V].
template <class S, class W, class Context>
Buffer<S> logits_of(Context& ctx, const RetNetModel<S, W>& model, Form form,
                    const Sequences& sequences, const Buffer<Token>& tokens,
                    ModelState<S>* state = nullptr) {
  const Index rows = sequences.rows(), vocab = model.config().vocab;
  Buffer<S> out(rows * vocab);
  model.forward(ctx, model.weights(), Pass{form, sequences}, TokenView(tokens.data(), {1, rows}),
                state, View<S, 3>(out.data(), {1, rows, vocab}));
  return out;
}

/// The recurrent form as generation runs it: one call for each token of a dense batch.
template <class S, class W, class Context>
Buffer<S> stepwise_logits(Context& ctx, const RetNetModel<S, W>& model, const Array& ids) {
  const Index batch = ids.shape.at(0), length = ids.shape.at(1), vocab = model.config().vocab;
  const auto tokens = tokens_of(ids);
  auto state = model.initial_state(batch);
  Buffer<S> out(batch * length * vocab);
  Buffer<Token> now(batch);
  for (Index t = 0; t < length; ++t) {
    for (Index b = 0; b < batch; ++b) now[b] = tokens[b * length + t];
    const auto part =
        logits_of(ctx, model, Form::recurrent(), Sequences::dense(batch, 1), now, &state);
    for (Index b = 0; b < batch; ++b)
      std::copy_n(part.data() + b * vocab, vocab, out.data() + (b * length + t) * vocab);
  }
  return out;
}

template <class S>
double error(const Buffer<S>& given, const Array& expected) {
  return test::relative_error(given.span(), std::span<const double>(expected.values));
}

}  // namespace retnet::golden
