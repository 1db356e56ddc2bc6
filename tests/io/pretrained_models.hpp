// SPDX-License-Identifier: MIT
// What the tests of pretrained checkpoints share: configs that use every option of each dialect,
// and comparisons of whole models.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "io/support.hpp"
#include "retnet/io/pretrained.hpp"

namespace retnet::io_test {

struct DialectCase {
  std::string name;
  Dialect dialect;
  std::string keys;  // of config.json, beside the sizes
  Compat compat = Compat::exact;
};

inline void PrintTo(const DialectCase& c, std::ostream* out) { *out << c.name; }

inline std::vector<DialectCase> dialect_cases() {
  const std::string v2 = R"("decoder_value_embed_dim": 24, "decoder_ffn_embed_dim": 20, )";
  const std::string post = R"("deepnorm": true, "decoder_normalize_before": false)";
  const std::string glu = R"("use_glu": false, "decoder_ffn_embed_dim": 16)";
  return {
      {"v1", Dialect::torchscale_v1, R"("decoder_ffn_embed_dim": 20)"},
      {"v1_reference", Dialect::torchscale_v1, R"("decoder_ffn_embed_dim": 20)", Compat::reference},
      {"v1_post", Dialect::torchscale_v1, R"("decoder_ffn_embed_dim": 20, )" + post},
      {"v2", Dialect::torchscale_v2, v2 + R"("activation_fn": "swish")"},
      {"v2_tied", Dialect::torchscale_v2,
       v2 + R"("share_decoder_input_output_embed": true, "layernorm_embedding": true,
               "no_scale_embedding": false, "dropout": 0.1, "activation_dropout": 0.2)"},
      {"v2_post", Dialect::torchscale_v2, v2 + post, Compat::reference},
      {"syncdoth", Dialect::syncdoth, v2 + R"("use_lm_decay": true)"},
      {"syncdoth_mlp", Dialect::syncdoth, R"("decoder_value_embed_dim": 24, )" + glu},
      {"syncdoth_tied", Dialect::syncdoth, v2 + R"("tie_word_embeddings": true)"},
      {"xatl", Dialect::xatl, v2 + R"("use_rms_norm": true, "groupnorm_affine": true)"},
      {"xatl_biases", Dialect::xatl,
       R"("decoder_value_embed_dim": 16, "retnet_bottleneck": 10, "use_bias": true,
          "use_rms_norm": false, "groupnorm_affine": true, "lm_head_bias": true,
          "parallel_residual": true, "shared_attention_norm": true, "rotary_percentage": 0.5,
          "activation_fn": "gelu_new", "use_lm_decay": true, )" +
           glu},
      {"xatl_stable", Dialect::xatl,
       v2 + R"("retnet_stability_update": true, "rotary_percentage": 0.0,
               "layernorm_embedding": true)"},
      {"fla", Dialect::fla, R"("intermediate_size": 20)"},
      {"fla_grouped", Dialect::fla,
       R"("intermediate_size": 20, "num_kv_heads": 1, "expand_v": 1.5, "expand_k": 0.5,
          "elementwise_affine": false, "tie_word_embeddings": true, "use_output_gate": false)"},
      {"fla_hybrid", Dialect::fla,
       R"("intermediate_size": 20, "attn": {"layers": [1], "num_heads": 4, "num_kv_heads": 2,
          "window_size": 5, "qkv_bias": true, "rope_theta": 5e5})"},
      {"xatl_hybrid", Dialect::xatl,
       R"("decoder_value_embed_dim": 16, "decoder_ffn_embed_dim": 20, "use_bias": true,
          "hybrid_attention_layers": [1], "rotary_percentage": 0.5)"},
  };
}

inline RetNetConfig config_of(const DialectCase& c) {
  const std::string sizes =
      c.dialect == Dialect::fla
          ? R"("hidden_size": 16, "num_hidden_layers": 2, "num_heads": 2, "vocab_size": 13, )"
          : R"("decoder_embed_dim": 16, "decoder_layers": 2, "decoder_retention_heads": 2,
               "vocab_size": 13, )";
  return dialect_config_from_json("{" + sizes + c.keys + "}", c.dialect, {.compat = c.compat});
}

/// Weights that are all different, norms and biases too.
template <class S>
RetNetModel<S> model_of(const RetNetConfig& config) {
  const auto places = RetNetModel<S>::without_weights(config);
  ParamBuffer<S> weights(places.layout());
  for (const auto& e : places.layout().entries())
    for (Index i = 0; i < e.place.size(); ++i)
      weights[e.place].data[i] =
          static_cast<S>(normal(Seed{7}, static_cast<std::uint64_t>(e.place.offset),
                                static_cast<std::uint64_t>(i)) /
                         4.0);
  return places.with_weights(std::move(weights));
}

template <class A, class B>
void expect_same_weights(const A& a, const B& b) {
  ASSERT_EQ(a.layout().entries().size(), b.layout().entries().size());
  for (const auto& e : a.layout().entries()) {
    const ParamEntry* other = b.layout().find(e.name);
    ASSERT_NE(other, nullptr) << e.name;
    const auto x = a.weight_buffer()[e.place], y = b.weight_buffer()[other->place];
    ASSERT_EQ(e.place.size(), other->place.size()) << e.name;
    EXPECT_EQ(
        std::memcmp(x.data, y.data, static_cast<std::size_t>(e.place.size()) * sizeof(*x.data)), 0)
        << e.name;
  }
}

template <class A, class B>
void expect_same_function(const A& a, const B& b) {
  RowMatrix<Token> tokens(2, 9);
  for (Index i = 0; i < tokens.size(); ++i)
    tokens.data()[i] = static_cast<Token>(i * 5 % a.config().vocab);
  const auto x = a.forward_parallel(tokens), y = b.forward_parallel(tokens);
  EXPECT_EQ(std::memcmp(x.data(), y.data(), static_cast<std::size_t>(x.size()) * sizeof(*x.data())),
            0);
}

}  // namespace retnet::io_test
