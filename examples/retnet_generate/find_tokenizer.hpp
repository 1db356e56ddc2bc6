// SPDX-License-Identifier: MIT
// The tokenizer of a model: named, or in the model's folder, or bytes.
#pragma once

#include <memory>

#include "retnet/tokenizers/tokenizer.hpp"
#include "retnet_generate/options.hpp"

namespace retnet_generate {

// Throws std::invalid_argument if there is none, or one for another number of tokens than `vocab`,
// and what load_tokenizer throws.
std::unique_ptr<retnet::Tokenizer> find_tokenizer(const Options& o, Index vocab);

}  // namespace retnet_generate
