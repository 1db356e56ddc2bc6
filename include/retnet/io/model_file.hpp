// SPDX-License-Identifier: MIT
// A model as one safetensors file: each parameter under its name, the config as JSON in the
// metadata. The only header of io/ that knows the model; the others see buffers and configs.
#pragma once

#include <string>

#include "retnet/core/check.hpp"
#include "retnet/io/checkpoint.hpp"
#include "retnet/io/config_json.hpp"
#include "retnet/io/safetensors.hpp"
#include "retnet/model/retnet_model.hpp"

namespace retnet::inline RETNET_ABI {

namespace detail {

/// Before memory is taken for a config out of a file: its parameters must not outnumber the
/// elements that the file holds.
inline void check_model_size(const char* where, const std::string& file, double stored,
                             const RetNetConfig& config) {
  const auto check = [&](double needed) {
    RETNET_CHECK(needed <= stored, where, file, ": the config needs at least ", needed,
                 " parameters, expected at most the ", stored, " that the file holds");
  };
  const auto check_matrix = [&](Index rows, Index cols = 1) {
    check(static_cast<double>(config.d_model) * static_cast<double>(rows) *
          static_cast<double>(cols));
  };
  const BlockConfig block = config.block();
  for (const Index n : {config.vocab, block.mixer.key_width(), block.mixer.value_width(),
                        block.mixer.gate_width(), block.mixer.heads, block.feed_forward.width()})
    check_matrix(n);
  for (const auto& layer : config.attention) {
    const AttentionConfig attention = config.attention_block(layer).mixer;
    check_matrix(attention.heads, attention.dim());
  }
  if (config.cross_decoder.layers > 0) {
    const CrossAttentionConfig attention = config.cross_block().mixer;
    check_matrix(attention.heads, attention.dim());
    check_matrix(config.cross_decoder.layers);
  }
  ParamLayout layout;
  const RetNetBlock<float> places(block, layout, "");
  const auto retaining = config.layers - static_cast<Index>(config.attention.size());
  check(static_cast<double>(retaining) * static_cast<double>(layout.count()));
}

/// What save_model writes beside the tensors.
inline void describe_model(SafetensorsWriter& out, const RetNetConfig& config) {
  describe_checkpoint(out);
  out.metadata("config", config_to_json(config));
}

}  // namespace detail

/// Writes weights in their own type, and the config. Throws std::system_error naming the file; an
/// old file of that name is whole then.
template <ComputeScalar Scalar, class Weight>
void save_model(const std::string& path, const RetNetModel<Scalar, Weight>& model) {
  CheckpointWriter out;
  out.add_params("", model.layout(), model.weight_buffer());
  out.set("config", config_to_json(model.config()));
  out.write(path);
}

/// The model of such a file; weights of any float type become `Weight`. Throws
/// std::invalid_argument naming what is missing, unknown or of the wrong shape, std::system_error
/// if it cannot be read.
template <ComputeScalar Scalar, class Weight = Scalar>
RetNetModel<Scalar, Weight> load_model(const SafetensorsFile& file) {
  CheckpointReader in(file);
  const auto format = in.has("format") ? in.get<std::string>("format") : "";
  RETNET_CHECK(format == "retnet", "load_model", file.name(), ": format is ", detail::shown(format),
               ", expected retnet, as save_model writes it");
  const auto config = config_from_json(in.get<std::string>("config"), file.name());
  double stored = 0.0;
  for (const auto& t : file.tensors()) stored += static_cast<double>(t.size());
  detail::check_model_size("load_model", file.name(), stored, config);
  const auto places = RetNetModel<Scalar, Weight>::without_weights(config);
  ParamBuffer<Weight> weights;
  in.expect_params("", places.layout(), weights);
  in.load();
  return places.with_weights(std::move(weights));
}
template <ComputeScalar Scalar, class Weight = Scalar>
RetNetModel<Scalar, Weight> load_model(const std::string& path) {
  return load_model<Scalar, Weight>(SafetensorsFile(path));
}

}  // namespace retnet::inline RETNET_ABI
