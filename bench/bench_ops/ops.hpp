// SPDX-License-Identifier: MIT
// The parts of bench_ops, each in its own file; main.cpp says what the program measures.
#pragma once

#include "problems.hpp"
#include "report.hpp"

namespace bench {

void add_retention(const Flags& flags);
void add_steps(const Flags& flags);
void add_linear(const Flags& flags);
void add_elementwise(const Flags& flags);
void add_attention(const Flags& flags);
void add_accuracy(const Flags& flags);

}  // namespace bench
