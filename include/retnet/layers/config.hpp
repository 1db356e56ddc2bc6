// SPDX-License-Identifier: MIT
// What a layer is, as data. Every way in which published RetNets differ is one field here.
#pragma once

#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/core/params.hpp"
#include "retnet/ops/activation.hpp"
#include "retnet/ops/norm.hpp"
#include "retnet/ops/rotation.hpp"

namespace retnet::inline RETNET_ABI {

/// gamma of each head: a schedule, your own values, or a gate computed from the token.
enum class DecayKind { pow2, linspace, values, gated };

/// theta of each pair of key dimensions.
enum class ThetaKind { inclusive, rotary, values };

/// Which of query and key carries 1/sqrt(d_k). The product is the same, the state is not.
enum class ScaleOn { key, query, none };

/// What the sum over the past is divided by (Sun et al. 2023, section 2.1 "Retention Score
/// Normalization"). All but the two of torchscale are the same function in every form.
enum class Normalization {
  none,           // as flash-linear-attention
  row_sum,        // sqrt(s_n): the row sum of D in closed form
  paper_score,    // row_sum, then max(|sum_m R_nm|, 1)
  torchscale,     // the per-form scaling of that implementation, for its checkpoints
  torchscale_v1,  // the same before 2023-09-29
};

enum class Affine { none, per_head_dim, per_channel };

struct RetentionConfig {
  Index d_model = 0;   // C
  Index heads = 0;     // H
  Index kv_heads = 0;  // heads that own keys and values; 0: all of them
  Index d_key = 0;     // H * Dk; 0: d_model
  Index d_value = 0;   // H * Dv; 0: 2 d_model

  DecayKind decay = DecayKind::pow2;
  std::vector<double> gamma = {};  // [H], for DecayKind::values
  double gate_divisor = 16.0;      // for DecayKind::gated: log a = log sigmoid(x W) / divisor

  RotationLayout rotation = RotationLayout::interleaved;
  ThetaKind theta = ThetaKind::inclusive;
  double theta_base = 10000.0;
  std::vector<double> theta_values = {};  // [rotary_dim/2], for ThetaKind::values
  Index rotary_dim = 0;                   // dimensions of each head that turn; 0: all Dk
  double xpos_base = 0.0;                 // xPos (Sun et al. 2022), 512 in that paper; 0: none

  Normalization normalization = Normalization::row_sum;
  ScaleOn scale_on = ScaleOn::key;

  NormKind head_norm = NormKind::rms;
  Affine head_norm_affine = Affine::none;
  bool head_norm_bias = false;  // beside the weight, for NormKind::layer
  double head_norm_eps = 1e-6;
  Index bottleneck = 0;  // the head norm's output is projected to this width; 0: it is not

  bool gate = true;
  Activation gate_activation = Activation::swish;
  bool bias = false;  // on every projection but that of a gated decay

  Init init_projection = {Init::Kind::xavier_uniform, 0.17677669529663687};  // 2^-2.5
  Init init_value = {Init::Kind::xavier_uniform, 0.17677669529663687};
  Init init_output = {Init::Kind::xavier_uniform, 0.5};

  // What the zeros above stand for.
  Index kv() const { return kv_heads > 0 ? kv_heads : heads; }
  Index key_width() const { return d_key > 0 ? d_key : d_model; }
  Index value_width() const { return d_value > 0 ? d_value : 2 * d_model; }
  Index key_dim() const { return key_width() / heads; }
  Index value_dim() const { return value_width() / heads; }
  Index rotary() const { return rotary_dim > 0 ? rotary_dim : key_dim(); }
  Index gate_width() const { return bottleneck > 0 ? bottleneck : value_width(); }
  bool compat() const {
    return normalization == Normalization::torchscale ||
           normalization == Normalization::torchscale_v1;
  }

  /// Throws std::invalid_argument: what is wrong, how to mend it, where it is documented.
  void validate(std::string_view where = "RetentionConfig") const;
};

enum class FeedForwardKind { mlp, glu };

/// mlp: y = norm(act(x W1)) W2.   glu: y = norm(act(x W1) * x Wg) W2.
struct FeedForwardConfig {
  Index d_model = 0;
  Index hidden = 0;  // 0: 2 d_model
  FeedForwardKind kind = FeedForwardKind::mlp;
  Activation activation = Activation::gelu;
  bool bias = false;
  NormKind sub_norm = NormKind::none;  // sub-layer norm (Wang et al. 2022, "Foundation Transformers")
  double sub_norm_eps = 1e-5;
  double activation_dropout = 0.0;
  Init init_in = {Init::Kind::kaiming_uniform, 1.0};
  Init init_out = {Init::Kind::kaiming_uniform, 1.0};

