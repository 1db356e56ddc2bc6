// SPDX-License-Identifier: MIT
// What is written reads back bit for bit, in the format that other tools read.
#include "retnet/io/safetensors.hpp"

#include <bit>
#include <cmath>
#include <limits>

#include "io/support.hpp"

namespace retnet {
namespace {

using io_test::bytes_of;
using io_test::expect_error;
using io_test::file_of;
using io_test::TempDir;

using Limits = std::numeric_limits<double>;

TEST(Safetensors, ReadsAFileMadeByHand) {
  auto bytes = file_of(
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("n":{"dtype":"I16","shape":[],"data_offsets":[16,18]}}   )",
      0);
  for (const float x : {1.0F, -2.5F, 0.0F, 3.0F})
    for (const auto b : std::as_bytes(std::span(&x, 1))) bytes.push_back(b);
  bytes.push_back(std::byte{0x34});
  bytes.push_back(std::byte{0x12});
  const SafetensorsFile file(bytes, "hand");
  EXPECT_EQ(file.name(), "hand");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "n");
  EXPECT_EQ(file.at("w").describe(), "F32 [2,2]");
  EXPECT_EQ(file.at("w").shape, (std::vector<Index>{2, 2}));
  EXPECT_EQ(file.read<float>("w"), (std::vector<float>{1.0F, -2.5F, 0.0F, 3.0F}));
  EXPECT_EQ(file.read<double>("w"), (std::vector<double>{1.0, -2.5, 0.0, 3.0}));
  EXPECT_EQ(file.at("n").describe(), "I16 []");
  EXPECT_EQ(file.read<int>("n"), std::vector<int>{0x1234});
  EXPECT_EQ(file.find("x"), nullptr);
}

TEST(Safetensors, WritesTheFormatByteForByte) {
  const std::vector<std::uint8_t> narrow{7, 8, 9};
  const std::vector<float> wide{1.0F, -2.0F};
  SafetensorsWriter out;
  out.add("a", {3}, narrow);
  out.add("b", {1, 2}, wide);
  out.metadata("k", "v\"");
  const std::string header =
      R"({"__metadata__":{"k":"v\""},"b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";
  std::string expected = header + std::string((8 - header.size() % 8) % 8, ' ');
  const auto length = static_cast<char>(expected.size());
  expected = std::string{length, 0, 0, 0, 0, 0, 0, 0} + expected;
  expected += std::string{0, 0, char(0x80), 0x3F, 0, 0, 0, char(0xC0), 7, 8, 9};
  EXPECT_EQ(out.bytes(), bytes_of(expected));
}

TEST(Safetensors, DoesNotDependOnTheOrderOfAdding) {
  const std::vector<float> a{1.0F}, b{2.0F};
  const std::vector<double> c{3.0};
  SafetensorsWriter first, second;
  first.add("a", {1}, a);
  first.add("b", {1}, b);
  first.add("c", {1}, c);
  second.add("c", {1}, c);
  second.add("b", {1}, b);
  second.add("a", {1}, a);
  EXPECT_EQ(first.bytes(), second.bytes());
}

TEST(Safetensors, AnEmptyFileIsAFile) {
  const auto bytes = SafetensorsWriter().bytes();
  EXPECT_EQ(bytes, bytes_of(std::string{8, 0, 0, 0, 0, 0, 0, 0} + "{}      "));
  EXPECT_TRUE(SafetensorsFile(bytes).tensors().empty());
}

template <class T>
std::vector<T> samples() {
  using L = std::numeric_limits<T>;
  if constexpr (detail::StoredInteger<T>) {
    return {L::lowest(), T(0), T(1), T(2), L::max()};
  } else {
    return {T(0.0F),  -T(0.0F), T(1.0F),         T(-2.5F),      L::lowest(),
            L::max(), L::min(), L::denorm_min(), L::infinity(), L::quiet_NaN()};
  }
}

template <class T>
class EveryType : public testing::Test {};
using Types =
    testing::Types<double, float, half, bfloat16, std::int64_t, std::int32_t, std::int16_t,
                   std::int8_t, std::uint64_t, std::uint32_t, std::uint16_t, std::uint8_t>;
TYPED_TEST_SUITE(EveryType, Types);

