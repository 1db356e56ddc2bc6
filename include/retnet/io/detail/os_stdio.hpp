// SPDX-License-Identifier: MIT
// The same as os_posix.hpp in standard C++, for systems without POSIX: files are read whole, and a
// saved file survives a crash of the program, but perhaps not a power cut.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "retnet/core/buffer.hpp"

namespace retnet::inline RETNET_ABI::detail {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using StdioFile = std::unique_ptr<std::FILE, CloseFile>;

inline int last_error() { return errno != 0 ? errno : EIO; }

class FileBytes {
 public:
  int open(std::span<const std::string> paths, std::size_t& failed) {
    for (failed = 0; failed < paths.size(); ++failed)
      if (const int error = measure(paths[failed]); error != 0) return error;
    bytes_.resize(static_cast<Index>(size_));
    for (failed = 0; failed < paths.size(); ++failed)
      if (const int error = read(paths[failed], parts_[failed]); error != 0) return error;
    return 0;
  }
  std::span<const std::byte> bytes(std::size_t file) const {
    return {bytes_.data() + parts_[file].begin, parts_[file].size};
  }
  void release(std::span<const std::byte>) const {}

 private:
  struct Part {
    std::size_t begin = 0, size = 0;
  };

  int measure(const std::string& path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) return ENOENT;
    if (std::filesystem::is_directory(status)) return EISDIR;
    if (!std::filesystem::is_regular_file(status)) return ENOTSUP;
    parts_.push_back({size_, static_cast<std::size_t>(std::filesystem::file_size(path, error))});
    size_ += (parts_.back().size + kAlignment - 1) / kAlignment * kAlignment;
    return error.value();
  }

  int read(const std::string& path, const Part& part) {
    errno = 0;
    const StdioFile file(std::fopen(path.c_str(), "rb"));
    if (!file) return last_error();
    std::byte* at = bytes_.data() + part.begin;
    return std::fread(at, 1, part.size, file.get()) == part.size ? 0 : last_error();
  }

  std::vector<Part> parts_;
  std::size_t size_ = 0;
  Buffer<std::byte> bytes_;
};

class NewFile {
 public:
  int create(const std::string& name, const std::string&) {
    errno = 0;
    file_.reset(std::fopen(name.c_str(), "wbx"));
    return file_ ? 0 : last_error();
  }
  bool is_open() const { return file_ != nullptr; }
  int write(std::span<const std::byte> bytes) {
    errno = 0;
    const std::size_t n = std::fwrite(bytes.data(), 1, bytes.size(), file_.get());
    return n == bytes.size() ? 0 : last_error();
  }
  int sync() {
    errno = 0;
    return std::fflush(file_.get()) == 0 ? 0 : last_error();
  }
  int close() {
    errno = 0;
    return !file_ || std::fclose(file_.release()) == 0 ? 0 : last_error();
  }

 private:
  StdioFile file_;
};

inline int find_target(const std::string& path, std::string& target) {
  target = path;
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return 0;
  if (std::filesystem::is_directory(status)) return EISDIR;
  if (!std::filesystem::is_regular_file(status)) return ENOTSUP;
  target = std::filesystem::canonical(path, error).string();
  return error ? error.value() : 0;
}

inline int replace_file(const std::string& from, const std::string& to) {
  std::error_code error;
  std::filesystem::rename(from, to, error);
  return error ? error.value() : 0;
}

inline void remove_file(const std::string& name) { std::remove(name.c_str()); }

inline int sync_directory(const std::string&) { return 0; }

inline long process_number() {
  const auto ticks = std::chrono::steady_clock::now().time_since_epoch().count();
  return static_cast<long>(ticks & 0xFFFFFF);
}

}  // namespace retnet::inline RETNET_ABI::detail
