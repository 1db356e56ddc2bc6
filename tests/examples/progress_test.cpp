#include "common/progress.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

namespace examples {
namespace {

std::vector<ProgressField> fields(int step) {
  return {{"step", std::to_string(step)}, {"", "310k bytes/s"}, {"train", "1.93"}, {"ETA", "0:48"}};
}

// Everything written to a file that is no terminal.
class LogFile {
 public:
  ~LogFile() { std::fclose(file_); }
  std::FILE* get() const { return file_; }
  std::string text() const {
    std::rewind(file_);
    std::string out;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) out += static_cast<char>(c);
    return out;
  }

 private:
  std::FILE* file_ = std::tmpfile();
};

// A pseudo terminal of the given width; NO_COLOR and TERM are set for its lifetime.
class Terminal {
 public:
  explicit Terminal(unsigned short columns, const char* no_colour = "",
                    const char* term = "xterm") {
    setenv("NO_COLOR", no_colour, 1);
    setenv("TERM", term, 1);
    setenv("LC_ALL", "C", 1);
    master_ = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    grantpt(master_);
    unlockpt(master_);
    file_ = std::fopen(ptsname(master_), "w");
    if (file_ == nullptr) return;
    winsize size = {};
    size.ws_col = columns;
    ioctl(fileno(file_), TIOCSWINSZ, &size);
    termios raw = {};
    tcgetattr(fileno(file_), &raw);
    cfmakeraw(&raw);
    tcsetattr(fileno(file_), TCSANOW, &raw);
  }
  ~Terminal() {
    if (file_ != nullptr) std::fclose(file_);
    close(master_);
    for (const char* name : {"NO_COLOR", "TERM", "LC_ALL"}) unsetenv(name);
  }
  std::FILE* get() const { return file_; }
  std::string text() const {
    std::string out;
    char buffer[4096];
    for (ssize_t n = 0; (n = read(master_, buffer, sizeof buffer)) > 0;) {
      out.append(buffer, static_cast<std::size_t>(n));
    }
    return out;
  }

 private:
  int master_ = -1;
  std::FILE* file_ = nullptr;
};

TEST(Format, CountsHaveThreeDigits) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(999.9), "1.00k");
  EXPECT_EQ(format_count(1234), "1.23k");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(310000), "310k");
  EXPECT_EQ(format_count(2.5e6), "2.50M");
  EXPECT_EQ(format_count(7e12), "7000G");
}

TEST(Format, DurationsReadLikeAClock) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(605), "10:05");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(-1), "-:--");
  EXPECT_EQ(format_duration(std::nan("")), "-:--");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "-:--");
}

TEST(ProgressLine, WritesPlainLinesToALog) {
  LogFile log;
  {
    ProgressLine progress(log.get(), {.plain_seconds = 0.0});
    EXPECT_FALSE(progress.live());
    progress.update(0.0, fields(1));
    progress.note("held out 2.01");
    progress.update(0.426, {{"step", "2"}});
    progress.update(std::nan(""), {});
    progress.update(7.0, {});
  }
  EXPECT_EQ(log.text(),
            "  0%  step 1  310k bytes/s  train 1.93  ETA 0:48\n"
            "held out 2.01\n"
            " 42%  step 2\n"
            "  0%\n"
            "100%\n");
}

TEST(ProgressLine, KeepsToTheIntervalAndShowsTheLastUpdate) {
  LogFile log;
  ProgressLine progress(log.get(), {.plain_seconds = 3600.0});
  for (int step = 1; step <= 100; ++step) progress.update(step / 100.0, fields(step));
  progress.finish();
  progress.finish();
  EXPECT_EQ(log.text(),
            "  1%  step 1  310k bytes/s  train 1.93  ETA 0:48\n"
            "100%  step 100  310k bytes/s  train 1.93  ETA 0:48\n");
}

TEST(ProgressLine, RewritesOneLineOnATerminal) {
  Terminal terminal(80, "1");
  ASSERT_NE(terminal.get(), nullptr);
  {
    ProgressLine progress(terminal.get(), {.live_seconds = 0.0});
    EXPECT_TRUE(progress.live());
    EXPECT_FALSE(progress.colour());
    progress.update(0.5, {{"step", "1"}});
    progress.note("saved");
    progress.update(1.0, {{"step", "2"}});
  }
  const std::string half = "\r############------------  50%  step 1\x1b[K";
  EXPECT_EQ(terminal.text(),
            half + "\rsaved\x1b[K\n" + half + "\r######################## 100%  step 2\x1b[K\n");
}

TEST(ProgressLine, ColoursOnlyIfNoColorIsUnset) {
  Terminal terminal(80);
  ASSERT_NE(terminal.get(), nullptr);
  ProgressLine progress(terminal.get());
  progress.update(0.5, {{"step", "1"}});
  EXPECT_TRUE(progress.colour());
  EXPECT_NE(terminal.text().find("\x1b[2mstep\x1b[0m 1"), std::string::npos);
}

TEST(ProgressLine, TreatsADumbTerminalAsALog) {
  Terminal terminal(80, "", "dumb");
  ASSERT_NE(terminal.get(), nullptr);
  ProgressLine progress(terminal.get());
  progress.update(0.5, {{"step", "1"}});
  EXPECT_EQ(terminal.text(), " 50%  step 1\n");
}

TEST(ProgressLine, FitsEveryTerminalWidth) {
  for (unsigned short columns = 6; columns < 100; ++columns) {
    Terminal terminal(columns, "1");
    ASSERT_NE(terminal.get(), nullptr);
    ProgressLine progress(terminal.get());
    progress.update(0.5, fields(12));
    std::string line = terminal.text();
    ASSERT_GE(line.size(), 4u);
    line = line.substr(1, line.size() - 4);  // without "\r" and "\x1b[K"
    EXPECT_LT(line.size(), columns) << line;
    EXPECT_NE(line.find("50%"), std::string::npos) << line;
    EXPECT_EQ(line.find("ETA 0:48") != std::string::npos, columns >= 50) << line;
  }
}

}  // namespace
}  // namespace examples
