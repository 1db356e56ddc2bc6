// SPDX-License-Identifier: MIT
// What retnet_eval computes. The bodies, in evaluation_impl.hpp, are compiled once for each pair of
// scalar and weight, each in a file of its own.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "retnet_eval/inputs.hpp"
#include "retnet_eval/options.hpp"

namespace retnet_eval {

struct Gradient {
  std::vector<Index> shape;
  std::vector<float> values;
};

// What was not asked for is empty.
struct Outputs {
  Index vocab = 0;
  std::vector<float> logits;            // [B,T,V]
  std::vector<std::int64_t> generated;  // [B,T+N]
  std::optional<retnet::LossSum> loss;
  std::map<std::string, Gradient> gradients;  // by the keys of the model's file
};

// Loads the model and runs it in the precision asked for, bfloat16 weights as they are unless a
// gradient is asked for. Throws what load_pretrained and RetNetModel throw.
Outputs evaluate(const Options& o, const Inputs& in);

// The same with the types given.
template <class Scalar, class Weight>
Outputs evaluate_as(const Options& o, const Inputs& in);

extern template Outputs evaluate_as<float, float>(const Options&, const Inputs&);
extern template Outputs evaluate_as<float, retnet::bfloat16>(const Options&, const Inputs&);
extern template Outputs evaluate_as<double, double>(const Options&, const Inputs&);

}  // namespace retnet_eval
