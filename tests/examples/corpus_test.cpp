#include "common/corpus.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#ifndef RETNET_EXAMPLES_DATA_DIR
#define RETNET_EXAMPLES_DATA_DIR RETNET_TEST_DATA_DIR "/../examples/data"
#endif

namespace examples {
namespace {

std::filesystem::path file_with(const std::string& name, const std::string& content) {
  std::filesystem::path path = std::filesystem::path(testing::TempDir()) / name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

std::string message_of(const std::filesystem::path& path) {
  try {
    load_corpus(path);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no exception";
}

TEST(Corpus, SplitsTheTailOffAndKeepsEveryByte) {
  std::vector<std::uint8_t> text(1000);
  std::iota(text.begin(), text.end(), std::uint8_t{0});
  const Corpus corpus = split_tail(text, 0.1);
  ASSERT_EQ(corpus.held_out.size(), 100u);
  std::vector<std::uint8_t> joined = corpus.train;
  joined.insert(joined.end(), corpus.held_out.begin(), corpus.held_out.end());
  EXPECT_EQ(joined, text);
}

TEST(Corpus, KeepsBytesThatAreNotText) {
  const std::string bytes("\r\n\0\xff\x1a", 5);
  const std::vector<std::uint8_t> loaded = load_bytes(file_with("corpus_bytes.bin", bytes));
  EXPECT_EQ(loaded, (std::vector<std::uint8_t>{'\r', '\n', 0, 0xff, 0x1a}));
}

TEST(Corpus, RefusesFractionsThatLeaveAPartEmpty) {
  const std::vector<std::uint8_t> text(100);
  for (double fraction : {-0.1, 0.0, 1.0, 2.0, std::nan("")}) {
    EXPECT_THROW(split_tail(text, fraction), std::invalid_argument) << fraction;
  }
  EXPECT_THROW(split_tail(text, 0.001), std::invalid_argument);
  EXPECT_THROW(split_tail({}, 0.5), std::invalid_argument);
}

TEST(Corpus, NamesTheFileThatIsMissingEmptyOrTooSmall) {
  const std::string missing = message_of("/no/such/file.txt");
  EXPECT_NE(missing.find("/no/such/file.txt"), std::string::npos) << missing;
  const std::string folder = message_of(testing::TempDir());
  EXPECT_NE(folder.find("not a file"), std::string::npos) << folder;
  const std::string empty = message_of(file_with("corpus_empty.txt", ""));
  EXPECT_NE(empty.find("0 bytes"), std::string::npos) << empty;
  const std::string small = message_of(file_with("corpus_small.txt", std::string(4095, 'x')));
  EXPECT_NE(small.find("4095 bytes, expected at least 4096"), std::string::npos) << small;
}

TEST(Corpus, BundledTextIsCleanAsciiOfTheStatedSize) {
  const Corpus corpus = load_corpus(RETNET_EXAMPLES_DATA_DIR "/austen.txt");
  EXPECT_EQ(corpus.train.size() + corpus.held_out.size(), 1147901u);
  EXPECT_EQ(corpus.held_out.size(), 114790u);
  const auto clean = [](std::uint8_t byte) { return byte == '\n' || (byte >= ' ' && byte < 0x7f); };
  EXPECT_TRUE(std::all_of(corpus.train.begin(), corpus.train.end(), clean));
  EXPECT_TRUE(std::all_of(corpus.held_out.begin(), corpus.held_out.end(), clean));
  EXPECT_EQ(corpus.held_out.back(), '\n');
}

}  // namespace
}  // namespace examples
