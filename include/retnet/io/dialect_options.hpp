// SPDX-License-Identifier: MIT
// The dialects of published checkpoints, and how one is read.
#pragma once

#include "retnet/version.hpp"

namespace retnet::inline RETNET_ABI {

enum class Dialect { retnet, torchscale_v1, torchscale_v2, syncdoth, xatl, fla };

/// exact:      one function in every form: what the recurrent form of the original computes.
/// reference:  the scaling of the original, which is another in each of its forms
///             (Normalization::torchscale). Nothing differs for a dialect without that scaling.
enum class Compat { exact, reference };

struct DialectOptions {
  Compat compat = Compat::exact;
  bool ignore_unknown_keys = false;  // false: a key that nobody knows is an error
};

namespace detail {

constexpr const char* word(Dialect dialect) {
  switch (dialect) {
    case Dialect::retnet: return "retnet";
    case Dialect::torchscale_v1: return "torchscale_v1";
    case Dialect::torchscale_v2: return "torchscale_v2";
    case Dialect::syncdoth: return "syncdoth";
    case Dialect::xatl: return "xatl";
    case Dialect::fla: return "fla";
  }
  return nullptr;
}

inline bool is_hugging_face(Dialect dialect) {
  return dialect == Dialect::syncdoth || dialect == Dialect::xatl || dialect == Dialect::fla;
}

}  // namespace detail

}  // namespace retnet::inline RETNET_ABI
