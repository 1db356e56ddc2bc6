// SPDX-License-Identifier: MIT
// The model of the two programs beside this: 380 million parameters that look random and cost nothing
// to make. The time of a step depends on their spread, not on their values.
#pragma once

#include "retnet/cuda/host.cuh"

namespace bench {

inline retnet::RetNetModel<float, retnet::bfloat16> model_380m() {
  using namespace retnet;
  const auto config = presets::fla({.vocab = 32000, .d_model = 1024, .layers = 24, .heads = 4});
  const auto shape = RetNetModel<float, bfloat16>::without_weights(config);
  ParamBuffer<bfloat16> weights(shape.layout());
  std::uint32_t x = 1;
  for (const auto& e : shape.layout().entries())
    for (Index i = 0; i < e.place.size(); ++i) {
      x = x * 1664525u + 1013904223u;
      const float uniform = static_cast<float>(x >> 8) / 8388608.0f - 1.0f;
      weights.flat()[static_cast<std::size_t>(e.place.offset + i)] =
          bfloat16(e.place.rows > 1 ? 0.0346f * uniform : 1.0f);  // deviation 0.02; norms 1
    }
  return shape.with_weights(std::move(weights));
}

}  // namespace bench
