// SPDX-License-Identifier: MIT
// How a checkpoint is read and written, and what it is.
#pragma once

#include <cstdint>
#include <optional>

#include "retnet/io/dialect_options.hpp"
#include "retnet/io/dtype.hpp"
#include "retnet/io/key_map.hpp"
#include "retnet/model/config.hpp"

namespace retnet::inline RETNET_ABI {

struct LoadOptions {
  std::optional<Dialect> dialect = {};  // none: detected
  Compat compat = Compat::exact;
  bool ignore_unknown_keys = false;  // of config.json; tensors are always all known
};

/// What a checkpoint is.
struct PretrainedInfo {
  Dialect dialect = Dialect::retnet;
  RetNetConfig config = {};
  Dtype dtype = Dtype::f32;  // of the weights; the widest of them if they differ
  Index parameters = 0;
  std::size_t files = 0;
  KeyMap keys = {};
};

struct SaveOptions {
  std::optional<Dtype> dtype = {};  // of the tensors: F64, F32, F16 or BF16; none: as the model's
  std::uint64_t max_shard_bytes = 5'000'000'000;
};

}  // namespace retnet::inline RETNET_ABI
