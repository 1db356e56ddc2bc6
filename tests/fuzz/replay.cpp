// SPDX-License-Identifier: MIT
// Feeds a fuzz target the files of folders, each whole and cut short in some places.
//   fuzz_<target> <folder>...
#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"

namespace {

std::vector<std::string> files_of(int count, char** folders) {
  std::vector<std::string> out;
  for (int i = 1; i < count; ++i)
    for (const auto& entry : std::filesystem::directory_iterator(folders[i]))
      if (entry.is_regular_file()) out.push_back(entry.path().string());
  std::ranges::sort(out);
  return out;
}

}  // namespace

int main(int argc, char** argv) try {
  const auto files = files_of(argc, argv);
  for (const std::string& path : files) {
    std::printf("%s\n", path.c_str());  // the last line names the file that ended the program
    std::fflush(stdout);
    std::ifstream in(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
    constexpr std::size_t kCuts = 8;
    for (std::size_t cut = 0; cut <= kCuts; ++cut) {
      // Memory of exactly this size, so that a sanitizer sees the first byte behind it.
      const std::vector<std::uint8_t> part(
          bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() * cut / kCuts));
      LLVMFuzzerTestOneInput(part.data(), part.size());
    }
  }
  std::printf("%zu files, nothing found\n", files.size());
  return files.empty() ? 1 : 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "an exception that is not documented: %s\n", e.what());
  return 1;
}
