// SPDX-License-Identifier: MIT
// The tests of this folder run over the cases they find; these must be among them.

#include <gtest/gtest.h>

#include "golden/golden.hpp"

namespace retnet::golden {
namespace {

template <class List>
void expect_present(const List& found, const std::vector<std::string>& expected) {
  for (const auto& name : expected)
    EXPECT_EQ(std::count(found.begin(), found.end(), name), 1) << name;
}

TEST(GoldenCases, ArePresent) {
  expect_present(names("torchscale_v1_"),
                 {"torchscale_v1_plain_lnemb_random", "torchscale_v1_subln_init"});
  expect_present(names("syncdoth_"), {"syncdoth_ffn_subln", "syncdoth_left_padded",
                                      "syncdoth_lm_decay_lnemb_scale", "syncdoth_tied_bf16"});
  expect_present(
      names("torchscale_v2_"),
      {"torchscale_v2_decoder_prefix", "torchscale_v2_large_scores", "torchscale_v2_lnemb_scale",
       "torchscale_v2_plain_init", "torchscale_v2_postnorm", "torchscale_v2_shared_embedding"});
  expect_present(names("fla_"),
                 {"fla_bf16", "fla_gqa", "fla_hybrid_window", "fla_left_padded", "fla_packed",
                  "fla_unfused_noaffine"});
  expect_present(
      names("", "op_retention"),
      {"op_retention/t128_gamma1", "op_retention/t130_packed", "op_retention/t1_scalar_dims",
       "op_retention/t2_k1_v3", "op_retention/t40_gamma_tiny",
       "op_retention/t50_no_grad_large_values", "op_retention/t65_k20_v43"});
  expect_present(names("", "op_gated"), {"op_gated/g_t100_packed", "op_gated/g_t130_strong",
                                         "op_gated/g_t33_k8_v12", "op_gated/g_t64_zero"});
}

TEST(GoldenCases, WhatACaseAnnouncesIsThere) {
  for (const auto& name : model_names()) {
    const Case c(name);
    EXPECT_TRUE(c.io().has("input_ids")) << name;
    EXPECT_TRUE(c.io().has("loss")) << name;
    EXPECT_EQ(c.io().has("generated_ids"), c.info().contains("generation")) << name;
    EXPECT_EQ(c.io().has("prompt_ids"), c.info().contains("generation")) << name;
    bool gradients = false;
    for (const auto& [key, array] : c.io().arrays()) gradients |= key.starts_with("grad.");
    EXPECT_EQ(gradients, c.info().contains("grad")) << name;
  }
  EXPECT_TRUE(Case("fla_gqa").info().contains("grad"));
  EXPECT_TRUE(Case("torchscale_v2_large_scores").info().contains("grad"));
  EXPECT_TRUE(Case("fla_left_padded").io().has("prompt_mask"));
  EXPECT_TRUE(Case("syncdoth_left_padded").io().has("logits.masked.recurrent"));
}

TEST(GoldenCases, AMissingTensorIsAnError) {
  const Case c("fla_gqa");
  EXPECT_THROW((void)c.io().at("logits.masked"), std::runtime_error);
  EXPECT_THROW(Case("fla_none"), std::runtime_error);
}

}  // namespace
}  // namespace retnet::golden