TYPED_TEST(EveryType, RoundTripsBitForBit) {
  const TempDir dir;
  const auto values = samples<TypeParam>();
  const auto n = static_cast<Index>(values.size());
  SafetensorsWriter out;
  out.add("x", {n, 1}, values);
  out.write(dir / "f");
  const SafetensorsFile file(dir / "f");
  const StoredTensor& x = file.at("x");
  EXPECT_EQ(x.dtype, dtype_of<TypeParam>());
  EXPECT_EQ(dtype_bytes(x.dtype), sizeof(TypeParam));
  EXPECT_EQ(x.shape, (std::vector<Index>{n, 1}));
  const auto back = file.read<TypeParam>("x");
  ASSERT_EQ(back.size(), values.size());
  EXPECT_EQ(std::memcmp(static_cast<const void*>(back.data()), values.data(), x.bytes.size()), 0);
}

TYPED_TEST(EveryType, ReadsFromAnyAlignment) {
  const auto values = samples<TypeParam>();
  SafetensorsWriter out;
  out.add("x", {static_cast<Index>(values.size())}, values);
  const auto bytes = out.bytes();
  for (std::size_t shift = 0; shift < 8; ++shift) {
    std::vector<std::byte> moved(shift);
    moved.insert(moved.end(), bytes.begin(), bytes.end());
    const SafetensorsFile file(std::span<const std::byte>(moved).subspan(shift));
    const auto back = file.read<TypeParam>("x");
    EXPECT_EQ(std::memcmp(static_cast<const void*>(back.data()), values.data(),
                          values.size() * sizeof(TypeParam)),
              0);
    if constexpr (detail::StoredFloat<TypeParam>) {
      EXPECT_EQ(file.read<double>("x")[3], -2.5);
    }
  }
}

TEST(Safetensors, RoundTripsBool) {
  const std::array<bool, 3> values{true, false, true};
  SafetensorsWriter out;
  out.add("x", {3}, values);
  const auto bytes = out.bytes();
  const SafetensorsFile file(bytes);
  std::array<bool, 3> back{};
  file.read(file.at("x"), std::span<bool>(back));
  EXPECT_EQ(back, values);
  auto broken = bytes;
  broken.back() = std::byte{2};
  const SafetensorsFile other(broken, "broken");
  expect_error<std::invalid_argument>([&] { other.read(other.at("x"), std::span<bool>(back)); },
                                      {"broken", "x is BOOL [3]", "do not fit"});
}

TEST(Safetensors, RoundTripsRawTypes) {
  const auto raw = bytes_of("12345678");
  for (const auto& info : detail::kDtypes) {
    SafetensorsWriter out;
    out.add("x", info.dtype, {static_cast<Index>(8 / info.bytes)}, raw);
    const auto bytes = out.bytes();
    const SafetensorsFile file(bytes);
    EXPECT_EQ(file.at("x").dtype, info.dtype);
    EXPECT_EQ(std::vector<std::byte>(file.at("x").bytes.begin(), file.at("x").bytes.end()), raw);
    EXPECT_EQ(dtype_from_name(info.name), info.dtype);
  }
}

TEST(Safetensors, ConvertsFloats) {
  const std::vector<double> values{1.0, 1.0 + 0x1p-9, 1e300, -0x1p-30, Limits::quiet_NaN()};
  SafetensorsWriter out;
  out.add("x", {5}, values);
  const auto bytes = out.bytes();
  const SafetensorsFile file(bytes);
  const auto as_float = file.read<float>("x");
  EXPECT_EQ(as_float[1], static_cast<float>(1.0 + 0x1p-9));
  EXPECT_TRUE(std::isinf(as_float[2]));
  EXPECT_TRUE(std::isnan(as_float[4]));
  const auto as_bfloat = file.read<bfloat16>("x");
  EXPECT_EQ(static_cast<float>(as_bfloat[1]), 1.0F);  // to nearest even
  EXPECT_EQ(static_cast<float>(as_bfloat[3]), -0x1p-30F);
  EXPECT_TRUE(std::isnan(static_cast<float>(as_bfloat[4])));

  const std::vector<bfloat16> narrow{bfloat16(1.5F), bfloat16(-3.0F)};
  SafetensorsWriter more;
  more.add("x", {2}, narrow);
  const auto narrow_bytes = more.bytes();
  EXPECT_EQ(SafetensorsFile(narrow_bytes).read<float>("x"), (std::vector<float>{1.5F, -3.0F}));
  EXPECT_EQ(SafetensorsFile(narrow_bytes).read<double>("x"), (std::vector<double>{1.5, -3.0}));
}

