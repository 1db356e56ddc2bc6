// SPDX-License-Identifier: MIT
// retnet_eval in float with weights in bfloat16, where they are in the file.
#include "retnet_eval/evaluation_impl.hpp"

template retnet_eval::Outputs retnet_eval::evaluate_as<float, retnet::bfloat16>(const Options&,
                                                                                const Inputs&);
