// SPDX-License-Identifier: MIT
// A safetensors file in memory, every number widened to double.
#pragma once

#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "retnet/io/safetensors.hpp"

namespace retnet::golden {

struct Array {
  std::vector<Index> shape;
  std::vector<double> values;

  Index size() const { return static_cast<Index>(values.size()); }
};

class Archive {
 public:
  Archive() = default;
  explicit Archive(const std::filesystem::path& path) : path_(path.string()) {
    const SafetensorsFile file(path_);
    for (const StoredTensor& tensor : file.tensors()) {
      Array array{tensor.shape, {}};
      if (tensor.dtype == Dtype::i64 || tensor.dtype == Dtype::i32) {
        const auto integers = file.read<std::int64_t>(tensor.name);
        array.values.assign(integers.begin(), integers.end());
      } else {
        array.values = file.read<double>(tensor.name);
      }
      arrays_.emplace(tensor.name, std::move(array));
    }
  }

  bool has(const std::string& key) const { return arrays_.contains(key); }
  /// Throws if there is none of that name.
  const Array& at(const std::string& key) const {
    const auto found = arrays_.find(key);
    if (found == arrays_.end()) throw std::runtime_error(path_ + " holds no " + key);
    return found->second;
  }
  const std::map<std::string, Array>& arrays() const { return arrays_; }

 private:
  std::string path_;
  std::map<std::string, Array> arrays_;
};

}  // namespace retnet::golden
