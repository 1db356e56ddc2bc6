// SPDX-License-Identifier: MIT
// Any bytes as model.safetensors.index.json: what is accepted names files of its own folder alone.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "fuzz/fuzz.hpp"
#include "retnet/io/shards.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace retnet;
  using fuzz::require;
  fuzz::accepts([&] {
    const ShardIndex index = parse_shard_index(fuzz::text_of(data, size), "fuzz");
    const auto files = index.files();
    require(!files.empty() && files.size() <= index.file_of.size(), "there are files");
    for (const std::string& name : files) {
      require(!name.starts_with('.') && name.find_first_of("/\\:") == std::string::npos,
              "no path leads out of the folder");
      require(name.find('\0') == std::string::npos, "a name is one to the system too");
    }
    nlohmann::json again{{"weight_map", index.file_of}};
    if (index.total_size) again["metadata"]["total_size"] = *index.total_size;
    const ShardIndex same = parse_shard_index(again.dump());
    require(same.file_of == index.file_of && same.total_size == index.total_size,
            "what is written is what was read");
  });
  return 0;
}
