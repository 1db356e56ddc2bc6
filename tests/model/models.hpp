// SPDX-License-Identifier: MIT
// Small models of every preset, and what distinguishes their configs.
#pragma once

#include <string>
#include <vector>

#include "layers/variants.hpp"
#include "retnet/model/retnet_model.hpp"

namespace retnet::test {

inline constexpr Index kVocab = 17;

struct NamedModel {
  std::string name;
  RetNetConfig config;
};

inline std::vector<NamedModel> models() {
  const ModelSize size{.vocab = kVocab, .d_model = 16, .layers = 2, .heads = 4};
  std::vector<NamedModel> out{{"paper", presets::paper(size)},
                              {"torchscale_v2", presets::torchscale_v2(size)},
                              {"fla", presets::fla(size)}};
  out.back().config.feed_forward.hidden = 24;  // the preset's 256 is most of so small a model
  const auto add = [&](const char* name, const RetNetConfig& base, auto&& change) {
    out.push_back({name, base});
    change(out.back().config);
  };
  add("paper_tied_scaled", presets::paper(size), [](auto& c) {
    c.tied_output = true;
    c.scale_embedding = true;
  });
  add("torchscale_v2_embedding_norm", presets::torchscale_v2(size), [](auto& c) {
    c.embedding_norm = true;
    c.scale_embedding = true;
    c.retention.decay = DecayKind::linspace;
  });
  add("torchscale_v2_deepnorm_post", presets::torchscale_v2(size), [](auto& c) {
    c.deepnorm = true;
    c.residual = Residual::post;
    c.final_norm = false;
  });
  add("fla_tied_shared_keys", presets::fla(size), [](auto& c) {
    c.tied_output = true;
    c.retention.kv_heads = 2;
    c.feed_forward.hidden = 20;
  });
  add("paper_score", presets::paper(size), [](auto& c) {
    c.retention.normalization = Normalization::paper_score;
    c.retention.bias = true;
    c.feed_forward.bias = true;
    c.deepnorm = true;
  });
  add("gated", presets::torchscale_v2(size), [](auto& c) {
    c.retention.decay = DecayKind::gated;
    c.retention.normalization = Normalization::none;
    c.embedding_norm = true;
    c.tied_output = true;
  });
  out.push_back({"torchscale_v1", presets::torchscale_v1(size)});
  out.push_back({"syncdoth", presets::syncdoth(size)});
  add("xatl", presets::xatl(size), [](auto& c) {
    c.residual = Residual::parallel;
    c.ffn_norm = false;
    c.retention.d_value = 16;
    c.retention.bottleneck = 6;
    c.retention.rotary_dim = 2;
    c.output_bias = true;
    c.feed_forward.activation = Activation::gelu_tanh;
  });
  add("yar", presets::yar(size), [](auto& c) {
    c.residual = Residual::branch;
    c.feed_forward.hidden = 24;
  });
  out.push_back({"jamie", presets::jamie(size)});
  // Stacks that are not retention alone.
  add("hybrid", presets::fla(size), [](auto& c) {
    c.layers = 3;
    c.feed_forward.hidden = 24;
    c.attention = {{1, {.heads = 4, .kv_heads = 2, .qkv_bias = true}},
                   {2, {.heads = 2, .window = 7, .qk_norm = true, .qk_norm_eps = 0.1}}};
  });
  out.push_back({"yoco", presets::yoco({.vocab = kVocab, .d_model = 16, .layers = 4, .heads = 4})});
  out.back().config.feed_forward.hidden = 24;
  add("cross_decoder", out.back().config, [](auto& c) {
    c.cross_decoder.attention.kv_heads = 2;
    c.deepnorm = true;
  });
  return out;
}

/// Whether the state is of constant size, and has a gradient.
inline bool only_retention(const RetNetConfig& config) {
  return config.attention.empty() && config.cross_decoder.layers == 0;
}

/// The same with head norms that are smooth and well conditioned, for finite differences and float.
inline std::vector<NamedModel> smooth_models() {
  auto out = models();
  for (auto& m : out) m.config.norm_eps = 0.1, m.config.retention.head_norm_eps = 1.0;
  return out;
}

template <class S>
RetNetModel<S> random_model(const RetNetConfig& config) {
  const RetNetModel<S> fresh(config);
  return RetNetModel<S>(config, random_weights<S>(fresh.layout()));
}

/// Logits [rows, V].
template <class S, class W, class Context>
Buffer<S> logits(Context& ctx, const RetNetModel<S, W>& model, Form form,
                 const Sequences& sequences, const Buffer<Token>& tokens,
                 ModelState<S>* state = nullptr) {
  const Index vocab = model.config().vocab;
  Buffer<S> out(tokens.size() * vocab);
  model.forward(ctx, model.weights(), Pass{form, sequences},
                TokenView(tokens.data(), {1, tokens.size()}), state,
                View<S, 3>(out.data(), {1, tokens.size(), vocab}));
  return out;
}

/// Worst error of the tokens remembered; infinity if one cache has others than the other.
template <class S>
double state_error(const KeyValueState<S>& given, const KeyValueState<S>& expected) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (given.sequences() != expected.sequences()) return kInfinity;
  double worst = 0.0;
  for (Index i = 0; i < given.sequences(); ++i) {
    const auto a = given.past(i), b = expected.past(i);
    if (a.length != b.length) return kInfinity;
    for (Index t = 0; t < a.length; ++t) {
      const auto row = [&](const auto& past, const auto& cache) {
        return std::span<const S>(cache.row((past.first + t) % cache.rows),
                                  static_cast<std::size_t>(cache.cols));
      };
      worst = std::fmax(worst, relative_error(row(a, a.keys), row(b, b.keys)));
      worst = std::fmax(worst, relative_error(row(a, a.values), row(b, b.values)));
    }
  }
  return worst;
}
template <class S>
double state_error(const LayerState<S>& given, const LayerState<S>& expected) {
  if (given.index() != expected.index()) return std::numeric_limits<double>::infinity();
  if (given.index() == 0) return state_error(given.retention(), expected.retention());
  return state_error(given.keys_and_values(), expected.keys_and_values());
}

template <class S>
double model_state_error(const ModelState<S>& given, const ModelState<S>& expected) {
  double worst =
      given.layers.size() == expected.layers.size() ? 0.0 : std::numeric_limits<double>::infinity();
  for (std::size_t l = 0; l < expected.layers.size(); ++l)
    worst = std::fmax(worst, state_error(given.layers[l], expected.layers[l]));
  return std::fmax(worst, state_error(given.cross, expected.cross));
}

template <class S>
bool same_model_state(const ModelState<S>& a, const ModelState<S>& b) {
  return state_error(a.cross, b.cross) == 0.0 &&
         std::ranges::equal(a.layers, b.layers, [](const auto& x, const auto& y) {
           if (x.index() != y.index()) return false;
           return x.index() == 0 ? same_state(x.retention(), y.retention())
                                 : state_error(x, y) == 0.0;
         });
}

}  // namespace retnet::test
