// SPDX-License-Identifier: MIT
// retnet_eval in double.
#include "retnet_eval/evaluation_impl.hpp"

template retnet_eval::Outputs retnet_eval::evaluate_as<double, double>(const Options&,
                                                                       const Inputs&);
