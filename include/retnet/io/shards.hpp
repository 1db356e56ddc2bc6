// SPDX-License-Identifier: MIT
// A checkpoint of one safetensors file, model.safetensors, or of several with an index,
// model.safetensors.index.json, behind one interface.
//
//   {"metadata": {"total_size": 123},
//    "weight_map": {"a.weight": "model-00001-of-00002.safetensors", ...}}
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/io/detail/json_text.hpp"
#include "retnet/io/safetensors.hpp"

namespace retnet::inline RETNET_ABI {

/// An index: the file of every tensor, and the bytes of all of them if it says.
struct ShardIndex {
  std::map<std::string, std::string, std::less<>> file_of;
  std::optional<std::uint64_t> total_size;

  /// Sorted, each once.
  std::vector<std::string> files() const {
    std::set<std::string> out;
    for (const auto& [tensor, file] : file_of) out.insert(file);
    return {out.begin(), out.end()};
  }
};

/// Throws std::invalid_argument naming `source` and what is not as above: a key that is given twice
/// or unknown, no tensors, the name of a file that lies elsewhere.
inline ShardIndex parse_shard_index(std::string_view text, std::string_view source = "memory") {
  constexpr const char* kWhere = "parse_shard_index";
  RETNET_CHECK(text.size() <= detail::kMaxHeader, kWhere, source, " has ", text.size(),
               " bytes, expected at most ", detail::kMaxHeader);
  const nlohmann::json json = detail::parse_strictly(kWhere, text, source);
  const auto check = [&](bool good, const auto&... what) {
    RETNET_CHECK(good, kWhere, source, what...);
  };
  check(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object() &&
            !json["weight_map"].empty(),
        " has no weight_map, expected an object of tensors and their files");
  ShardIndex out;
  for (const auto& [key, value] : json.items()) {
    check(key == "weight_map" || key == "metadata", ": unknown key ", detail::shown(key),
          ", expected metadata and weight_map");
    if (key == "weight_map") continue;
    check(value.is_object(), ": metadata is ", detail::describe(value), ", expected an object");
    if (!value.contains("total_size")) continue;
    const auto& size = value["total_size"];
    check(size.is_number_unsigned(), ": total_size is ", detail::describe(size),
          ", expected a number of bytes");
    out.total_size = size.get<std::uint64_t>();
  }
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    check(file.is_string(), ": the file of ", detail::shown(tensor), " is ", detail::describe(file),
          ", expected its name");
    const auto& name = file.get_ref<const std::string&>();
    // A name, not a path: nothing outside of the folder is opened. To the system a zero byte ends it.
    constexpr std::string_view kNotInNames("/\\:\0", 4);
    check(name.ends_with(".safetensors") && name.find_first_of(kNotInNames) == std::string::npos &&
              !name.starts_with('.'),
          ": the file of ", detail::shown(tensor), " is ", detail::shown(name),
          ", expected the name of a .safetensors file in the same folder");
    out.file_of.emplace(tensor, name);
  }
  return out;
}

/// All tensors of a checkpoint, which live as long as it.
class ShardedSafetensors {
 public:
  /// `path`: a folder, a .safetensors file or an index. Throws std::system_error when a file cannot
  /// be read, std::invalid_argument naming what is wrong with one: a tensor that the index does not
  /// name, or names elsewhere, or that no file holds; a total_size that is not theirs.
  explicit ShardedSafetensors(const std::string& path) : name_(find_checkpoint(path)) {
    if (!name_.ends_with(kIndexEnding)) {
      open({name_});
    } else {
      const MappedFile file(name_);
      const auto text = file.bytes();
      const ShardIndex index =
          parse_shard_index({reinterpret_cast<const char*>(text.data()), text.size()}, name_);
      const auto folder = std::filesystem::path(name_).parent_path();
      std::vector<std::string> paths;
      for (const auto& shard : index.files()) paths.push_back((folder / shard).string());
      open(paths);
      check_index(index);
    }
    std::ranges::sort(tensors_, {},
                      [](const StoredTensor* t) { return std::string_view(t->name); });
  }
  ShardedSafetensors(const ShardedSafetensors&) = delete;
  ShardedSafetensors& operator=(const ShardedSafetensors&) = delete;

  /// The file or index that was opened.
  const std::string& name() const { return name_; }
  /// A file in the same folder.
  std::string beside(const char* file) const {
    return (std::filesystem::path(name_).parent_path() / file).string();
  }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  const std::vector<const StoredTensor*>& tensors() const { return tensors_; }  // sorted by name
  /// Of the first file.
  const std::map<std::string, std::string>& metadata() const { return files_.front().metadata(); }

