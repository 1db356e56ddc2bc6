// SPDX-License-Identifier: MIT
// Golden cases: checkpoints of other RetNets, and what their implementations compute on them.
// data/README.md says what the files hold.
//
// Whatever a case.json announces must be in the files: a missing tensor throws, and so fails a
// test.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "golden/archive.hpp"
#include "retnet/io/pretrained.hpp"
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
      : name_(name),
        folder_(std::filesystem::path(RETNET_GOLDEN_DIR) / name),
        info_(read_json(folder_ / "case.json")),
        io_(folder_ / "io.safetensors") {}

  const std::string& name() const { return name_; }
  std::string folder() const { return folder_.string(); }
  const nlohmann::json& info() const { return info_; }
  const Archive& io() const { return io_; }
  bool fla() const { return info_.at("format") == "fla"; }
  double tolerance(const std::string& what) const {
    return info_.at("tolerance_rel").at(what).get<double>();
  }

 private:
  std::string name_;
  std::filesystem::path folder_;
  nlohmann::json info_;
  Archive io_;
};

/// The models of some families.
template <class... Prefixes>
std::vector<std::string> names_of(const Prefixes&... prefixes) {
  std::vector<std::string> out;
  for (const std::string prefix : {prefixes...})
    for (const auto& name : names(prefix)) out.push_back(name);
  return out;
}
inline std::vector<std::string> model_names() {
  return names_of("torchscale_", "syncdoth_", "fla_");
}

/// The model of the case. Its dialect must be the one the case says.
template <class S, class W = S>
RetNetModel<S, W> load(const Case& c, Compat compat = Compat::exact) {
  PretrainedInfo info;
  auto model = load_pretrained<S, W>(c.folder(), {.compat = compat}, &info);
  if (c.info().at("format") != dialect_name(info.dialect))
    throw std::runtime_error(c.name() + ": read as " + dialect_name(info.dialect));
  if (info.config.retention.head_norm_eps != c.info().at("head_norm_eps").get<double>())
    throw std::runtime_error(c.name() + ": head_norm_eps of config.json and case.json differ");
  return model;
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

/// The same over the rows where the mask is 1.
template <class S>
double masked_error(const Buffer<S>& given, const Array& expected, const Array& mask) {
  const Index vocab = expected.size() / mask.size();
  test::RelativeError error;
  for (Index i = 0; i < given.size(); ++i)
    if (mask.values[static_cast<std::size_t>(i / vocab)] != 0.0)
      error.add(given[i], expected.values[static_cast<std::size_t>(i)]);
  return error.value();
}

}  // namespace retnet::golden
