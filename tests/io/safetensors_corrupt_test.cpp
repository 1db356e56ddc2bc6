// SPDX-License-Identifier: MIT
// Whatever the bytes are, reading them gives a checked file or an exception that says why not.
#include <random>

#include "io/support.hpp"
#include "retnet/io/safetensors.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::file_of;
using io_test::TempDir;
using io_test::write_file;

std::vector<std::byte> small_file() {
  const std::vector<float> a{1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F};
  const std::vector<bfloat16> b{bfloat16(1.0F), bfloat16(2.0F)};
  const std::vector<std::int64_t> c{1, 2};
  const std::array<bool, 3> d{true, false, true};
  SafetensorsWriter out;
  out.add("layers.0.a", {2, 3}, a);
  out.add("b", {2}, b);
  out.add("c", {2}, c);
  out.add("d", {3}, d);
  out.metadata("step", "17");
  return out.bytes();
}

/// True if it loaded; then every element is touched as well.
bool loads(std::span<const std::byte> bytes) {
  try {
    const SafetensorsFile file(bytes, "fuzz");
    for (const auto& t : file.tensors()) {
      EXPECT_LE(t.bytes.size(), bytes.size());
      std::vector<double> floats(t.size());
      std::vector<std::int64_t> ints(t.size());
      try {
        file.read(t, std::span<double>(floats));
      } catch (const std::invalid_argument&) {
      }
      try {
        file.read(t, std::span<std::int64_t>(ints));
      } catch (const std::invalid_argument&) {
      }
    }
    return true;
  } catch (const std::invalid_argument& e) {
    EXPECT_NE(std::string(e.what()).find("fuzz"), std::string::npos) << e.what();
    return false;
  }
}

TEST(CorruptSafetensors, EveryTruncationIsRefused) {
  const auto bytes = small_file();
  ASSERT_TRUE(loads(bytes));
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    // Memory of exactly this size, so that a sanitizer sees the first byte behind it.
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_FALSE(loads(cut)) << n << " bytes";
  }
}

TEST(CorruptSafetensors, EveryTruncationOfAMappedFileIsRefused) {
  const TempDir dir;
  const auto bytes = small_file();
  for (std::size_t n = 0; n <= bytes.size(); ++n) {
    write_file(dir / "f", std::span(bytes).first(n));
    if (n == bytes.size()) {
      EXPECT_EQ(SafetensorsFile(dir / "f").tensors().size(), 4u);
    } else {
      expect_error<std::invalid_argument>([&] { SafetensorsFile{dir / "f"}; },
                                          {dir / "f", "expected"});
    }
  }
}

TEST(CorruptSafetensors, MoreBytesAreRefused) {
  auto bytes = small_file();
  bytes.push_back(std::byte{0});
  expect_error<std::invalid_argument>([&] { SafetensorsFile{bytes}; },
                                      {"memory", "the tensors cover"});
}

TEST(CorruptSafetensors, SurvivesEverySingleByte) {
  const auto good = small_file();
  int loaded = 0, refused = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    auto bytes = good;
    for (const int value :
         {0x00, 0x01, 0x20, 0x22, 0x2C, 0x2D, 0x30, 0x39, 0x5B, 0x7B, 0x7D, 0x7F, 0x80, 0xFF,
          static_cast<int>(good[i]) ^ 1, static_cast<int>(good[i]) ^ 0x80}) {
      bytes[i] = static_cast<std::byte>(value);
      ++(loads(bytes) ? loaded : refused);
    }
  }
  EXPECT_GT(loaded, 0);
  EXPECT_GT(refused, loaded);
}

TEST(CorruptSafetensors, SurvivesRandomDamage) {
  const auto good = small_file();
  std::mt19937 random(1);
  for (int round = 0; round < 20'000; ++round) {
    auto bytes = good;
    const auto at = [&] { return static_cast<std::ptrdiff_t>(random() % bytes.size()); };
    for (unsigned edits = 1 + random() % 4; edits > 0; --edits) {
      switch (random() % 4) {
        case 0: bytes[static_cast<std::size_t>(at())] = static_cast<std::byte>(random()); break;
        case 1: bytes.erase(bytes.begin() + at()); break;
        case 2: bytes.insert(bytes.begin() + at(), static_cast<std::byte>(random())); break;
        default:
          std::swap(bytes[static_cast<std::size_t>(at())], bytes[static_cast<std::size_t>(at())]);
      }
    }
    loads(bytes);
  }
}

TEST(CorruptSafetensors, AbsurdHeaderLengthsAreRefused) {
  const auto good = small_file();
  for (const std::uint64_t length :
       {std::uint64_t{0}, std::uint64_t{good.size()}, std::uint64_t{good.size() - 7},
        std::uint64_t{100'000'001}, std::uint64_t{1} << 32, std::uint64_t{1} << 63,
        ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    auto bytes = good;
    std::memcpy(bytes.data(), &length, sizeof length);
    expect_error<std::invalid_argument>(
        [&] {
          SafetensorsFile{bytes, "bad"};
        },
        {"bad", "header", "expected"});
  }
}

TEST(CorruptSafetensors, TheHeaderIsBounded) {
  // One byte more than the format allows, all of it there.
  const auto bytes = file_of("{}" + std::string(detail::kMaxHeader - 1, ' '), 0);
  expect_error<std::invalid_argument>(
      [&] { SafetensorsFile{bytes}; },
      {"the header has 100000001 bytes, expected at most 100000000"});
}

TEST(CorruptSafetensors, HostileNamesDoNotSpoilMessages) {
  const auto bytes = file_of("{\"a\\nb" + std::string(10'000, 'c') + "\":3}", 0);
  try {
    SafetensorsFile{bytes};
    FAIL();
  } catch (const std::invalid_argument& e) {
    const std::string text = e.what();
    EXPECT_LT(text.size(), 500u);
    EXPECT_EQ(text.find('\n'), std::string::npos);
    EXPECT_NE(text.find("a?bccc"), std::string::npos);
  }
}

}  // namespace
}  // namespace retnet
