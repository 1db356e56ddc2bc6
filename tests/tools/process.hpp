// SPDX-License-Identifier: MIT
// Runs a program and keeps what it wrote; a folder that ends with the test. POSIX.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace tools {

namespace fs = std::filesystem;

inline std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
inline void write_text(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "retnet-tools-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder " + name);
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  const fs::path& path() const { return path_; }
  // Of what is in it, in order.
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(path_))
      out.push_back(entry.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  fs::path path_;
};

using Arguments = std::vector<std::string>;

struct Finished {
  int code = 0;    // of exit(), -1 if a signal ended it
  int signal = 0;  // that ended it
  std::string out, err;
};

// A program that runs. Its streams are files, so it never waits for a reader.
class Process {
 public:
  Process(const std::string& program, const Arguments& arguments, const std::string& input = "") {
    write_text(streams_ / "in", input);
    std::vector<std::string> words{program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string in = streams_ / "in", out = streams_ / "out", err = streams_ / "err";
    process_ = fork();
    if (process_ < 0) throw std::runtime_error("fork failed");
    if (process_ > 0) return;
    if (redirect(in, O_RDONLY, 0) && redirect(out, O_WRONLY | O_CREAT, 1) &&
        redirect(err, O_WRONLY | O_CREAT, 2))
      execv(argv[0], argv.data());
    _exit(127);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (process_ <= 0) return;
    send(SIGKILL);
    waitpid(process_, nullptr, 0);
  }

  void send(int signal) const { kill(process_, signal); }
  std::string output() const { return text_of(streams_ / "out"); }

  // Until it has written something, or ended, or `seconds` are over.
  bool wait_for_output(double seconds) const {
    for (double waited = 0.0; waited < seconds; waited += 0.005) {
      if (!output().empty()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  Finished finish() {
    int status = 0;
    waitpid(process_, &status, 0);
    process_ = 0;
    Finished f{.out = text_of(streams_ / "out"), .err = text_of(streams_ / "err")};
    f.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    f.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return f;
  }

 private:
  static bool redirect(const std::string& path, int flags, int number) {
    const int file = open(path.c_str(), flags, 0600);
    return file >= 0 && dup2(file, number) >= 0;
  }

  Scratch streams_;
  pid_t process_ = 0;
};

inline Finished run(const std::string& program, const Arguments& arguments,
                    const std::string& input = "") {
  return Process(program, arguments, input).finish();
}

}  // namespace tools
