// SPDX-License-Identifier: MIT
// Files: written whole or not at all (AtomicFile), read without a copy (MappedFile).
#pragma once

#include <atomic>
#include <cerrno>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "retnet/core/check.hpp"

#if (defined(__unix__) || defined(__APPLE__)) && !defined(RETNET_IO_STDIO)
#include "retnet/io/detail/os_posix.hpp"  // IWYU pragma: export
#else
#include "retnet/io/detail/os_stdio.hpp"  // IWYU pragma: export
#endif

namespace retnet::inline RETNET_ABI {

namespace detail {

/// The system refused: "[where] cannot <action> <path>: <its reason>".
[[noreturn]] inline void throw_system(int error, std::string_view where, std::string_view action,
                                      std::string_view path) {
  throw std::system_error(error, std::generic_category(),
                          concat("[", where, "] cannot ", action, " ", path));
}

}  // namespace detail

/// Files as bytes in memory, read only; copies share them. A file that AtomicFile replaces keeps
/// its bytes for whoever has it open; one that somebody truncates under its readers does not.
///
/// Several files lie in one range of addresses, in their order, with gaps that read as zero.
class MappedFiles {
 public:
  MappedFiles() = default;
  /// Throws std::system_error (a std::runtime_error) naming the file that cannot be read.
  explicit MappedFiles(std::span<const std::string> paths,
                       const char* where = "MappedFiles::MappedFiles")
      : count_(paths.size()) {
    auto files = std::make_shared<detail::FileBytes>();
    std::size_t failed = 0;
    if (const int error = files->open(paths, failed); error != 0)
      detail::throw_system(error, where, "read", paths[failed]);
    files_ = std::move(files);
  }

  std::size_t count() const { return count_; }
  std::span<const std::byte> bytes(std::size_t file) const { return files_->bytes(file); }
  /// These bytes leave memory, where the system can read them again from the file.
  void release(std::span<const std::byte> bytes) const { files_->release(bytes); }

 private:
  std::size_t count_ = 0;
  std::shared_ptr<const detail::FileBytes> files_;
};

/// One file.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws std::system_error naming the file when it cannot be read.
  explicit MappedFile(const std::string& path)
      : files_(std::span(&path, 1), "MappedFile::MappedFile") {}

  std::span<const std::byte> bytes() const {
    return files_.count() > 0 ? files_.bytes(0) : std::span<const std::byte>();
  }

 private:
  MappedFiles files_;
};

/// Writes a file under a temporary name beside it (name.tmp.<process>.<number>); commit() makes it
/// durable and gives it its name. Until then, and after any error, an old file of it is whole.
/// Destroyed without commit() it leaves nothing behind; a killed process leaves its temporary file.
///
/// A symbolic link is followed. The mode of an old file is kept. Not for use across threads; any
/// number of writers may write the same name, and the last commit() wins.
class AtomicFile {
 public:
  /// Throws std::system_error naming the file when its directory cannot be written to, or when the
  /// name is that of something other than a regular file.
  explicit AtomicFile(const std::string& path) {
    constexpr const char* kWhere = "AtomicFile::AtomicFile";
    if (const int error = detail::find_target(path, path_); error != 0)
      detail::throw_system(error, kWhere, "replace", path);
    int error = EEXIST;
    for (int attempt = 0; error == EEXIST && attempt < kAttempts; ++attempt) {
      temporary_ = detail::concat(path_, ".tmp.", detail::process_number(), ".", next_number());
      error = file_.create(temporary_, path_);
    }
    if (error != 0) detail::throw_system(error, kWhere, "create", temporary_);
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() { abandon(); }

  /// Appends. Throws std::system_error naming the file; the temporary file is gone then.
  void write(std::span<const std::byte> bytes) {
    check_open("AtomicFile::write");
    finish(file_.write(bytes), "AtomicFile::write", "write");
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  /// The file is complete: writes it to the disk, then puts it in the place of the old one. Throws
  /// std::system_error naming the file when either fails.
  void commit() {
    constexpr const char* kWhere = "AtomicFile::commit";
    check_open(kWhere);
    finish(file_.sync(), kWhere, "write");
    finish(file_.close(), kWhere, "write");
    finish(detail::replace_file(temporary_, path_), kWhere, "replace");
    temporary_.clear();
    finish(detail::sync_directory(path_), kWhere, "make durable");
  }

 private:
  // Names left behind by killed processes are passed over, however often a process number recurs.
  static constexpr int kAttempts = 10000;

  static int next_number() {
    static std::atomic<int> number{0};
    return number++;
  }
  void check_open(const char* where) const {
    RETNET_CHECK(file_.is_open(), where, path_,
                 " is committed or has failed, expected an open file");
  }
  void finish(int error, const char* where, const char* action) {
    if (error == 0) return;
    abandon();
    detail::throw_system(error, where, action, path_);
  }
  void abandon() {
    file_.close();
    if (!temporary_.empty()) detail::remove_file(temporary_);
    temporary_.clear();
  }

  std::string path_;
  std::string temporary_;
  detail::NewFile file_;
};

}  // namespace retnet::inline RETNET_ABI
