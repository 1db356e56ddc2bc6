// SPDX-License-Identifier: MIT
// Any bytes as a safetensors file: what is accepted can be read and written again, and the strict
// readers above it take all of a file or leave everything as it was.
#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "fuzz/small_model.hpp"
#include "retnet/io/model_file.hpp"

namespace retnet {
namespace {

using fuzz::accepts;
using fuzz::require;

template <class S>
bool reads(const SafetensorsFile& file, const StoredTensor& t) {
  const auto out = std::make_unique<S[]>(t.size());
  return accepts([&] { file.read(t, std::span<S>(out.get(), t.size())); });
}

void read_tensors(const SafetensorsFile& file, std::size_t bytes) {
  std::size_t sum = 0;
  for (const StoredTensor& t : file.tensors()) {
    sum += t.bytes.size();
    require(file.find(t.name) == &t, "a tensor is found by its name");
    const bool number = reads<double>(file, t);
    require(number == reads<float>(file, t) && number == reads<bfloat16>(file, t),
            "a float tensor is read into every float type");
    const bool integer = reads<std::int64_t>(file, t);
    require(!(number && integer), "a tensor is of one kind");
    reads<std::uint8_t>(file, t);
    reads<bool>(file, t);
    std::vector<double> more(t.size() + 1);
    require(!accepts([&] { file.read(t, std::span<double>(more)); }), "as many as there are");
  }
  require(sum < bytes, "tensors do not overlap");
}

void write_again(const SafetensorsFile& file) {
  SafetensorsWriter out;
  for (const StoredTensor& t : file.tensors()) out.add(t.name, t.dtype, t.shape, t.bytes);
  for (const auto& [key, value] : file.metadata()) out.metadata(key, value);
  const auto bytes = out.bytes();
  const SafetensorsFile again(bytes);
  require(again.metadata() == file.metadata() &&
              std::ranges::equal(again.tensors(), file.tensors(),
                                 [](const StoredTensor& a, const StoredTensor& b) {
                                   return a.name == b.name && a.dtype == b.dtype &&
                                          a.shape == b.shape &&
                                          std::ranges::equal(a.bytes, b.bytes);
                                 }),
          "what is written is what was read");
}

void load_weights(const SafetensorsFile& file) {
  static const ParamLayout layout =
      RetNetModel<float>::without_weights(fuzz::small_config()).layout();
  ParamBuffer<float> weights(layout);
  std::ranges::fill(weights.flat(), 1.5F);
  const bool loaded = accepts([&] {
    CheckpointReader in(file);
    in.expect_params("", layout, weights);
    in.load();
  });
  require(loaded || std::ranges::all_of(weights.flat(), [](float x) { return x == 1.5F; }),
          "a file that is refused changes no weight");
}

void load_states(const SafetensorsFile& file) {
  static const auto fresh = RetNetModel<float>::without_weights(fuzz::small_config())
                                .initial_state(fuzz::kSmallSequences);
  auto state = fresh;
  const bool loaded = accepts([&] {
    CheckpointReader in(file);
    in.expect_state("", state);
    in.load();
  });
  for (Index i = 0; i < fuzz::kSmallSequences; ++i) {
    const auto position = state.position(i);
    require(loaded ? position >= 0 : position == 0, "a file that is refused changes no state");
  }
}

}  // namespace
}  // namespace retnet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retnet;
  const auto bytes = std::as_bytes(std::span(data, size));
  accepts([&] {
    const SafetensorsFile file(bytes, "fuzz");
    read_tensors(file, size);
    require(accepts([&] { write_again(file); }), "what is read can be written");
    load_weights(file);
    load_states(file);
    accepts([&] { load_model<float>(file); });
    accepts([&] { CheckpointReader(file).get<std::int64_t>("step"); });
    accepts([&] { CheckpointReader(file).get<double>("lr"); });
  });
  return 0;
}
