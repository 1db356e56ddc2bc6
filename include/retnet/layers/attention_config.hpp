// SPDX-License-Identifier: MIT
// What an attention layer is, as data.
#pragma once

#include "retnet/layers/config.hpp"

namespace retnet::inline RETNET_ABI {

struct AttentionConfig {
  Index d_model = 0;   // C
  Index heads = 0;     // H
  Index kv_heads = 0;  // heads that own keys and values; 0: all of them
  Index head_dim = 0;  // Dk = Dv; 0: d_model / heads

  bool qkv_bias = false;
  bool out_bias = false;
  Index window = 0;  // tokens that a query sees, its own included; 0: all

  RotationLayout rotation = RotationLayout::half_split;
  ThetaKind theta = ThetaKind::rotary;
  double theta_base = 10000.0;
  std::vector<double> theta_values = {};  // [rotary_dim/2], for ThetaKind::values
  Index rotary_dim = 0;                   // the first dimensions of each head turn; 0: all

  bool qk_norm = false;  // RMS norm of each head of q and k, before they turn
  double qk_norm_eps = 1e-6;
  double scale = 0.0;  // of the scores; 0: 1/sqrt(head_dim)

  Init init_projection = {Init::Kind::xavier_uniform, 0.7071067811865476};
  Init init_output = {Init::Kind::xavier_uniform, 1.0};

  // What the zeros above stand for.
  Index kv() const { return kv_heads > 0 ? kv_heads : heads; }
  Index dim() const { return head_dim > 0 ? head_dim : d_model / heads; }
  Index rotary() const { return rotary_dim > 0 ? rotary_dim : dim(); }
  double score_scale() const {
    return scale > 0.0 ? scale : 1.0 / std::sqrt(static_cast<double>(dim()));
  }

  /// Throws std::invalid_argument: what is wrong, how to mend it, where it is documented.
  void validate(std::string_view where = "AttentionConfig") const;
};

struct CrossAttentionConfig {
  Index d_model = 0;   // C
  Index heads = 0;     // H
  Index kv_heads = 0;  // heads that own keys and values; 0: all of them
  Index head_dim = 0;  // Dk = Dv; 0: d_model / heads

  RotationLayout rotation = RotationLayout::interleaved;
  ThetaKind theta = ThetaKind::inclusive;
  double theta_base = 10000.0;
  std::vector<double> theta_values = {};  // [Dk/2], for ThetaKind::values

  double norm_eps = 1e-6;  // of the norm before the shared keys and values
  double scale = 0.0;      // of the scores; 0: 1/sqrt(head_dim)

  Init init_projection = {Init::Kind::xavier_uniform, 0.7071067811865476};
  Init init_output = {Init::Kind::xavier_uniform, 1.0};

  Index kv() const { return kv_heads > 0 ? kv_heads : heads; }
  Index dim() const { return head_dim > 0 ? head_dim : d_model / heads; }
  /// The attention that has the same heads, angles and scale.
  AttentionConfig attention() const {
    AttentionConfig c{
        .d_model = d_model, .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim};
    c.rotation = rotation;
    c.theta = theta;
    c.theta_base = theta_base;
    c.theta_values = theta_values;
    c.scale = scale;
    return c;
  }
  void validate(std::string_view where = "CrossAttentionConfig") const {
    attention().validate(where);
    detail::check_eps(norm_eps, where, "norm_eps");
  }
};

inline void AttentionConfig::validate(std::string_view where) const {
  constexpr const char* kSee = "\n  see: AttentionConfig in retnet/layers/attention_config.hpp";
  RETNET_CHECK(d_model > 0 && heads > 0, where, "d_model = ", d_model, ", heads = ", heads,
               "\n  mend: give both, positive", kSee);
  RETNET_CHECK(kv_heads >= 0 && head_dim >= 0 && rotary_dim >= 0, where, "kv_heads = ", kv_heads,
               ", head_dim = ", head_dim, ", rotary_dim = ", rotary_dim,
               "\n  mend: 0 for the default, or positive", kSee);
  RETNET_CHECK(window >= 0, where, "window = ", window,
               "\n  mend: 0 to see all, or how many tokens, the query's own included", kSee);
  RETNET_CHECK(heads % kv() == 0, where, "heads = ", heads,
               " is not a multiple of kv_heads = ", kv(),
               "\n  mend: each key head serves the same number of query heads", kSee);
  RETNET_CHECK(head_dim > 0 || d_model % heads == 0, where, "d_model = ", d_model,
               " is not divisible by heads = ", heads, "\n  mend: give head_dim", kSee);
  if (rotation == RotationLayout::none) {
    RETNET_CHECK(rotary_dim == 0, where, "rotary_dim = ", rotary_dim, " without a rotation",
                 "\n  mend: set rotation, or leave rotary_dim 0", kSee);
  } else {
    RETNET_CHECK(rotary() % 2 == 0 && rotary() <= dim(), where, "rotary_dim = ", rotary(),
                 ", head_dim = ", dim(), ", and rotation turns pairs",
                 "\n  mend: an even number, at most head_dim, or RotationLayout::none", kSee);
    RETNET_CHECK(
        theta != ThetaKind::values || static_cast<Index>(theta_values.size()) == rotary() / 2,
        where, "theta_values has ", theta_values.size(), " values for rotary_dim = ", rotary(),
        "\n  mend: rotary_dim / 2 values", kSee);
  }
  RETNET_CHECK(theta == ThetaKind::values || theta_values.empty(), where,
               "theta_values is given, but theta is not ThetaKind::values",
               "\n  mend: set theta, or leave theta_values empty", kSee);
  for (const double t : theta_values)
    RETNET_CHECK(std::isfinite(t), where, "theta_values holds ", t, "\n  mend: finite values",
                 kSee);
  RETNET_CHECK(std::isfinite(theta_base) && theta_base > 0.0, where, "theta_base = ", theta_base,
               "\n  mend: a positive number, such as 10000", kSee);
  RETNET_CHECK(std::isfinite(qk_norm_eps) && qk_norm_eps >= 0.0, where,
               "qk_norm_eps = ", qk_norm_eps, "\n  mend: a finite number >= 0, such as 1e-6", kSee);
  RETNET_CHECK(std::isfinite(scale) && scale >= 0.0, where, "scale = ", scale,
               "\n  mend: 0 for 1/sqrt(head_dim), or positive", kSee);
}

}  // namespace retnet::inline RETNET_ABI
