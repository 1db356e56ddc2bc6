// SPDX-License-Identifier: MIT
// The table of retention configs: every pair of values of two fields occurs in one of them.
//
// Two fields that exclude some of each other's values (decay and normalisation, head norm and its
// weight) are one field here.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/layers/config.hpp"
#include "retnet/layers/pass.hpp"
#include "support/compare.hpp"
#include "support/random.hpp"

namespace retnet::test {

struct Variant {
  std::string name;
  RetentionConfig config;
};

namespace detail {

inline constexpr Index kHeads = 4;

using Choice = std::vector<std::size_t>;  // the value of each field
using Fields = std::vector<std::size_t>;  // how many values each field has

inline Fields variant_fields() { return {10, 9, 6, 7, 3, 3, 2, 3, 4, 2}; }

inline Variant make_variant(const Choice& c) {
  static constexpr std::array kNormalizations{Normalization::none, Normalization::row_sum,
                                              Normalization::paper_score};
  static constexpr std::array kDecays{DecayKind::pow2, DecayKind::linspace, DecayKind::values};
  static constexpr std::array kActivations{Activation::swish,   Activation::swish,
                                           Activation::gelu,    Activation::relu,
                                           Activation::sigmoid, Activation::identity};
  static constexpr std::array kThetas{ThetaKind::inclusive, ThetaKind::rotary, ThetaKind::values};
  static constexpr std::array<std::array<Index, 2>, 3> kDims{{{2, 3}, {20, 43}, {16, 8}}};
  static constexpr std::array kScales{ScaleOn::key, ScaleOn::query, ScaleOn::none};
  static constexpr std::array<const char*, 10> kNames{
      "norm", "head", "gate", "rotation", "kv", "dims", "bias", "scale", "turn", "bottleneck"};
  Variant v;
  for (std::size_t f = 0; f < c.size(); ++f)
    v.name += (f ? "_" : "") + std::string(kNames[f]) + std::to_string(c[f]);
  auto& config = v.config;
  config.d_model = 12;
  config.heads = kHeads;
  config.d_key = kHeads * kDims[c[5]][0];
  config.d_value = kHeads * kDims[c[5]][1];

  if (c[0] == 9) {
    config.normalization = Normalization::none;
    config.decay = DecayKind::gated;
    config.gate_divisor = 4.0;
  } else {
    config.normalization = kNormalizations[c[0] / 3];
    config.decay = kDecays[c[0] % 3];
    if (config.decay == DecayKind::values) config.gamma = {0.01, 0.6, 0.97, 1.0};
  }
  config.head_norm = c[1] == 0 ? NormKind::none : c[1] <= 3 ? NormKind::rms : NormKind::layer;
  config.head_norm_bias = c[1] > 6;
  config.head_norm_affine = c[1] == 0   ? Affine::none
                            : c[1] == 7 ? Affine::per_head_dim
                            : c[1] == 8 ? Affine::per_channel
                                        : static_cast<Affine>((c[1] - 1) % 3);
  // Three values, or one token's with a gamma of 0.01, may all be near zero in a head; eps bounds
  // by how much the head norm magnifies their rounding.
  if (c[5] == 0 || config.decay == DecayKind::values) config.head_norm_eps = 1e-2;
  config.gate = c[2] != 0;
  config.gate_activation = kActivations[c[2]];
  config.rotation = c[3] == 0   ? RotationLayout::none
                    : c[3] <= 3 ? RotationLayout::interleaved
                                : RotationLayout::half_split;
  if (c[3] > 0) config.theta = kThetas[(c[3] - 1) % 3];
  if (c[3] > 0 && c[8] % 2 == 1) config.rotary_dim = (config.key_dim() / 2 + 1) / 2 * 2;
  if (c[3] > 0 && c[8] >= 2) config.xpos_base = 32.0;
  if (config.theta == ThetaKind::values)
    for (Index i = 0; i < config.rotary() / 2; ++i)
      config.theta_values.push_back(1.3 - 0.15 * static_cast<double>(i));
  config.kv_heads = std::array<Index, 3>{0, 2, 1}[c[4]];
  config.bias = c[6] == 1;
  config.scale_on = kScales[c[7]];
  config.bottleneck = c[9] == 1 ? 7 : 0;
  return v;
}

/// Greedy: start from a pair that is missing, fill the rest with what adds most missing pairs.
inline std::vector<Choice> all_pairs(const Fields& fields) {
  using Pair = std::array<std::size_t, 4>;
  std::set<Pair> missing;
  const auto pair = [](std::size_t f, std::size_t a, std::size_t g, std::size_t b) {
    return f < g ? Pair{f, a, g, b} : Pair{g, b, f, a};
  };
  for (std::size_t f = 0; f < fields.size(); ++f)
    for (std::size_t g = f + 1; g < fields.size(); ++g)
      for (std::size_t a = 0; a < fields[f]; ++a)
        for (std::size_t b = 0; b < fields[g]; ++b) missing.insert({f, a, g, b});
  std::vector<Choice> out;
  while (!missing.empty()) {
    constexpr std::size_t kOpen = static_cast<std::size_t>(-1);
    Choice choice(fields.size(), kOpen);
    const Pair start = *missing.begin();
    choice[start[0]] = start[1];
    choice[start[2]] = start[3];
    for (std::size_t f = 0; f < fields.size(); ++f) {
      if (choice[f] != kOpen) continue;
      std::size_t best = 0, most = 0;
      for (std::size_t i = 0; i < fields[f]; ++i) {
        const std::size_t value = (i + out.size()) % fields[f];
        std::size_t gain = 1;
        for (std::size_t g = 0; g < fields.size(); ++g)
          if (choice[g] != kOpen) gain += missing.count(pair(f, value, g, choice[g]));
        if (gain > most) best = value, most = gain;
      }
      choice[f] = best;
    }
    for (std::size_t f = 0; f < fields.size(); ++f)
      for (std::size_t g = f + 1; g < fields.size(); ++g)
        missing.erase({f, choice[f], g, choice[g]});
    out.push_back(choice);
  }
  return out;
}

}  // namespace detail

/// Every pair of field values, and shapes that the pairs leave out.
inline const std::vector<Variant>& variants() {
  static const std::vector<Variant> table = [] {
    std::vector<Variant> out;
    for (const auto& choice : detail::all_pairs(detail::variant_fields()))
      out.push_back(detail::make_variant(choice));
    RetentionConfig odd{.d_model = 7, .heads = 3, .d_key = 21, .d_value = 15};
    odd.rotation = RotationLayout::none;
    out.push_back({"odd_keys", odd});
    out.push_back({"one_head", {.d_model = 6, .heads = 1}});
    out.push_back({"wide", {.d_model = 33, .heads = 2, .d_key = 320, .d_value = 128}});
    return out;
  }();
  return table;
}

/// A few of them, for tests that are about something else: every normalisation and decay, shared
/// key heads, both rotations.
inline std::vector<Variant> some_variants() {
  std::vector<Variant> out;
  const auto add = [&](const char* name, auto&& change) {
    Variant v{name, {.d_model = 12, .heads = 4, .d_key = 32, .d_value = 44}};
    v.config.head_norm_eps = 1e-3;
    change(v.config);
    out.push_back(v);
  };
  add("row_sum", [](auto&) {});
  add("paper_score", [](auto& c) {
    c.normalization = Normalization::paper_score;
    c.decay = DecayKind::linspace;
    c.bias = true;
  });
  add("fla", [](auto& c) {
    c.normalization = Normalization::none;
    c.rotation = RotationLayout::half_split;
    c.theta = ThetaKind::rotary;
    c.head_norm_affine = Affine::per_head_dim;
    c.kv_heads = 2;
  });
  add("gated", [](auto& c) {
    c.normalization = Normalization::none;
    c.decay = DecayKind::gated;
    c.kv_heads = 1;
  });
  add("values", [](auto& c) {
    c.decay = DecayKind::values;
    c.gamma = {0.01, 0.6, 0.97, 1.0};
    c.head_norm = NormKind::layer;
    c.head_norm_eps = 1e-2;
    c.head_norm_affine = Affine::per_channel;
  });
  return out;
}

/// Numbers of order one in every place: no weight is at the value that hides it.
template <class S>
ParamBuffer<S> random_weights(const ParamLayout& layout) {
  ParamBuffer<S> out(layout);
  std::uint64_t stream = 1000;
  for (const auto& entry : layout.entries()) {
    const Window<S> w = out[entry.place];
    const std::span<S> flat(w.data, static_cast<std::size_t>(entry.place.size()));
    if (entry.name.ends_with(".bias")) {
      fill_normal(flat, stream, 0.3);
    } else if (entry.place.rows == 1 && entry.name.find("norm") != std::string::npos) {
      fill_uniform(flat, stream, 0.5, 1.5);
    } else {
      fill_normal(flat, stream, 1.0 / std::sqrt(static_cast<double>(entry.place.cols)));
    }
    ++stream;
  }
  return out;
}

/// A layer with such weights. Layer is MultiScaleRetention or another with the same constructors.
template <class Layer, class Config>
Layer random_layer(const Config& config) {
  using S = std::remove_cvref_t<decltype(*std::declval<Layer>().weights().flat())>;
  return Layer(config, random_weights<std::remove_const_t<S>>(Layer(config).layout()));
}

/// y of the rows x, [rows, C].
template <class Layer, class Context, class S>
Buffer<S> run(Context& ctx, const Layer& layer, Form form, const Sequences& sequences,
              const Buffer<S>& x, typename Layer::State* state = nullptr) {
  Buffer<S> y(x.size());
  const std::array<Index, 3> dims{1, sequences.rows(), x.size() / sequences.rows()};
  layer.forward(ctx, layer.weights(), Pass{form, sequences}, ConstView<S, 3>(x.data(), dims), state,
                View<S, 3>(y.data(), dims));
  return y;
}

/// Infinite where the sequences have seen different numbers of tokens.
template <class State>
double state_error(const State& given, const State& expected) {
  if (!std::ranges::equal(given.positions(), expected.positions()))
    return std::numeric_limits<double>::infinity();
  return relative_error(given.flat(), expected.flat());
}

template <class State>
bool same_state(const State& a, const State& b) {
  return std::ranges::equal(a.positions(), b.positions()) && same_bits(a.flat(), b.flat());
}

/// Rows [first, first + count) of x, rows of `width`.
template <class S>
Buffer<S> rows(const Buffer<S>& x, Index width, Index first, Index count) {
  Buffer<S> out(count * width);
  std::copy_n(x.data() + first * width, count * width, out.data());
  return out;
}

inline std::vector<Form> forms(Index tokens) {
  std::vector<Form> out{Form::parallel(), Form::recurrent()};
  for (const Index chunk : {Index{1}, Index{3}, Index{16}, Index{64}, tokens})
    out.push_back(Form::chunkwise(chunk));
  return out;
}

}  // namespace retnet::test
