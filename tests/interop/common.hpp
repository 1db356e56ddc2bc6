// SPDX-License-Identifier: MIT
// What writer and reader share: how logits are named and computed.
//
//   logits.<compat>.<form>   [B,T,V] F32, compat: exact, reference; form: parallel, recurrent,
//                            chunkwise
#pragma once

#include <array>
#include <string>
#include <utility>

#include "golden/archive.hpp"
#include "retnet/io/pretrained.hpp"

namespace retnet::interop {

inline constexpr Index kChunk = 16;

inline const std::array<std::pair<const char*, Form>, 3> kForms = {
    std::pair{"parallel", Form::parallel()}, std::pair{"recurrent", Form::recurrent()},
    std::pair{"chunkwise", Form::chunkwise(kChunk)}};

template <class W>
Buffer<float> logits_of(const RetNetModel<float, W>& model, Form form, const golden::Array& ids) {
  const Index batch = ids.shape.at(0), tokens = ids.shape.at(1), vocab = model.config().vocab;
  Buffer<Token> in(ids.size());
  for (Index i = 0; i < ids.size(); ++i)
    in[i] = static_cast<Token>(ids.values[static_cast<std::size_t>(i)]);
  Buffer<float> out(batch * tokens * vocab);
  Cpu ctx;
  model.forward(ctx, model.weights(), Pass{form, Sequences::dense(batch, tokens)},
                TokenView(in.data(), {batch, tokens}), nullptr,
                View<float, 3>(out.data(), {batch, tokens, vocab}));
  return out;
}

inline std::string logits_key(Compat compat, const std::string& form) {
  return std::string("logits.") + (compat == Compat::exact ? "exact." : "reference.") + form;
}

}  // namespace retnet::interop
