// SPDX-License-Identifier: MIT
// Reads a prompt chunk by chunk, then draws one token at a time; the state keeps its size. The
// bodies, in generation_impl.hpp, are compiled once for each type of weights.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "retnet/core/scalar.hpp"
#include "retnet/io/dtype.hpp"
#include "retnet_generate/options.hpp"

namespace retnet_generate {

using Token = std::int32_t;

struct Job {
  std::vector<Token> prompt = {};
  std::vector<Token> stop = {};            // ids that end the text
  std::function<bool(Token)> emit = {};    // false: enough
  std::function<bool()> interrupted = {};  // asked between tokens
};

struct Rate {
  Index tokens = 0;
  double seconds = 0.0;
};
struct Rates {
  Rate prompt, generated;
};

struct ModelFacts {
  Index vocab = 0;
  retnet::Dtype dtype = retnet::Dtype::f32;
};
// From the headers of the checkpoint. Throws what inspect_pretrained throws.
ModelFacts inspect(const Options& o);

// Loads the model and runs it, bfloat16 weights as they are.
Rates generate(const Options& o, retnet::Dtype stored, const Job& job);
// The same with the types given.
template <class Weight>
Rates generate_with(const Options& o, const Job& job);

extern template Rates generate_with<float>(const Options&, const Job&);
extern template Rates generate_with<retnet::bfloat16>(const Options&, const Job&);

}  // namespace retnet_generate
