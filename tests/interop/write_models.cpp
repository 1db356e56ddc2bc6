// SPDX-License-Identifier: MIT
// Writes small models in every dialect, and what this library computes on them:
//
//   write_models FOLDER
//
// FOLDER/<dialect>__<name>/ holds what save_pretrained writes, and io.safetensors: input_ids
// [B,T] I64 and the logits of common.hpp. Weights are of order one, norms and biases random.

#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <utility>
#include <vector>

#include "interop/common.hpp"

namespace retnet::interop {
namespace {

struct Written {
  std::string name;
  Dialect dialect;
  RetNetConfig config;
  SaveOptions save = {};
};

constexpr ModelSize kSize{.vocab = 97, .d_model = 48, .layers = 2, .heads = 3};

RetNetConfig preset(Dialect dialect) {
  switch (dialect) {
    case Dialect::torchscale_v1: {
      RetNetConfig c = presets::torchscale_v1(kSize);
      c.feed_forward.sub_norm_eps = c.norm_eps;
      return c;
    }
    case Dialect::torchscale_v2: return presets::torchscale_v2(kSize);
    case Dialect::syncdoth: {
      RetNetConfig c = presets::syncdoth(kSize);
      c.scale_embedding = c.embedding_norm = false;
      return c;
    }
    case Dialect::xatl: return presets::xatl(kSize);
    default: {
      RetNetConfig c = presets::fla(kSize);
      c.feed_forward.hidden = 80;
      return c;
    }
  }
}

void deepnorm(RetNetConfig& c) {
  c.deepnorm = true;
  c.residual = Residual::post;
  c.final_norm = false;
}
void scaled(RetNetConfig& c) { c.scale_embedding = c.embedding_norm = true; }
void tied(RetNetConfig& c) { c.tied_output = true; }
// The network with biases and a norm inside; the Hugging Face dialects run it in this width only.
void two_layers(RetNetConfig& c, NormKind norm) {
  FeedForwardConfig& f = c.feed_forward;
  f = {.d_model = f.d_model, .hidden = c.d_model, .activation = Activation::gelu, .bias = true};
  f.sub_norm = norm;
  f.sub_norm_eps = c.norm_eps;
}

std::vector<Written> all_models() {
  std::vector<Written> out;
  const auto add = [&](Dialect dialect, const char* name,
                       const std::function<void(RetNetConfig&)>& change = {},
                       const SaveOptions& save = {}) {
    out.push_back({name, dialect, preset(dialect), save});
    if (change) change(out.back().config);
  };
  const SaveOptions bf16{.dtype = Dtype::bf16};
  const SaveOptions shards{.max_shard_bytes = 40'000};

  const Dialect v1 = Dialect::torchscale_v1;
  add(v1, "subln");
  add(v1, "deepnorm", [](auto& c) {
    deepnorm(c);
    c.feed_forward.sub_norm = NormKind::none;
  });
  add(v1, "scaled_relu", [](auto& c) {
    scaled(c);
    c.feed_forward.activation = Activation::relu;
    c.feed_forward.sub_norm = NormKind::none;
  });
  add(v1, "tied_bf16", tied, bf16);
  add(v1, "sharded", {}, shards);

  const Dialect v2 = Dialect::torchscale_v2;
  add(v2, "plain");
  add(v2, "reference", [](auto& c) { c.retention.normalization = Normalization::torchscale; });
  add(v2, "tied_scaled_gelu", [](auto& c) {
    tied(c);
    scaled(c);
    c.feed_forward.activation = Activation::gelu;
  });
  add(v2, "deepnorm", deepnorm);
  add(v2, "deepnorm_pre", [](auto& c) { c.deepnorm = true; });
  add(v2, "post_eps", [](auto& c) {
    c.residual = Residual::post;
    c.final_norm = false;
    c.norm_eps = c.retention.head_norm_eps = 1e-5;
  });
  add(v2, "own_decay", [](auto& c) {
    c.retention.decay = DecayKind::values;
    c.retention.gamma = {0.5, 0.9, 0.99};
    c.retention.theta_base = 500.0;
  });
  add(v2, "bf16", {}, bf16);
  add(v2, "sharded_tied", tied, shards);

  const Dialect syncdoth = Dialect::syncdoth;
  add(syncdoth, "plain");
  add(syncdoth, "lm_decay_scaled", [](auto& c) {
    scaled(c);
    c.retention.decay = DecayKind::linspace;
  });
  add(syncdoth, "mlp_layer_norm", [](auto& c) { two_layers(c, NormKind::layer); });
  add(syncdoth, "mlp_rms_norm", [](auto& c) { two_layers(c, NormKind::rms); });
  add(syncdoth, "deepnorm_gelu", [](auto& c) {
    deepnorm(c);
    c.feed_forward.activation = Activation::gelu;
  });
  add(syncdoth, "tied_bf16", tied, bf16);
  add(syncdoth, "sharded", {}, shards);
  add(syncdoth, "sharded_tied", tied, shards);

  const Dialect xatl = Dialect::xatl;
  add(xatl, "plain");
  add(xatl, "stable", [](auto& c) { c.retention.normalization = Normalization::row_sum; });
  add(xatl, "affine_tied_bf16", [](auto& c) {
    tied(c);
    c.retention.head_norm_affine = Affine::per_head_dim;
  }, bf16);
  add(xatl, "biases", [](auto& c) {
    two_layers(c, NormKind::layer);
    c.norm = NormKind::layer;
    c.output_bias = true;
    c.retention.bias = true;
    c.retention.head_norm = NormKind::layer;
    c.retention.head_norm_affine = Affine::per_head_dim;
    c.retention.head_norm_bias = true;
    c.feed_forward.activation = Activation::gelu_tanh;
  });
  add(xatl, "parallel_shared_norm", [](auto& c) {
    c.residual = Residual::parallel;
    c.ffn_norm = false;
    c.retention.rotary_dim = 8;
  });
  add(xatl, "bottleneck_scaled", [](auto& c) {
    scaled(c);
    c.retention.d_value = c.d_model;
    c.retention.bottleneck = 20;
  });
  add(xatl, "no_rotation_deepnorm", [](auto& c) {
    deepnorm(c);
    c.retention.rotation = RotationLayout::none;
  });
  add(xatl, "sharded", {}, shards);

  out.push_back({"hybrid", xatl, dialect_config_from_json(R"({
      "decoder_embed_dim": 48, "decoder_value_embed_dim": 48, "decoder_ffn_embed_dim": 60,
      "decoder_retention_heads": 3, "decoder_layers": 3, "vocab_size": 97, "use_bias": true,
      "activation_fn": "swish", "hybrid_attention_layers": [1],
      "rotary_percentage": 0.5})", xatl)});

  const Dialect fla = Dialect::fla;
  add(fla, "plain");
  add(fla, "tied", tied);
  add(fla, "grouped", [](auto& c) {
    c.retention.heads = 4;
    c.retention.kv_heads = 2;
    c.retention.d_key = c.d_model = c.feed_forward.d_model = c.retention.d_model = 64;
    c.retention.d_value = 128;
  });
  add(fla, "narrow", [](auto& c) {  // expand_k 2/3, expand_v 1, no weight in the head norm
    c.retention.d_key = 48 * 2 / 3;
    c.retention.heads = 2;
    c.retention.d_value = 48;
    c.retention.head_norm_affine = Affine::none;
  });
  add(fla, "no_gate", [](auto& c) { c.retention.gate = false; });
  add(fla, "eps", [](auto& c) { c.norm_eps = c.retention.head_norm_eps = 1e-3; });
  add(fla, "bf16", {}, bf16);
  add(fla, "sharded", {}, shards);
  add(fla, "sharded_tied_bf16", tied,
      {.dtype = Dtype::bf16, .max_shard_bytes = 20'000});
  out.push_back({"hybrid", fla, dialect_config_from_json(R"({
      "hidden_size": 64, "intermediate_size": 80, "num_heads": 4, "num_hidden_layers": 3,
      "vocab_size": 97, "attn": {"layers": [1], "num_heads": 4, "num_kv_heads": 2,
      "window_size": 20, "qkv_bias": true, "rope_theta": 50000.0}})", fla)});
  return out;
}

// Matrices keep the size of what they multiply, the rest are numbers around what they are without
// training.
ParamBuffer<float> random_weights(const ParamLayout& layout, Seed seed) {
  ParamBuffer<float> out(layout);
  std::uint64_t stream = 0;
  for (const auto& e : layout.entries()) {
    const bool embedding = e.name.find("embed_tokens") != std::string::npos;
    const bool ones = e.init.kind == Init::Kind::ones;
    const double size = embedding                ? 1.0
                        : e.place.rows == 1      ? 0.2
                                                 : 1.0 / std::sqrt(double(e.place.cols));
    for (Index i = 0; i < e.place.size(); ++i)
      out[e.place].data[i] = static_cast<float>(
          (ones ? 1.0 : 0.0) + size * normal(seed, stream, static_cast<std::uint64_t>(i)));
    ++stream;
  }
  return out;
}

golden::Array random_ids(Index batch, Index tokens, Index vocab) {
  golden::Array ids{{batch, tokens}, {}};
  for (Index i = 0; i < batch * tokens; ++i)
    ids.values.push_back(std::floor(static_cast<double>(vocab) *
                                    uniform(Seed{5}, 0, static_cast<std::uint64_t>(i))));
  return ids;
}

RetNetConfig with_compat(RetNetConfig c, Dialect dialect, Compat compat) {
  Normalization& n = c.retention.normalization;
  if (n == Normalization::none) return c;
  n = compat == Compat::exact            ? Normalization::row_sum
      : dialect == Dialect::torchscale_v1 ? Normalization::torchscale_v1
                                          : Normalization::torchscale;
  return c;
}

template <class W>
void write(const std::string& folder, const Written& what, const ParamBuffer<W>& weights) {
  save_pretrained(folder, RetNetModel<float, W>(what.config, weights), what.dialect, what.save);
  const golden::Array ids = random_ids(2, 70, what.config.vocab);
  SafetensorsWriter io;
  const std::vector<std::int64_t> integers(ids.values.begin(), ids.values.end());
  io.add("input_ids", ids.shape, integers);
  std::vector<std::pair<std::string, Buffer<float>>> logits;
  for (const Compat compat : {Compat::exact, Compat::reference}) {
    const RetNetModel<float, W> model(with_compat(what.config, what.dialect, compat), weights);
    for (const auto& [name, form] : kForms)
      logits.emplace_back(logits_key(compat, name), logits_of(model, form, ids));
  }
  if (what.dialect == Dialect::torchscale_v2) {  // the package of October 2023, see README.md
    RetNetConfig c = what.config;
    c.retention.normalization = Normalization::torchscale_v1;
    const RetNetModel<float, W> model(c, weights);
    logits.emplace_back("logits.wheel.parallel", logits_of(model, Form::parallel(), ids));
  }
  for (const auto& [key, values] : logits)
    io.add(key, {ids.shape[0], ids.shape[1], what.config.vocab}, values.span());
  io.write(folder + "/io.safetensors");
}

void run(const std::string& root) {
  std::uint64_t seed = 1;
  for (const Written& what : all_models()) {
    const std::string folder = root + "/" + dialect_name(what.dialect) + "__" + what.name;
    const auto weights = random_weights(
        RetNetModel<float>::without_weights(what.config).layout(), Seed{seed++});
    if (what.save.dtype == Dtype::bf16) {
      write(folder, what, weights.cast<bfloat16>());
    } else {
      write(folder, what, weights);
    }
    std::printf("%s\n", folder.c_str());
  }
}

}  // namespace
}  // namespace retnet::interop

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_models FOLDER\n");
    return 2;
  }
  retnet::interop::run(argv[1]);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
