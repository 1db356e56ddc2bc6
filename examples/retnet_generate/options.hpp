// SPDX-License-Identifier: MIT
// What retnet_generate shall do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "retnet/model/sampler.hpp"

namespace retnet_generate {

using retnet::Index;

struct Options {
  std::string model;
  std::string tokenizer;  // empty: in the model's folder
  std::string prompt;     // "-": standard input
  retnet::SamplerConfig sampler = {.temperature = 0.8, .top_p = 0.95};
  std::uint64_t seed = 1;
  Index max_tokens = 256;  // 0: no limit
  std::vector<std::string> stop;
  Index chunk = 64;
  int threads = 1;
  bool padded_vocabulary = false;
  bool echo = false;
  bool stats = false;
};

}  // namespace retnet_generate
