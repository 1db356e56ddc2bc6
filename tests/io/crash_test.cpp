// SPDX-License-Identifier: MIT
// A save that cannot finish, as the disk is full or the process is killed, leaves the old file.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "io/support.hpp"
#include "retnet/io/checkpoint.hpp"

namespace retnet {
namespace {

using io_test::read_file;
using io_test::TempDir;

ParamLayout layout_of(Index rows) {
  ParamLayout layout;
  layout.add("a", rows, 64, {});
  layout.add("b", rows, 32, {});
  return layout;
}

/// A checkpoint whose every number says its version.
void save_version(const std::string& path, const ParamLayout& layout, int version) {
  ParamBuffer<float> buffer(layout);
  std::ranges::fill(buffer.flat(), static_cast<float>(version));
  CheckpointWriter out;
  out.add_params("", layout, buffer);
  out.set("version", version);
  out.write(path);
}

/// The version; fails unless the file is whole and of one version.
int load_version(const std::string& path, const ParamLayout& layout) {
  CheckpointReader in(path);
  ParamBuffer<float> buffer;
  in.expect_params("", layout, buffer);
  in.load();
  const int version = in.get<int>("version");
  for (const auto& e : layout.entries())
    for (Index i = 0; i < e.place.size(); ++i)
      if (buffer[e.place].data[i] != static_cast<float>(version)) {
        ADD_FAILURE() << e.name << " is a mixture at version " << version;
        return -1;
      }
  return version;
}

/// Runs f in a child process and gives its exit code; f's own failures are codes other than 0.
template <class F>
int in_child(const F& f) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

constexpr rlim_t kAllButOneByte = ~rlim_t{0};

class FullDisk : public testing::TestWithParam<rlim_t> {};

TEST_P(FullDisk, IsAnErrorAndTheOldFileStays) {
  const TempDir dir;
  const auto layout = layout_of(100);
  save_version(dir / "run", layout, 1);
  const auto old = read_file(dir / "run");
  ASSERT_GT(old.size(), 30'000u);
  const int code = in_child([&]() -> int {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlim_t room = GetParam() == kAllButOneByte ? old.size() - 1 : GetParam();
    const rlimit limit{room, room};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    try {
      save_version(dir / "run", layout, 2);
    } catch (const std::runtime_error& e) {
      const std::string text = e.what();
      return text.find(dir / "run") == std::string::npos ||
                     text.find("File too large") == std::string::npos
                 ? 3
                 : 0;
    }
    return 1;
  });
  EXPECT_EQ(code, 0) << "1: nothing thrown, 2: no limit, 3: another message";
  EXPECT_EQ(dir.names(), std::vector<std::string>{"run"});
  EXPECT_TRUE(read_file(dir / "run") == old);
  EXPECT_EQ(load_version(dir / "run", layout), 1);
}

// Nothing fits; the header is cut; the tensors are cut; one byte is missing in the end.
INSTANTIATE_TEST_SUITE_P(Limits, FullDisk,
                         testing::Values(0, 4, 100, 4096, 20'000, kAllButOneByte));

TEST(Crash, AKilledSaveLeavesAWholeFile) {
  const TempDir dir;
  const auto layout = layout_of(2000);  // 768 kB
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (int i = 0; i < 4; ++i) save_version(dir / "run", layout, 0);
  const auto four_saves = Clock::now() - start;  // then a kill hits any of the first few
  std::mt19937 random(5);
  int last = 0, changed = 0, interrupted = 0;
  for (int round = 0; round < 30; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int version = last + 1;; ++version) save_version(dir / "run", layout, version);
    }
    std::this_thread::sleep_for(four_saves * static_cast<int>(random() % 1000) / 1000);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    const int version = load_version(dir / "run", layout);
    ASSERT_GE(version, last);
    changed += version != last;
    last = version;
    for (const auto& name : dir.names()) {
      if (name == "run") continue;
      EXPECT_EQ(name.rfind("run.tmp.", 0), 0u);
      std::filesystem::remove(dir / name);
      ++interrupted;
    }
  }
  EXPECT_GT(changed, 0) << "no save ever finished";
  EXPECT_GT(interrupted, 0) << "no save was ever interrupted";
}

TEST(Crash, LeftoversOfKilledProcessesAreNoObstacle) {
  const TempDir dir;
  const auto layout = layout_of(1);
  const auto process = std::to_string(::getpid());
  for (int i = 0; i < 100; ++i)
    io_test::write_file(dir / ("run.tmp." + process + "." + std::to_string(i)), "old");
  save_version(dir / "run", layout, 4);
  EXPECT_EQ(load_version(dir / "run", layout), 4);
  EXPECT_EQ(dir.names().size(), 101u);
}

TEST(Crash, ThreadsMaySaveTheSameName) {
  const TempDir dir;
  const auto layout = layout_of(50);
  std::vector<std::thread> threads;
  for (int t = 1; t <= 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) save_version(dir / "run", layout, t);
    });
  for (auto& t : threads) t.join();
  const int version = load_version(dir / "run", layout);
  EXPECT_TRUE(version >= 1 && version <= 4);
  EXPECT_EQ(dir.names(), std::vector<std::string>{"run"});
}

}  // namespace
}  // namespace retnet
