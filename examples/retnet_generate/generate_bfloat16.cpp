// SPDX-License-Identifier: MIT
// retnet_generate with weights in bfloat16, where they are in the file.
#include "retnet_generate/generation_impl.hpp"

template retnet_generate::Rates retnet_generate::generate_with<retnet::bfloat16>(const Options&,
                                                                                 const Job&);
