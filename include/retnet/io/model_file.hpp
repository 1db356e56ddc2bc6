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
template <class Scalar, class Weight>
void check_model_size(const SafetensorsFile& file, const RetNetConfig& config) {
  double stored = 0.0;
  for (const auto& t : file.tensors()) stored += static_cast<double>(t.size());
  const auto check = [&](double needed) {
    RETNET_CHECK(needed <= stored, "load_model", file.name(), ": the config needs at least ",
                 needed, " parameters, expected at most the ", stored, " that the file holds");
  };
  const BlockConfig block = config.block();
  const auto width = static_cast<double>(config.d_model);
  for (const Index n : {config.vocab, block.retention.key_width(), block.retention.value_width(),
                        block.feed_forward.width()})
    check(width * static_cast<double>(n));
  check(static_cast<double>(block.retention.heads));
  ParamLayout layout;
  const RetNetBlock<Scalar, Weight> places(block, layout, "");
  check(static_cast<double>(config.layers) * static_cast<double>(layout.count()));
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
  detail::check_model_size<Scalar, Weight>(file, config);
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
