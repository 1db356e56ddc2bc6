// SPDX-License-Identifier: MIT
// The model that the files of the safetensors target are of: as small as can be, with a layer of
// each kind, and a state of two sequences.
#pragma once

#include "retnet/model/retnet_model.hpp"

namespace retnet::fuzz {

inline RetNetConfig small_config() {
  RetNetConfig c{.vocab = 3, .d_model = 2, .layers = 2};
  c.retention.heads = 1;
  c.retention.normalization = Normalization::paper_score;  // has key sums
  c.feed_forward.hidden = 1;
  AttentionConfig attention{.heads = 1};
  attention.window = 3;
  c.attention = {{.layer = 1, .attention = attention}};
  return c;
}
inline constexpr Index kSmallSequences = 2;

}  // namespace retnet::fuzz
