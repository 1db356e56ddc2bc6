// SPDX-License-Identifier: MIT
// From logits to the next token. The steps, in this order: repetition penalty (Keskar et al. 2019,
// Eq. 6), temperature, top-k, top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024), one draw.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/core/rng.hpp"
#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI {

struct SamplerConfig {
  double temperature = 1.0;  // 0: the likeliest token
  Index top_k = 0;           // 0: off
  double top_p = 1.0;        // keep the likeliest tokens that together reach this probability
  double min_p = 0.0;        // keep tokens at least this fraction as likely as the likeliest
  double repetition_penalty = 1.0;  // > 1: tokens of the window become less likely
  Index repetition_window = 64;

  /// Throws std::invalid_argument.
  void validate() const {
    constexpr const char* kWhere = "SamplerConfig";
    RETNET_CHECK(std::isfinite(temperature) && temperature >= 0.0, kWhere,
                 "temperature = ", temperature, ", expected >= 0");
    RETNET_CHECK(top_k >= 0, kWhere, "top_k = ", top_k, ", expected >= 0");
    RETNET_CHECK(top_p > 0.0 && top_p <= 1.0, kWhere, "top_p = ", top_p, ", expected in (0, 1]");
    RETNET_CHECK(min_p >= 0.0 && min_p <= 1.0, kWhere, "min_p = ", min_p, ", expected in [0, 1]");
    RETNET_CHECK(std::isfinite(repetition_penalty) && repetition_penalty > 0.0, kWhere,
                 "repetition_penalty = ", repetition_penalty, ", expected > 0");
    RETNET_CHECK(repetition_window >= 0, kWhere, "repetition_window = ", repetition_window,
                 ", expected >= 0");
  }
};

class Sampler {
 public:
  Sampler() = default;
  Sampler(const SamplerConfig& config, Index vocab) : config_(config) {
    config_.validate();
    RETNET_CHECK(vocab > 0, "Sampler::Sampler", "vocab = ", vocab, ", expected > 0");
    candidates_.reserve(static_cast<std::size_t>(vocab));
    penalized_.reserve(static_cast<std::size_t>(config_.repetition_window));
  }

  const SamplerConfig& config() const { return config_; }

  /// `draw` is uniform in [0, 1). `recent` are the tokens that the penalty looks at. Allocates
  /// nothing. Throws std::invalid_argument when every logit is NaN or -inf.
  template <class S>
  std::int32_t operator()(std::span<const S> logits, std::span<const std::int32_t> recent,
                          double draw) {
    candidates_.clear();
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const auto z = static_cast<double>(logits[i]);
      if (z > -HUGE_VAL) candidates_.push_back({z, static_cast<std::int32_t>(i)});  // not NaN
    }
    RETNET_CHECK(!candidates_.empty(), "Sampler::operator()",
                 "no logit is a number, expected at least one of ", logits.size());
    penalize(recent);
    if (config_.temperature == 0.0) return std::min_element(begin(), end(), likelier)->token;
    keep_top_k();
    to_weights();
    keep_top_p();
    return pick(draw);
  }

 private:
  struct Candidate {
    double value;  // logit, then unnormalised probability relative to the likeliest
    std::int32_t token;
  };
  using Iterator = std::vector<Candidate>::iterator;
  Iterator begin() { return candidates_.begin(); }
  Iterator end() { return candidates_.end(); }
  static bool likelier(const Candidate& a, const Candidate& b) {
    return a.value != b.value ? a.value > b.value : a.token < b.token;
  }

  void penalize(std::span<const std::int32_t> recent) {
    if (config_.repetition_penalty == 1.0) return;
    penalized_.assign(recent.begin(), recent.end());
    std::sort(penalized_.begin(), penalized_.end());
    for (auto& c : candidates_)
      if (std::binary_search(penalized_.begin(), penalized_.end(), c.token))
        c.value = c.value > 0 ? c.value / config_.repetition_penalty
                              : c.value * config_.repetition_penalty;
  }
  void keep_top_k() {
    const auto k = static_cast<std::size_t>(config_.top_k);
    if (k == 0 || k >= candidates_.size()) return;
    std::nth_element(begin(), begin() + config_.top_k - 1, end(), likelier);
    candidates_.resize(k);
  }
  void to_weights() {
    const double highest = std::min_element(begin(), end(), likelier)->value;
    for (auto& c : candidates_)  // inf - inf is no number
      c.value = c.value == highest ? 1.0 : std::exp((c.value - highest) / config_.temperature);
  }
  void keep_top_p() {
    std::sort(begin(), end(), likelier);
    double total = 0.0;
    for (const auto& c : candidates_) total += c.value;
    std::size_t kept = 0;
    for (double sum = 0.0; kept < candidates_.size(); ++kept) {
      const double value = candidates_[kept].value;
      if (kept > 0 && (sum >= config_.top_p * total || value < config_.min_p)) break;
      sum += value;
    }
    candidates_.resize(kept);
  }
  std::int32_t pick(double draw) const {
    double total = 0.0;
    for (const auto& c : candidates_) total += c.value;
    double left = draw * total;
    for (const auto& c : candidates_) {
      left -= c.value;
      if (left < 0.0) return c.token;
    }
    return candidates_.back().token;
  }

  SamplerConfig config_;
  std::vector<Candidate> candidates_;
  std::vector<std::int32_t> penalized_;
};

}  // namespace retnet::inline RETNET_ABI
