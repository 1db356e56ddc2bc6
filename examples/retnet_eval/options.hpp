// SPDX-License-Identifier: MIT
// What retnet_eval shall do.
#pragma once

#include <string>

#include "retnet/io/dialect_options.hpp"
#include "retnet/layers/pass.hpp"

namespace retnet_eval {

using retnet::Index;

enum class Precision { float32, float64 };

struct Options {
  std::string model;
  std::string input, output;
  std::string ids = "input_ids";
  std::string mask, cu_seqlens;  // names of tensors; empty: dense sequences
  retnet::Form form = retnet::Form::chunkwise();
  retnet::Compat compat = retnet::Compat::exact;
  Precision precision = Precision::float32;
  Index greedy = 0;  // tokens to append; 0: logits instead
  bool loss = false;
  bool gradient = false;
  int threads = 1;
};

}  // namespace retnet_eval
