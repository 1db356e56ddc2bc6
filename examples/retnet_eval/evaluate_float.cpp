// SPDX-License-Identifier: MIT
// retnet_eval in float with weights in float, and the choice between the types.
#include "retnet_eval/evaluation_impl.hpp"

template retnet_eval::Outputs retnet_eval::evaluate_as<float, float>(const Options&, const Inputs&);

retnet_eval::Outputs retnet_eval::evaluate(const Options& o, const Inputs& in) {
  if (o.precision == Precision::float64) return evaluate_as<double, double>(o, in);
  const auto stored = retnet::inspect_pretrained(o.model, {.compat = o.compat}).dtype;
  const bool as_stored = stored == retnet::Dtype::bf16 && !o.gradient;
  return as_stored ? evaluate_as<float, retnet::bfloat16>(o, in) : evaluate_as<float, float>(o, in);
}
