// SPDX-License-Identifier: MIT
// retnet_generate with weights in float, and the choice between the types.
#include "retnet_generate/generation_impl.hpp"

namespace retnet_generate {

template Rates generate_with<float>(const Options&, const Job&);

ModelFacts inspect(const Options& o) {
  const auto info = retnet::inspect_pretrained(o.model);
  return {info.config.vocab, info.dtype};
}

Rates generate(const Options& o, retnet::Dtype stored, const Job& job) {
  return stored == retnet::Dtype::bf16 ? generate_with<retnet::bfloat16>(o, job)
                                       : generate_with<float>(o, job);
}

}  // namespace retnet_generate
