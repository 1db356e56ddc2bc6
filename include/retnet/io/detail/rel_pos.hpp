// SPDX-License-Identifier: MIT
// The buffers `retnet_rel_pos.angle` and `.decay` of the torchscale family: the angles of the
// rotation, and the logarithm of gamma. What a file holds is preferred to the rule of the config,
// which the original computed in float32.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "retnet/io/detail/dialect_keys.hpp"
#include "retnet/io/key_map.hpp"
#include "retnet/io/shards.hpp"
#include "retnet/model/config.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// In the metadata of files that save_pretrained wrote from a config with rules: the buffers are
/// those rules in float32, and the config says more.
inline constexpr const char* kRelPosKey = "retnet_rel_pos";
inline constexpr const char* kRelPosRules = "of config.json";

struct RelPos {
  std::vector<double> angle, decay;  // as in the file
};

/// XATL has each angle once and gamma = 2^decay; the others each angle twice and gamma = e^decay.
inline RelPos rel_pos_of(const RetentionConfig& retention, Dialect dialect) {
  const bool xatl = dialect == Dialect::xatl;
  RelPos out;
  std::vector<double> theta = retention.theta_values;
  if (retention.theta == ThetaKind::inclusive)
    theta = theta_inclusive(retention.rotary(), retention.theta_base);
  if (retention.theta == ThetaKind::rotary)
    theta = theta_rotary(retention.rotary(), retention.theta_base);
  if (retention.rotation == RotationLayout::none) theta.clear();
  for (const double t : theta) out.angle.insert(out.angle.end(), xatl ? 1 : 2, t);
  for (const double g : log_gamma_of(retention)) out.decay.push_back(xatl ? g / std::log(2.0) : g);
  return out;
}

/// The config with the angles and decays of the file in the place of its rules. Throws
/// std::invalid_argument naming the tensor whose shape or values cannot be.
inline void apply_rel_pos(const ShardedSafetensors& files, const KeyMap& keys, RetNetConfig& c) {
  const bool xatl = keys.dialect() == Dialect::xatl;
  const auto read = [&](const std::string& key, Index expected) {
    const StoredTensor* t = key.empty() ? nullptr : files.find(key);
    if (t == nullptr) return std::vector<double>();
    RETNET_CHECK(is_float(t->dtype) && t->shape == std::vector<Index>{expected}, "load_pretrained",
                 files.name(), ": ", key, " is ", t->describe(), ", expected [", expected, "]");
    return files.read<double>(key);
  };
  const auto check = [&](bool good, const std::string& key, double value, const char* expected) {
    RETNET_CHECK(good, "load_pretrained", files.name(), ": ", key, " holds ", value, ", expected ",
                 expected);
  };
  const RetentionConfig retention = retention_of(c);
  const bool turns = retention.rotation != RotationLayout::none;
  const Index pairs = turns ? retention.rotary() / 2 : 0;
  const auto angle = read(keys.angle_key(), xatl ? pairs : 2 * pairs);
  const auto decay = read(keys.decay_key(), retention.heads);

  std::vector<double> theta, gamma;
  for (std::size_t i = 0; i < angle.size(); i += xatl ? 1 : 2) {
    check(std::isfinite(angle[i]), keys.angle_key(), angle[i], "finite angles");
    check(xatl || angle[i] == angle[i + 1], keys.angle_key(), angle[i + (xatl ? 0 : 1)],
          "each angle twice");
    theta.push_back(angle[i]);
  }
  for (const double d : decay) {
    const double g = xatl ? std::exp2(d) : std::exp(d);
    check(g > 0.0 && g <= 1.0, keys.decay_key(), d, "logarithms of decays in (0, 1]");
    gamma.push_back(g);
  }
  const auto mark = files.metadata().find(kRelPosKey);
  if (mark != files.metadata().end() && mark->second == kRelPosRules) {
    const RelPos rules = rel_pos_of(retention, keys.dialect());
    const auto same = [](const std::vector<double>& a, const std::vector<double>& b) {
      return std::ranges::equal(a, b,
                                [](double x, double y) { return x == static_cast<float>(y); });
    };
    if (same(angle, rules.angle) && same(decay, rules.decay)) return;
  }
  if (!theta.empty()) {
    for (auto& [layer, a] : c.attention) {  // XATL
      a.theta = ThetaKind::values;
      a.theta_values = theta;
    }
    c.retention.theta = ThetaKind::values;
    c.retention.theta_values = std::move(theta);
  }
  if (!gamma.empty()) {
    c.retention.decay = DecayKind::values;
    c.retention.gamma = std::move(gamma);
  }
}

}  // namespace retnet::inline RETNET_ABI::detail