  Index width() const { return hidden > 0 ? hidden : 2 * d_model; }
  void validate(std::string_view where = "FeedForwardConfig") const;
};

/// pre:       y = alpha x + f(norm(x))
/// post:      y = norm(alpha x + f(x))
/// branch:    y = alpha x + norm(f(x))
/// parallel:  y = x + mixer(norm(x)) + FFN(norm'(x)), both halves at once
enum class Residual { pre, post, branch, parallel };

/// A block is a mixer of tokens and a feed-forward network; the mixer has a config of its own.
template <class MixerConfig>
struct BasicBlockConfig {
  MixerConfig mixer = {};
  FeedForwardConfig feed_forward = {};
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-6;
  bool ffn_norm = true;  // false: the feed-forward half reads its input as it is
  Residual residual = Residual::pre;
  double alpha = 1.0;  // DeepNorm: (2 layers)^(1/4) (Wang et al. 2022, "DeepNet", Eq. 2)
  double dropout = 0.0;

  void validate(std::string_view where = "BlockConfig") const;
};
using BlockConfig = BasicBlockConfig<RetentionConfig>;

namespace detail {
inline void check_rate(double rate, std::string_view where, const char* name) {
  RETNET_CHECK(rate >= 0.0 && rate < 1.0, where, name, " = ", rate,
               "\n  mend: a rate in [0, 1)\n  see: retnet/layers/config.hpp");
}
inline void check_eps(double eps, std::string_view where, const char* name) {
  RETNET_CHECK(std::isfinite(eps) && eps >= 0.0, where, name, " = ", eps,
               "\n  mend: a finite number >= 0, such as 1e-6\n  see: retnet/layers/config.hpp");
}
}  // namespace detail

inline void RetentionConfig::validate(std::string_view where) const {
  constexpr const char* kSee = "\n  see: RetentionConfig in retnet/layers/config.hpp";
  RETNET_CHECK(d_model > 0 && heads > 0, where, "d_model = ", d_model, ", heads = ", heads,
               "\n  mend: give both, positive", kSee);
  RETNET_CHECK(kv_heads >= 0 && d_key >= 0 && d_value >= 0, where, "kv_heads = ", kv_heads,
               ", d_key = ", d_key, ", d_value = ", d_value,
               "\n  mend: 0 for the default, or positive", kSee);
  RETNET_CHECK(heads % kv() == 0, where, "heads = ", heads,
               " is not a multiple of kv_heads = ", kv(),
               "\n  mend: each key head serves the same number of query heads", kSee);
  RETNET_CHECK(key_width() % heads == 0, where, "d_key = ", key_width(),
               " is not divisible by heads = ", heads, "\n  mend: d_key = heads * Dk", kSee);
  RETNET_CHECK(value_width() % heads == 0, where, "d_value = ", value_width(),
               " is not divisible by heads = ", heads, "\n  mend: d_value = heads * Dv", kSee);
  RETNET_CHECK(rotary_dim >= 0 && rotary_dim <= key_dim(), where, "rotary_dim = ", rotary_dim,
               " for Dk = ", key_dim(), "\n  mend: at most Dk, or 0 for all of it", kSee);
  RETNET_CHECK(rotation == RotationLayout::none || rotary() % 2 == 0, where,
               rotary_dim > 0 ? "rotary_dim = " : "Dk = ", rotary(),
               " is odd, and rotation turns pairs\n  mend: an even d_key / heads, an even "
               "rotary_dim, or RotationLayout::none",
               kSee);
  RETNET_CHECK(std::isfinite(xpos_base) && xpos_base >= 0.0, where, "xpos_base = ", xpos_base,
               "\n  mend: 0 for none, or a positive number of tokens such as 512", kSee);
  RETNET_CHECK(xpos_base == 0.0 || rotation != RotationLayout::none, where,
               "xpos_base = ", xpos_base, " without rotation\n  mend: a RotationLayout, or 0", kSee);
  if (decay == DecayKind::values) {
    RETNET_CHECK(static_cast<Index>(gamma.size()) == heads, where, "gamma has ", gamma.size(),
                 " values for heads = ", heads, "\n  mend: one for each head", kSee);
    for (const double g : gamma)
      RETNET_CHECK(g > 0.0 && g <= 1.0, where, "gamma holds ", g, "\n  mend: values in (0, 1]",
                   kSee);
  } else {
    RETNET_CHECK(gamma.empty(), where, "gamma is given, but decay is not DecayKind::values",
                 "\n  mend: set decay, or leave gamma empty", kSee);
  }
  if (decay == DecayKind::gated) {
    RETNET_CHECK(normalization == Normalization::none, where,
                 "a gated decay has no closed row sum\n  mend: Normalization::none", kSee);
    RETNET_CHECK(std::isfinite(gate_divisor) && gate_divisor > 0.0, where,
                 "gate_divisor = ", gate_divisor, "\n  mend: a positive number, 16 in YOCO", kSee);
  }
  if (rotation != RotationLayout::none && theta == ThetaKind::values) {
    RETNET_CHECK(static_cast<Index>(theta_values.size()) == rotary() / 2, where, "theta_values has ",
                 theta_values.size(), " values for ", rotary_dim > 0 ? "rotary_dim = " : "Dk = ",
                 rotary(), "\n  mend: half as many values", kSee);
    for (const double t : theta_values)
      RETNET_CHECK(std::isfinite(t), where, "theta_values holds ", t, "\n  mend: finite values",
                   kSee);
  }
  RETNET_CHECK(theta == ThetaKind::values || theta_values.empty(), where,
               "theta_values is given, but theta is not ThetaKind::values",
               "\n  mend: set theta, or leave theta_values empty", kSee);
  RETNET_CHECK(std::isfinite(theta_base) && theta_base > 0.0, where, "theta_base = ", theta_base,
               "\n  mend: a positive number, such as 10000", kSee);
  detail::check_eps(head_norm_eps, where, "head_norm_eps");
  RETNET_CHECK(head_norm != NormKind::none || head_norm_affine == Affine::none, where,
               "head_norm_affine without a head norm\n  mend: Affine::none", kSee);
  RETNET_CHECK(!head_norm_bias ||
                   (head_norm == NormKind::layer && head_norm_affine != Affine::none),
               where, "head_norm_bias without a weight, or for a norm that is not centred\n  mend: "
               "NormKind::layer with an Affine, or false",
               kSee);
  RETNET_CHECK(bottleneck >= 0, where, "bottleneck = ", bottleneck,
               "\n  mend: a width, or 0 for none", kSee);
}

inline void FeedForwardConfig::validate(std::string_view where) const {
  RETNET_CHECK(d_model > 0 && hidden >= 0, where, "d_model = ", d_model, ", hidden = ", hidden,
               "\n  mend: d_model positive, hidden positive or 0\n  see: FeedForwardConfig in "
               "retnet/layers/config.hpp");
  detail::check_rate(activation_dropout, where, "activation_dropout");
  detail::check_eps(sub_norm_eps, where, "sub_norm_eps");
}

template <class MixerConfig>
void BasicBlockConfig<MixerConfig>::validate(std::string_view where) const {
  mixer.validate(where);
  feed_forward.validate(where);
  RETNET_CHECK(mixer.d_model == feed_forward.d_model, where, "mixer.d_model = ", mixer.d_model,
               ", feed_forward.d_model = ", feed_forward.d_model,
               "\n  mend: one width\n  see: BlockConfig in retnet/layers/config.hpp");
  RETNET_CHECK(norm != NormKind::none, where,
               "norm is NormKind::none\n  mend: rms or layer\n  see: ",
               "BlockConfig in retnet/layers/config.hpp");
  RETNET_CHECK(std::isfinite(alpha) && alpha > 0.0, where, "alpha = ", alpha,
               "\n  mend: 1, or (2 layers)^(1/4)\n  see: BlockConfig in retnet/layers/config.hpp");
  RETNET_CHECK(residual != Residual::parallel || alpha == 1.0, where, "alpha = ", alpha,
               " with Residual::parallel, which has no place for it\n  mend: no DeepNorm, or "
               "Residual::pre or post\n  see: BlockConfig in retnet/layers/config.hpp");
  RETNET_CHECK(ffn_norm || residual == Residual::pre || residual == Residual::parallel, where,
               "ffn_norm is false, but the residual normalises what the halves give\n  mend: "
               "Residual::pre or parallel, or true\n  see: BlockConfig in "
               "retnet/layers/config.hpp");
  detail::check_eps(norm_eps, where, "norm_eps");
  detail::check_rate(dropout, where, "dropout");
}

/// log gamma of every head for the fixed decays; empty for a gated one.
inline std::vector<double> log_gamma_of(const RetentionConfig& config) {
  switch (config.decay) {
    case DecayKind::pow2: return log_gamma_pow2(config.heads);
    case DecayKind::linspace: return log_gamma_linspace(config.heads);
    case DecayKind::values: {
      std::vector<double> out;
      for (const double g : config.gamma) out.push_back(std::log(g));
      return out;
    }
    case DecayKind::gated: break;
  }
  return {};
}

/// The angles of a mixer: of retention or of attention, which has no xPos.
template <class Config>
RotationTable rotation_of(const Config& config) {
  std::vector<double> theta;
  switch (config.theta) {
    case ThetaKind::inclusive: theta = theta_inclusive(config.rotary(), config.theta_base); break;
    case ThetaKind::rotary: theta = theta_rotary(config.rotary(), config.theta_base); break;
    case ThetaKind::values: theta = config.theta_values; break;
  }
  RotationTable table(config.rotation, std::move(theta));
  if constexpr (requires { config.xpos_base; })
    if (config.xpos_base > 0.0) table.set_xpos(log_xpos(config.rotary(), config.xpos_base));
  return table;
}

}  // namespace retnet::inline RETNET_ABI
