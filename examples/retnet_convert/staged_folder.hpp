// SPDX-License-Identifier: MIT
// A folder that is filled under another name beside its place, and takes that place when it is
// complete. POSIX.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace retnet_convert {

namespace fs = std::filesystem;

// Destroyed without commit() it leaves nothing behind.
class StagedFolder {
 public:
  // `force`: the target may hold files. Those of a checkpoint are replaced, all others stay.
  // Throws std::invalid_argument for a target that is no folder, or not empty.
  StagedFolder(const fs::path& target, bool force) : target_(fs::weakly_canonical(target)) {
    if (!target_.has_filename()) target_ = target_.parent_path();
    path_ = target_;
    path_ += ".tmp." + std::to_string(getpid());
    if (!fs::exists(target_)) return;
    if (!fs::is_directory(target_)) fail(" is not a folder, expected a folder or a new name");
    if (!force && !fs::is_empty(target_))
      fail(" is not empty, expected an empty folder, a new name, or --force");
  }
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;
  ~StagedFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  const fs::path& path() const { return path_; }  // to fill; not made yet
  const fs::path& target() const { return target_; }

  // Throws std::filesystem::filesystem_error naming what cannot be moved.
  void commit() const {
    if (!fs::exists(target_) || fs::is_empty(target_)) return fs::rename(path_, target_);
    // The files by which a checkpoint is found go first and come last: never half of one is there.
    auto old_files = checkpoint_files(target_), new_files = checkpoint_files(path_);
    std::reverse(old_files.begin(), old_files.end());
    for (const auto& name : old_files) fs::remove(target_ / name);
    for (const auto& name : new_files) fs::rename(path_ / name, target_ / name);
  }

 private:
  [[noreturn]] void fail(const char* why) const {
    throw std::invalid_argument("[retnet_convert] " + target_.string() + why);
  }

  // Those by which it is found stand at the end.
  static std::vector<std::string> checkpoint_files(const fs::path& folder) {
    const auto rank = [](std::string_view name) {
      if (name == "config.json") return 3;
      if (name == "model.safetensors" || name == "model.safetensors.index.json") return 2;
      return name.starts_with("model-") && name.ends_with(".safetensors") ? 1 : 0;
    };
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) {
      std::string name = entry.path().filename().string();
      if (rank(name) > 0) names.push_back(std::move(name));
    }
    std::sort(names.begin(), names.end(),
              [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    return names;
  }

  fs::path target_, path_;
};

}  // namespace retnet_convert
