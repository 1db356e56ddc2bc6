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
#include <deque>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "retnet/version.hpp"

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

/// The bytes of regular files: mapped, or read where the file system cannot map. All lie in one
/// range of addresses, each from the start of a page.
class FileBytes {
 public:
  FileBytes() = default;
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;
  ~FileBytes() {
    if (range_ != nullptr) ::munmap(range_, range_size_);
  }

  /// On an error `failed` is the number of the file.
  int open(std::span<const std::string> paths, std::size_t& failed) {
    page_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    std::deque<Descriptor> files;
    for (failed = 0; failed < paths.size(); ++failed)
      if (const int error = measure(paths[failed], files); error != 0) return error;
    failed = 0;
    if (range_size_ == 0) return 0;
    void* range = ::mmap(nullptr, range_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range == MAP_FAILED) return errno;
    range_ = static_cast<std::byte*>(range);
    for (failed = 0; failed < parts_.size(); ++failed)
      if (const int error = map(files[failed].get(), parts_[failed]); error != 0) return error;
    return 0;
  }

  std::span<const std::byte> bytes(std::size_t file) const {
    const Part& part = parts_[file];
    return {range_ + part.begin, part.size};
  }

  /// The whole pages among these bytes leave memory; who reads them again reads the file again.
  void release(std::span<const std::byte> bytes) const {
    for (const Part& part : parts_) {
      const std::byte* begin = range_ + part.begin;
      if (!part.mapped || bytes.data() < begin || bytes.data() >= begin + part.size) continue;
      const auto first = static_cast<std::size_t>(bytes.data() - range_);
      const std::size_t from = round_up(first), to = (first + bytes.size()) / page_ * page_;
      if (from < to) ::madvise(range_ + from, to - from, MADV_DONTNEED);
    }
  }

 private:
  struct Part {
    std::size_t begin = 0, size = 0;
    bool mapped = false;
  };

  std::size_t round_up(std::size_t n) const { return (n + page_ - 1) / page_ * page_; }

  int measure(const std::string& path, std::deque<Descriptor>& files) {
    // O_NONBLOCK: a pipe is refused below; without it, opening one waits for a writer.
    const Descriptor& file =
        files.emplace_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file) return errno;
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) return errno;
    if (S_ISDIR(info.st_mode)) return EISDIR;
    if (!S_ISREG(info.st_mode)) return ENOTSUP;
    parts_.push_back({range_size_, static_cast<std::size_t>(info.st_size)});
    range_size_ += round_up(parts_.back().size);
    return 0;
  }

  int map(int file, Part& part) {
    std::byte* at = range_ + part.begin;
    if (part.size == 0) return 0;
    part.mapped =
        ::mmap(at, part.size, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0) != MAP_FAILED;
    if (part.mapped) return 0;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (::mmap(at, part.size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) return errno;
    for (std::size_t done = 0; done < part.size;) {
      const ssize_t n = ::read(file, at + done, part.size - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      if (n == 0) return EIO;  // shorter than it was a moment ago
      done += static_cast<std::size_t>(n);
    }
    return 0;
  }

  std::size_t page_ = 4096;
  std::byte* range_ = nullptr;
  std::size_t range_size_ = 0;
  std::vector<Part> parts_;
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
