// SPDX-License-Identifier: MIT
// The token ids that retnet_eval reads, and which of them belong to which sequence.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "retnet/core/sequences.hpp"
#include "retnet/io/safetensors.hpp"
#include "retnet/ops/cross_entropy.hpp"
#include "retnet_eval/options.hpp"

namespace retnet_eval {

using retnet::Sequences;

struct Inputs {
  Index batch = 0, length = 0;    // B, T
  std::vector<std::int32_t> ids;  // [B,T] as given
  Sequences sequences = Sequences::dense(1, 1);

  Index rows() const { return batch * length; }
};

namespace detail {

inline const retnet::StoredTensor& matrix(const retnet::SafetensorsFile& file,
                                          const std::string& name) {
  const auto& tensor = file.at(name);
  RETNET_CHECK(tensor.shape.size() == 2 && tensor.size() > 0, "retnet_eval", file.name(), ": ",
               name, " is ", tensor.describe(), ", expected [B,T] with B, T > 0");
  return tensor;
}

// 1 is a token. Tensors of type BOOL do as well.
inline std::vector<std::int64_t> read_mask(const retnet::SafetensorsFile& file,
                                           const retnet::StoredTensor& tensor) {
  std::vector<std::int64_t> mask(tensor.size());
  if (tensor.dtype != retnet::Dtype::boolean) {
    file.read(tensor, std::span(mask));
    return mask;
  }
  const auto bits = std::make_unique<bool[]>(tensor.size());
  file.read(tensor, std::span<bool>(bits.get(), tensor.size()));
  std::copy_n(bits.get(), tensor.size(), mask.begin());
  return mask;
}

inline Sequences left_padded(const retnet::SafetensorsFile& file, const std::string& name,
                             Index batch, Index length) {
  const auto& tensor = matrix(file, name);
  RETNET_CHECK(tensor.shape[0] == batch && tensor.shape[1] == length, "retnet_eval", file.name(),
               ": ", name, " is ", tensor.describe(), ", the token ids are [", batch, ",", length,
               "], expected the same shape");
  const auto mask = read_mask(file, tensor);
  std::vector<Index> padding;
  for (Index b = 0; b < batch; ++b) {
    const auto row = std::span(mask).subspan(static_cast<std::size_t>(b * length),
                                             static_cast<std::size_t>(length));
    const auto first = std::ranges::find(row, 1);
    const bool left = std::all_of(row.begin(), first, [](auto m) { return m == 0; }) &&
                      std::all_of(first, row.end(), [](auto m) { return m == 1; });
    RETNET_CHECK(left && first != row.end(), "retnet_eval", file.name(), ": row ", b, " of ", name,
                 " is not left padding, expected zeros, then at least one 1, and ones to the end");
    padding.push_back(first - row.begin());
  }
  return Sequences::left_padded(batch, length, std::span<const Index>(padding));
}

inline Sequences packed(const retnet::SafetensorsFile& file, const std::string& name, Index batch,
                        Index length) {
  const auto ends = file.read<std::int64_t>(name);
  RETNET_CHECK(batch == 1, "retnet_eval", file.name(), ": the token ids have ", batch,
               " rows, expected one row that holds all packed sequences");
  RETNET_CHECK(!ends.empty() && ends.back() == length, "retnet_eval", file.name(), ": ", name,
               " ends with ", ends.empty() ? 0 : ends.back(),
               ", expected the number of token ids, ", length);
  return Sequences::packed(std::span<const std::int64_t>(ends));
}

}  // namespace detail

// Throws what SafetensorsFile throws, and std::invalid_argument naming file and tensor.
inline Inputs read_inputs(const Options& o) {
  const retnet::SafetensorsFile file(o.input);
  const auto& tensor = detail::matrix(file, o.ids);
  Inputs in;
  in.batch = tensor.shape[0];
  in.length = tensor.shape[1];
  in.ids.resize(tensor.size());
  file.read(tensor, std::span(in.ids));
  in.sequences = !o.mask.empty()         ? detail::left_padded(file, o.mask, in.batch, in.length)
                 : !o.cu_seqlens.empty() ? detail::packed(file, o.cu_seqlens, in.batch, in.length)
                                         : Sequences::dense(in.batch, in.length);
  return in;
}

// f(segment) for each sequence.
template <class F>
void for_each_segment(const Sequences& sequences, F&& f) {
  for (Index i = 0; i < sequences.count(); ++i) f(sequences[i]);
}

// What the model reads: padding may hold any id, even one that is none.
inline std::vector<std::int32_t> tokens_of(const Inputs& in) {
  std::vector<std::int32_t> tokens(in.ids.size(), 0);
  for_each_segment(in.sequences, [&](retnet::Segment s) {
    std::copy_n(in.ids.begin() + s.first_row, s.length, tokens.begin() + s.first_row);
  });
  return tokens;
}

// The next token of the same sequence; the last one of each has none, nor has padding.
inline std::vector<std::int32_t> targets_of(const Inputs& in) {
  std::vector<std::int32_t> targets(in.ids.size(), retnet::kIgnore);
  for_each_segment(in.sequences, [&](retnet::Segment s) {
    std::copy_n(in.ids.begin() + s.first_row + 1, s.length - 1, targets.begin() + s.first_row);
  });
  return targets;
}

}  // namespace retnet_eval
