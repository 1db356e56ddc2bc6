// SPDX-License-Identifier: MIT
// Whole checkpoints of every dialect: a folder with config.json and model.safetensors, or shards
// with their index.
//
//   auto model = load_pretrained<float, bfloat16>("retnet-1.3B-100B");
//   save_pretrained("exported", model, Dialect::torchscale_v2);
//
// Where the file holds the weights in the type asked for they are not copied: the model reads them
// in the mapped file.
#pragma once

#include <string>

#include "retnet/io/detail/pretrained_read.hpp"
#include "retnet/io/detail/pretrained_write.hpp"
#include "retnet/io/pretrained_options.hpp"

namespace retnet::inline RETNET_ABI {

/// What a checkpoint is, without its numbers: reads config.json and the headers, nothing more, and
/// checks that the tensors are those of the config. `path`: a folder, a safetensors file in it, or
/// an index. Throws std::invalid_argument naming everything that is unknown, missing, misshapen or
/// not run here, std::system_error when a file cannot be read.
inline PretrainedInfo inspect_pretrained(const std::string& path, const LoadOptions& options = {}) {
  return detail::open_checkpoint(path, options).info;
}

/// The model of a checkpoint, with weights of any float type as `Weight`. If that is what the file
/// holds, the weights stay there (weight_buffer().borrows()) and the file must stay as it is while
/// the model or a copy of it lives; AtomicFile may replace it, nobody may write into it. Otherwise
/// they are converted one by one. Throws as inspect_pretrained does. `info` may be null.
template <ComputeScalar Scalar, class Weight = Scalar>
RetNetModel<Scalar, Weight> load_pretrained(const std::string& path,
                                            const LoadOptions& options = {},
                                            PretrainedInfo* info = nullptr) {
  detail::OpenCheckpoint open = detail::open_checkpoint(path, options);
  auto model = detail::borrow_weights<Scalar, Weight>(open);
  if (!model) model = detail::convert_weights<Scalar, Weight>(open);
  if (info != nullptr) *info = std::move(open.info);
  return *std::move(model);
}

/// Writes config.json and model.safetensors into the folder, or shards and their index; the folder
/// is made if it is not there. Each file is written whole or not at all, the config last. Dialect
/// retnet keeps the config in the file and writes no config.json. Throws std::invalid_argument
/// naming the field of the config that the dialect cannot express, std::system_error naming the
/// file that cannot be written.
template <ComputeScalar Scalar, class Weight>
void save_pretrained(const std::string& folder, const RetNetModel<Scalar, Weight>& model,
                     Dialect dialect, const SaveOptions& options = {}) {
  const Dtype storage = options.dtype.value_or(dtype_of<Weight>());
  const std::string config = dialect_config_to_json(model.config(), dialect, storage);
  detail::write_checkpoint(folder, model.config(), model.layout(), model.weight_buffer(), dialect,
                           config, storage, options.max_shard_bytes);
}

}  // namespace retnet::inline RETNET_ABI