  /// Null if there is none of that name.
  const StoredTensor* find(std::string_view name) const {
    const auto it = std::ranges::lower_bound(
        tensors_, name, {}, [](const StoredTensor* t) { return std::string_view(t->name); });
    return it != tensors_.end() && (*it)->name == name ? *it : nullptr;
  }
  /// As SafetensorsFile::read.
  template <Storable S>
  void read(const StoredTensor& tensor, std::span<S> out) const {
    files_.front().read(tensor, out);
  }
  template <StorableNumber S>
  std::vector<S> read(std::string_view name) const {
    const StoredTensor* tensor = find(name);
    RETNET_CHECK(tensor != nullptr, "ShardedSafetensors::read", name_, ": no tensor ",
                 detail::shown(name), ", expected one of the ", tensors_.size(), " in the files");
    std::vector<S> out(tensor->size());
    read(*tensor, std::span<S>(out));
    return out;
  }
  /// The bytes of a tensor that was read may leave memory.
  void release(const StoredTensor& tensor) const { mapped_.release(tensor.bytes); }

 private:
  static constexpr const char* kWhere = "ShardedSafetensors::ShardedSafetensors";
  static constexpr const char* kFile = "model.safetensors";
  static constexpr const char* kIndexEnding = ".index.json";

  static std::string find_checkpoint(const std::string& path) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(path, ignored)) return path;
    const auto folder = std::filesystem::path(path);
    const auto file = folder / kFile, index = folder / detail::concat(kFile, kIndexEnding);
    const bool has_file = std::filesystem::exists(file, ignored);
    const bool has_index = std::filesystem::exists(index, ignored);
    RETNET_CHECK(!has_file || !has_index, kWhere, path, " holds ", kFile, " and ", kFile,
                 kIndexEnding, ", expected one of them");
    const bool pickled = std::filesystem::exists(folder / "pytorch_model.bin", ignored) ||
                         std::filesystem::exists(folder / "pytorch_model.bin.index.json", ignored);
    RETNET_CHECK(has_file || has_index || !pickled, kWhere, path,
                 " holds pytorch_model.bin, "
                 "expected safetensors\n  mend: convert it with the safetensors package of Python");
    RETNET_CHECK(has_file || has_index, kWhere, path, " holds neither ", kFile, " nor ", kFile,
                 kIndexEnding, ", expected a checkpoint");
    return (has_file ? file : index).string();
  }

  void open(const std::vector<std::string>& paths) {
    mapped_ = MappedFiles(paths, kWhere);
    for (std::size_t i = 0; i < paths.size(); ++i) files_.emplace_back(mapped_.bytes(i), paths[i]);
    for (const auto& file : files_)
      for (const auto& t : file.tensors()) tensors_.push_back(&t);
  }

  void check_index(const ShardIndex& index) const {
    std::string problems;
    const auto note = [&](const auto&... text) { problems += detail::concat("\n  ", text...); };
    std::map<std::string_view, std::string> found;
    std::uint64_t bytes = 0;
    for (const auto& file : files_) {
      const std::string name = std::filesystem::path(file.name()).filename().string();
      for (const auto& t : file.tensors()) {
        bytes += t.bytes.size();
        const auto [before, fresh] = found.emplace(t.name, name);
        const auto it = index.file_of.find(t.name);
        if (!fresh) {
          note(detail::shown(t.name), " is in ", before->second, " and in ", name);
        } else if (it == index.file_of.end()) {
          note(detail::shown(t.name), " in ", name, " is not in the index");
        } else if (it->second != name) {
          note(detail::shown(t.name), " is in ", name, ", the index says ", it->second);
        }
      }
    }
    for (const auto& [tensor, file] : index.file_of)
      if (!found.contains(tensor)) note(detail::shown(tensor), " is not in ", file);
    if (index.total_size && *index.total_size != bytes)
      note("the tensors have ", bytes, " bytes, the index says ", *index.total_size);
    RETNET_CHECK(problems.empty(), kWhere, name_, " and its files differ:", problems);
  }

  std::string name_;
  MappedFiles mapped_;
  std::vector<SafetensorsFile> files_;
  std::vector<const StoredTensor*> tensors_;
};

}  // namespace retnet::inline RETNET_ABI
