// SPDX-License-Identifier: MIT
// What retnet_convert shall do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "retnet/io/dialect_options.hpp"
#include "retnet/io/dtype.hpp"

namespace retnet_convert {

struct Options {
  std::string from, to;
  std::optional<retnet::Dialect> dialect;
  std::optional<retnet::Dtype> dtype;  // none: as it was
  std::uint64_t max_shard = 5'000'000'000;
  retnet::Compat compat = retnet::Compat::exact;
  bool force = false;
  bool inspect = false;
};

}  // namespace retnet_convert
