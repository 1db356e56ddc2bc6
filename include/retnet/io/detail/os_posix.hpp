// SPDX-License-Identifier: MIT
// What the io headers ask of a POSIX system. Nothing throws: errors are errno values, 0 is success.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>

#include "retnet/core/buffer.hpp"

namespace retnet::inline RETNET_ABI::detail {

/// A file descriptor, closed at the end of its life.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }

  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  void reset(int fd) {
    close();
    fd_ = fd;
  }
  int close() {
    const int fd = std::exchange(fd_, -1);
    // After EINTR the descriptor is gone on Linux, and closing again could hit somebody else's.
    return fd < 0 || ::close(fd) == 0 || errno == EINTR ? 0 : errno;
  }

 private:
  int fd_;
};

/// The bytes of a regular file: mapped, or read where the file system cannot map.
class FileBytes {
 public:
  FileBytes() = default;
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;
  ~FileBytes() {
    if (mapping_ != nullptr) ::munmap(mapping_, size_);
  }

  int open(const std::string& path) {
    // O_NONBLOCK: a pipe is refused below; without it, opening one waits for a writer.
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file) return errno;
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) return errno;
    if (S_ISDIR(info.st_mode)) return EISDIR;
    if (!S_ISREG(info.st_mode)) return ENOTSUP;
    size_ = static_cast<std::size_t>(info.st_size);
    if (size_ == 0) return 0;
    void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (mapping == MAP_FAILED) return read(file.get());
    mapping_ = mapping;
    return 0;
  }

  std::span<const std::byte> bytes() const {
    const auto* data = mapping_ != nullptr ? static_cast<const std::byte*>(mapping_) : copy_.data();
    return {data, size_};
  }

 private:
  int read(int fd) {
    copy_.resize(static_cast<Index>(size_));
    for (std::size_t done = 0; done < size_;) {
      const ssize_t n = ::read(fd, copy_.data() + done, size_ - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      if (n == 0) return EIO;  // shorter than it was a moment ago
      done += static_cast<std::size_t>(n);
    }
    return 0;
  }

  void* mapping_ = nullptr;
  std::size_t size_ = 0;
  Buffer<std::byte> copy_;
};

/// A new file being written.
class NewFile {
 public:
  /// EEXIST if there is a file of this name. The mode is that of `old`, where there is one.
  int create(const std::string& name, const std::string& old) {
    file_.reset(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (!file_) return errno;
    struct stat info {};
    if (::stat(old.c_str(), &info) != 0) return 0;
    // Best effort: where modes mean nothing, the file is still worth having.
    [[maybe_unused]] const int ignored = ::fchmod(file_.get(), info.st_mode & 07777);
    return 0;
  }
  bool is_open() const { return static_cast<bool>(file_); }

  int write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(file_.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return 0;
  }
  int sync() {
    while (::fsync(file_.get()) != 0)
      if (errno != EINTR) return errno;
    return 0;
  }
  int close() { return file_.close(); }

 private:
  Descriptor file_;
};

/// Where a write to `path` goes: links are followed. Only a regular file may be replaced.
inline int find_target(const std::string& path, std::string& target) {
  target = path;
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return errno == ENOENT ? 0 : errno;
  if (S_ISLNK(info.st_mode)) {
    char* resolved = ::realpath(path.c_str(), nullptr);
    if (resolved == nullptr) return errno;
    target = resolved;
    std::free(resolved);
    if (::stat(target.c_str(), &info) != 0) return errno;
  }
  if (S_ISDIR(info.st_mode)) return EISDIR;
  return S_ISREG(info.st_mode) ? 0 : ENOTSUP;
}

inline int replace_file(const std::string& from, const std::string& to) {
  return std::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

inline void remove_file(const std::string& name) { ::unlink(name.c_str()); }

/// Makes a rename in the directory of `path` survive a power cut.
inline int sync_directory(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file) return 0;  // writable but not readable: the file is whole, only its name is younger
  if (::fsync(file.get()) == 0 || errno == EINVAL || errno == EINTR) return 0;
  return errno;
}

inline long process_number() { return static_cast<long>(::getpid()); }

}  // namespace retnet::inline RETNET_ABI::detail
