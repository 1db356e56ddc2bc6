// SPDX-License-Identifier: MIT
// Files are written whole or not at all, and what the system refuses is said with name and reason.
#include "retnet/io/file.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "io/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::read_file;
using io_test::TempDir;
using io_test::write_file;

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(AtomicFile, WritesUnderItsNameOnlyWhenCommitted) {
  const TempDir dir;
  AtomicFile file(dir / "a");
  file.write("one ");
  file.write(std::span<const std::byte>());
  file.write("two");
  EXPECT_FALSE(std::filesystem::exists(dir / "a"));
  file.commit();
  EXPECT_EQ(read_file(dir / "a"), "one two");
  EXPECT_EQ(dir.names(), std::vector<std::string>{"a"});
}

TEST(AtomicFile, KeepsTheOldFileUntilCommitted) {
  const TempDir dir;
  write_file(dir / "a", "old");
  {
    AtomicFile file(dir / "a");
    file.write("new, and never finished");
    EXPECT_EQ(read_file(dir / "a"), "old");
    EXPECT_EQ(dir.names().size(), 2u);
  }
  EXPECT_EQ(dir.names(), std::vector<std::string>{"a"});
  EXPECT_EQ(read_file(dir / "a"), "old");
}

TEST(AtomicFile, LastCommitWins) {
  const TempDir dir;
  AtomicFile first(dir / "a"), second(dir / "a");
  first.write("first");
  second.write("second");
  second.commit();
  first.commit();
  EXPECT_EQ(read_file(dir / "a"), "first");
  EXPECT_EQ(dir.names(), std::vector<std::string>{"a"});
}

TEST(AtomicFile, IsClosedAfterCommit) {
  const TempDir dir;
  AtomicFile file(dir / "a");
  file.commit();
  expect_error<std::invalid_argument>([&] { file.write("x"); }, {"[AtomicFile::write]", dir / "a"});
  expect_error<std::invalid_argument>([&] { file.commit(); }, {"[AtomicFile::commit]", dir / "a"});
  EXPECT_EQ(read_file(dir / "a"), "");
}

TEST(AtomicFile, TakesANameInTheWorkingDirectory) {
  const TempDir dir;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir.string());
  AtomicFile file("plain");
  file.write("x");
  file.commit();
  std::filesystem::current_path(before);
  EXPECT_EQ(read_file(dir / "plain"), "x");
}

TEST(AtomicFile, FollowsALink) {
  const TempDir dir;
  write_file(dir / "target", "old");
  std::filesystem::create_symlink("target", dir / "link");
  AtomicFile file(dir / "link");
  file.write("new");
  file.commit();
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "link"));
  EXPECT_EQ(read_file(dir / "target"), "new");
}

#ifndef RETNET_IO_STDIO
TEST(AtomicFile, KeepsTheModeOfTheOldFile) {
  const TempDir dir;
  write_file(dir / "a", "old");
  ASSERT_EQ(::chmod((dir / "a").c_str(), 0640), 0);
  AtomicFile file(dir / "a");
  file.commit();
  struct stat info {};
  ASSERT_EQ(::stat((dir / "a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777u, 0640u);
}
#endif

TEST(AtomicFile, NamesAMissingDirectory) {
  const TempDir dir;
  const auto path = dir / "nowhere/a";
  expect_error<std::runtime_error>([&] { AtomicFile{path}; },
                                   {"[AtomicFile::AtomicFile]", path, "No such file or directory"});
}

TEST(AtomicFile, ReplacesOnlyFiles) {
  const TempDir dir;
  expect_error<std::runtime_error>([&] { AtomicFile{dir.string()}; },
                                   {"[AtomicFile::AtomicFile]", dir.string(), "Is a directory"});
  expect_error<std::runtime_error>([&] { AtomicFile{"/dev/null"}; },
                                   {"/dev/null", "not supported"});
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST(AtomicFile, NamesADirectoryThatCannotBeWritten) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "locked");
  const auto path = dir / "locked/a";
  write_file(path, "old");
  ASSERT_EQ(::chmod((dir / "locked").c_str(), 0500), 0);
  if (::access((dir / "locked").c_str(), W_OK) == 0) {
    // Root may write anywhere but in /proc, which has no room for new files.
    expect_error<std::runtime_error>([] { AtomicFile{"/proc/a"}; }, {"cannot create /proc/a"});
  } else {
    expect_error<std::runtime_error>([&] { AtomicFile{path}; }, {path, "Permission denied"});
    EXPECT_EQ(read_file(path), "old");
  }
  ::chmod((dir / "locked").c_str(), 0700);
}

TEST(MappedFile, ReadsWhatIsThere) {
  const TempDir dir;
  const std::string text(100'000, 'x');
  write_file(dir / "a", text);
  const MappedFile file(dir / "a");
  EXPECT_EQ(text_of(file), text);
  const MappedFile copy = file;
  EXPECT_EQ(copy.bytes().data(), file.bytes().data());
}

TEST(MappedFile, ReadsAnEmptyFile) {
  const TempDir dir;
  write_file(dir / "a", "");
  EXPECT_TRUE(MappedFile(dir / "a").bytes().empty());
  EXPECT_TRUE(MappedFile().bytes().empty());
}

TEST(MappedFile, OutlivesItsReplacement) {
  const TempDir dir;
  write_file(dir / "a", "old");
  const MappedFile file(dir / "a");
  AtomicFile next(dir / "a");
  next.write("new text");
  next.commit();
  EXPECT_EQ(text_of(file), "old");
  EXPECT_EQ(text_of(MappedFile(dir / "a")), "new text");
}

TEST(MappedFile, NamesWhatItCannotRead) {
  const TempDir dir;
  const auto missing = dir / "missing";
  expect_error<std::runtime_error>([&] { MappedFile{missing}; },
                                   {"[MappedFile::MappedFile]", missing, "No such file"});
  expect_error<std::runtime_error>([&] { MappedFile{dir.string()}; },
                                   {dir.string(), "Is a directory"});
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect_error<std::runtime_error>([&] { MappedFile{dir / "pipe"}; },
                                   {dir / "pipe", "not supported"});
}

}  // namespace
}  // namespace retnet