TEST(Safetensors, ConvertsIntegersThatFit) {
  const std::vector<std::int64_t> values{-1, 0, 127};
  SafetensorsWriter out;
  out.add("x", {3}, values);
  const auto bytes = out.bytes();
  const SafetensorsFile file(bytes, "ints");
  EXPECT_EQ(file.read<signed char>("x"), (std::vector<signed char>{-1, 0, 127}));
  expect_error<std::invalid_argument>([&] { file.read<unsigned>("x"); },
                                      {"[SafetensorsFile::read]", "ints", "x is I64 [3]", "U32"});
}

TEST(Safetensors, RefusesOtherKindsAndSizes) {
  const std::vector<float> values{1.0F, 2.0F};
  SafetensorsWriter out;
  out.add("x", {2}, values);
  const auto bytes = out.bytes();
  const SafetensorsFile file(bytes, "floats");
  expect_error<std::invalid_argument>([&] { file.read<int>("x"); },
                                      {"floats", "x is F32 [2]", "expected an integer type"});
  std::vector<float> three(3);
  expect_error<std::invalid_argument>([&] { file.read(file.at("x"), std::span<float>(three)); },
                                      {"floats", "x is F32 [2]", "expected 3 elements"});
  expect_error<std::invalid_argument>([&] { file.at("y"); },
                                      {"floats", "no tensor y", "of the 1 in"});
}

TEST(Safetensors, KeepsNamesAndMetadataOfAnyText) {
  const std::vector<float> value{1.0F};
  const std::string odd = std::string("\"\\\n\t\0\x7F", 6) + "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  SafetensorsWriter out;
  out.add(odd, {}, value);
  out.add("", {1}, value);
  out.metadata(odd, odd);
  out.metadata("", "first");
  out.metadata("", "second");
  const auto bytes = out.bytes();
  const SafetensorsFile file(bytes);
  EXPECT_EQ(file.read<float>(odd), value);
  EXPECT_EQ(file.read<float>(""), value);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{odd, odd}, {"", "second"}}));
}

TEST(Safetensors, TakesEmptyTensorsAnywhere) {
  const std::vector<float> some{1.0F, 2.0F}, none;
  SafetensorsWriter out;
  out.add("a", {0, 5}, none);
  out.add("b", {2}, some);
  out.add("c", {3, 0}, none);
  const auto bytes = out.bytes();
  const SafetensorsFile file(bytes);
  EXPECT_EQ(file.at("a").shape, (std::vector<Index>{0, 5}));
  EXPECT_TRUE(file.read<float>("c").empty());
  EXPECT_EQ(file.read<float>("b"), some);
}

TEST(Safetensors, WriterRefusesWhatNoFileMayHold) {
  const std::vector<float> two{1.0F, 2.0F};
  SafetensorsWriter out;
  out.add("x", {2}, two);
  const auto refused = [&](const char* name, std::vector<Index> shape, std::string_view part) {
    expect_error<std::invalid_argument>([&] { out.add(name, shape, two); },
                                        {"[SafetensorsWriter::add]", part});
  };
  refused("x", {2}, "x is taken");
  refused("__metadata__", {2}, "reserved");
  refused("y", {3}, "y is F32 [3], given 8 bytes");
  refused("y", {-1, -2}, "y is F32 [-1,-2]");
  refused("y", {Index{1} << 40, Index{1} << 40}, "y is F32");
  refused("\xFF", {2}, "not UTF-8");
  expect_error<std::invalid_argument>([&] { out.metadata("k", "\xC3"); }, {"not UTF-8"});
  const auto bytes = out.bytes();
  EXPECT_EQ(SafetensorsFile(bytes).tensors().size(), 1u);
}

TEST(Safetensors, CopiesKeepTheFileAlive) {
  const TempDir dir;
  const std::vector<float> values{1.0F, 2.0F};
  SafetensorsWriter out;
  out.add("x", {2}, values);
  out.write(dir / "f");
  auto file = std::make_unique<SafetensorsFile>(dir / "f");
  const SafetensorsFile copy = *file;
  file.reset();
  EXPECT_EQ(copy.read<float>("x"), values);
}

}  // namespace
}  // namespace retnet
