// SPDX-License-Identifier: MIT
// The enumerators of a config as words. Each list is a switch, so that the compiler names the
// enumerator that a list forgets; the enumerators of each enum are numbered from 0.
#pragma once

#include <string>
#include <string_view>

#include "retnet/model/config.hpp"

namespace retnet::inline RETNET_ABI::detail {

constexpr const char* word(DecayKind kind) {
  switch (kind) {
    case DecayKind::pow2: return "pow2";
    case DecayKind::linspace: return "linspace";
    case DecayKind::values: return "values";
    case DecayKind::gated: return "gated";
  }
  return nullptr;
}
constexpr const char* word(ThetaKind kind) {
  switch (kind) {
    case ThetaKind::inclusive: return "inclusive";
    case ThetaKind::rotary: return "rotary";
    case ThetaKind::values: return "values";
  }
  return nullptr;
}
constexpr const char* word(ScaleOn side) {
  switch (side) {
    case ScaleOn::key: return "key";
    case ScaleOn::query: return "query";
    case ScaleOn::none: return "none";
  }
  return nullptr;
}
constexpr const char* word(Normalization kind) {
  switch (kind) {
    case Normalization::none: return "none";
    case Normalization::row_sum: return "row_sum";
    case Normalization::paper_score: return "paper_score";
    case Normalization::torchscale: return "torchscale";
    case Normalization::torchscale_v1: return "torchscale_v1";
  }
  return nullptr;
}
constexpr const char* word(Affine kind) {
  switch (kind) {
    case Affine::none: return "none";
    case Affine::per_head_dim: return "per_head_dim";
    case Affine::per_channel: return "per_channel";
  }
  return nullptr;
}
constexpr const char* word(RotationLayout layout) {
  switch (layout) {
    case RotationLayout::none: return "none";
    case RotationLayout::interleaved: return "interleaved";
    case RotationLayout::half_split: return "half_split";
  }
  return nullptr;
}
constexpr const char* word(NormKind kind) {
  switch (kind) {
    case NormKind::none: return "none";
    case NormKind::rms: return "rms";
    case NormKind::layer: return "layer";
  }
  return nullptr;
}
constexpr const char* word(Activation kind) {
  switch (kind) {
    case Activation::identity: return "identity";
    case Activation::relu: return "relu";
    case Activation::gelu: return "gelu";
    case Activation::swish: return "swish";
    case Activation::sigmoid: return "sigmoid";
    case Activation::gelu_tanh: return "gelu_tanh";
  }
  return nullptr;
}
constexpr const char* word(FeedForwardKind kind) {
  switch (kind) {
    case FeedForwardKind::mlp: return "mlp";
    case FeedForwardKind::glu: return "glu";
  }
  return nullptr;
}
constexpr const char* word(Residual kind) {
  switch (kind) {
    case Residual::pre: return "pre";
    case Residual::post: return "post";
    case Residual::branch: return "branch";
    case Residual::parallel: return "parallel";
  }
  return nullptr;
}
constexpr const char* word(Init::Kind kind) {
  switch (kind) {
    case Init::Kind::zeros: return "zeros";
    case Init::Kind::ones: return "ones";
    case Init::Kind::normal: return "normal";
    case Init::Kind::xavier_uniform: return "xavier_uniform";
    case Init::Kind::kaiming_uniform: return "kaiming_uniform";
  }
  return nullptr;
}

/// False if there is no enumerator of that word.
template <class E>
bool from_word(std::string_view text, E& value) {
  for (int i = 0; word(static_cast<E>(i)) != nullptr; ++i) {
    if (text != word(static_cast<E>(i))) continue;
    value = static_cast<E>(i);
    return true;
  }
  return false;
}

/// "none, rms, layer"
template <class E>
std::string all_words() {
  std::string text;
  for (int i = 0; word(static_cast<E>(i)) != nullptr; ++i) {
    if (i > 0) text += ", ";
    text += word(static_cast<E>(i));
  }
  return text;
}

}  // namespace retnet::inline RETNET_ABI::detail
