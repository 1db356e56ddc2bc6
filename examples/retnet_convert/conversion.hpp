// SPDX-License-Identifier: MIT
// What retnet_convert does.
#pragma once

#include "retnet_convert/options.hpp"

namespace retnet_convert {

// Prints what a checkpoint is.
void inspect(const Options& o);

// Reads, writes, and says what it did; returns the exit code. Throws what load_pretrained and
// save_pretrained throw; the target is as it was then.
int convert(const Options& o);

}  // namespace retnet_convert
