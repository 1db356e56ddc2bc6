// SPDX-License-Identifier: MIT
// A checkpoint in words.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "common/progress.hpp"
#include "retnet/io/pretrained.hpp"

namespace retnet_convert {

using retnet::Index;

struct Summary {
  retnet::PretrainedInfo info;
  std::size_t tensors = 0;
  std::uint64_t bytes = 0;  // of the tensors
};

// Throws what inspect_pretrained throws.
inline Summary summarize(const std::string& path, retnet::Compat compat) {
  Summary s{.info = retnet::inspect_pretrained(path, {.compat = compat})};
  const retnet::ShardedSafetensors files(path);
  s.tensors = files.tensors().size();
  for (const auto* t : files.tensors()) s.bytes += t->bytes.size();
  return s;
}

// "57 tensors, dialect fla, 1351.7 M parameters, BF16, 2.70 GB in 1 file"
inline std::string one_line(const Summary& s) {
  char text[200];
  std::snprintf(text, sizeof text,
                "%zu tensors, dialect %s, %.*f M parameters, %s, %sB in %zu file%s", s.tensors,
                retnet::dialect_name(s.info.dialect), s.info.parameters < 1000000 ? 3 : 1,
                static_cast<double>(s.info.parameters) / 1e6, retnet::dtype_name(s.info.dtype),
                examples::format_count(static_cast<double>(s.bytes)).c_str(), s.info.files,
                s.info.files == 1 ? "" : "s");
  return text;
}

namespace detail {

inline std::string retention_line(const retnet::RetNetConfig& c, const nlohmann::json& words) {
  const auto& r = c.block().mixer;
  std::string text = std::to_string(r.heads) + " heads";
  if (r.kv() != r.heads) text += ", " + std::to_string(r.kv()) + " of keys and values";
  text += ", Dk " + std::to_string(r.key_dim()) + ", Dv " + std::to_string(r.value_dim());
  for (const char* key : {"decay", "normalization", "head_norm"})
    text += ", " + std::string(key) + " " + words[key].get<std::string>();
  return text + (r.gate ? ", gated" : "");
}

inline std::string block_line(const retnet::RetNetConfig& c, const nlohmann::json& words) {
  const auto& ffn = words["feed_forward"];
  return ffn["kind"].get<std::string>() + " of " + std::to_string(c.block().feed_forward.width()) +
         ", " + ffn["activation"].get<std::string>() + "; norm " +
         words["norm"].get<std::string>() + ", residual " + words["residual"].get<std::string>();
}

}  // namespace detail

// Some lines for people; the config is written in full by --dialect retnet.
inline void print_report(const std::string& path, const Summary& s) {
  const auto& c = s.info.config;
  const auto words = nlohmann::json::parse(retnet::config_to_json(c));
  std::printf("%s: %s\n", path.c_str(), one_line(s).c_str());
  std::printf("  model         vocab %td, d_model %td, %td layers%s\n", c.vocab, c.d_model,
              c.layers, c.tied_output ? ", output tied to the embedding" : "");
  std::printf("  retention     %s\n", detail::retention_line(c, words["retention"]).c_str());
  if (!c.attention.empty()) std::printf("  attention     in %zu layers\n", c.attention.size());
  if (c.cross_decoder.layers > 0)
    std::printf("  cross-decoder %td layers\n", c.cross_decoder.layers);
  std::printf("  block         %s\n", detail::block_line(c, words).c_str());
}

}  // namespace retnet_convert
