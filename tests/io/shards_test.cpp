// SPDX-License-Identifier: MIT
// One file or several with an index: the same tensors, and no inconsistency goes unnoticed.
#include "retnet/io/shards.hpp"

#include <array>

#include "io/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::TempDir;
using io_test::write_file;

void write_shard(const std::string& path, const std::vector<std::string>& names, float value) {
  SafetensorsWriter out;
  const std::array<float, 3> values{value, value + 1, value + 2};
  for (const auto& name : names) out.add(name, {3}, values);
  out.write(path);
}

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kGood =
    R"({"metadata": {"total_size": 36, "total_parameters": 9}, "weight_map":
       {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}})";

void write_good(const TempDir& dir) {
  write_shard(dir / "one.safetensors", {"a"}, 1);
  write_shard(dir / "two.safetensors", {"b", "c"}, 5);
  write_file(dir / kIndex, kGood);
}

TEST(Shards, AreOneCheckpoint) {
  const TempDir dir;
  write_good(dir);
  for (const std::string& path : {dir.string(), dir / kIndex}) {
    const ShardedSafetensors files(path);
    EXPECT_EQ(files.files().size(), 2U);
    ASSERT_EQ(files.tensors().size(), 3U);
    EXPECT_EQ(files.tensors()[2]->name, "c");
    EXPECT_EQ(files.read<double>("a"), (std::vector<double>{1, 2, 3}));
    EXPECT_EQ(files.read<float>("c"), (std::vector<float>{5, 6, 7}));
    EXPECT_EQ(files.find("d"), nullptr);
    expect_error<std::invalid_argument>([&] { files.read<float>("d"); }, {"no tensor d", "3"});
  }
}

TEST(Shards, LieInOneRangeOfAddresses) {
  const TempDir dir;
  write_good(dir);
  const ShardedSafetensors files(dir.string());
  const auto* a = files.find("a")->bytes.data();
  const auto* c = files.find("c")->bytes.data();
  ASSERT_LT(a, c);
  // What lies between is readable.
  int sum = 0;
  for (const std::byte* p = a; p != c; ++p) sum += std::to_integer<int>(*p);
  EXPECT_GT(sum, 0);
}

TEST(Shards, ReadAgainAfterRelease) {
  const TempDir dir;
  SafetensorsWriter out;
  std::vector<float> values(100000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  out.add("a", {100000}, values);
  out.write(dir / "model.safetensors");
  const ShardedSafetensors files(dir.string());
  EXPECT_EQ(files.read<float>("a"), values);
  files.release(*files.find("a"));
  EXPECT_EQ(files.read<float>("a"), values);
}

TEST(Shards, OneFileNeedsNoIndex) {
  const TempDir dir;
  write_shard(dir / "model.safetensors", {"a"}, 1);
  EXPECT_EQ(ShardedSafetensors(dir.string()).read<float>("a")[0], 1.0F);
  EXPECT_EQ(ShardedSafetensors(dir / "model.safetensors").read<float>("a")[0], 1.0F);
}

TEST(Shards, SayWhatIsNotThere) {
  const TempDir dir;
  const auto open = [&] { ShardedSafetensors files(dir.string()); };
  expect_error<std::invalid_argument>(open, {"holds neither", dir.string()});
  write_file(dir / "pytorch_model.bin", "x");
  expect_error<std::invalid_argument>(open, {"pytorch_model.bin", "convert"});
  write_good(dir);
  write_shard(dir / "model.safetensors", {"a"}, 1);
  expect_error<std::invalid_argument>(open, {"expected one of them"});
  expect_error<std::system_error>([&] { ShardedSafetensors files(dir / "none.safetensors"); },
                                  {"cannot read", "none.safetensors"});
}

TEST(Shards, AMissingShardIsNamed) {
  const TempDir dir;
  write_good(dir);
  std::filesystem::remove(dir / "two.safetensors");
  expect_error<std::system_error>([&] { ShardedSafetensors files(dir.string()); },
                                  {"cannot read", "two.safetensors"});
}

TEST(Shards, ABrokenShardIsNamed) {
  const TempDir dir;
  write_good(dir);
  write_file(dir / "two.safetensors", "short");
  expect_error<std::invalid_argument>([&] { ShardedSafetensors files(dir.string()); },
                                      {"two.safetensors", "5 bytes"});
  write_file(dir / "two.safetensors", "");
  expect_error<std::invalid_argument>([&] { ShardedSafetensors files(dir.string()); },
                                      {"two.safetensors", "0 bytes"});
}

TEST(Shards, AgreeWithTheIndex) {
  const TempDir dir;
  write_good(dir);
  const auto expect = [&](const std::string& weight_map, const std::string& size,
                          std::initializer_list<std::string_view> parts) {
    write_file(dir / kIndex,
               "{\"metadata\": {" + size + "}, \"weight_map\": {" + weight_map + "}}");
    expect_error<std::invalid_argument>([&] { ShardedSafetensors files(dir.string()); }, parts);
  };
  const std::string a = R"("a": "one.safetensors", )", c = R"("c": "two.safetensors")";
  expect(a + c, "", {"b in two.safetensors is not in the index"});
  expect(a + R"("b": "one.safetensors", )" + c, "",
         {"b is in two.safetensors, the index says one.safetensors"});
  expect(a + R"("b": "two.safetensors", "d": "one.safetensors", )" + c, "",
         {"d is not in one.safetensors"});
  expect(a + R"("b": "two.safetensors", )" + c, R"("total_size": 35)",
         {"36 bytes, the index says 35"});
  write_shard(dir / "one.safetensors", {"a", "b"}, 1);
  expect(a + R"("b": "two.safetensors", )" + c, "",
         {"b is in one.safetensors and in two.safetensors"});
}

TEST(ShardIndexTest, ReadsFromMemory) {
  const ShardIndex index = parse_shard_index(kGood);
  EXPECT_EQ(index.file_of.at("b"), "two.safetensors");
  EXPECT_EQ(index.total_size, 36U);
  EXPECT_EQ(index.files(), (std::vector<std::string>{"one.safetensors", "two.safetensors"}));
  EXPECT_FALSE(parse_shard_index(R"({"weight_map": {"a": "b.safetensors"}})").total_size);
}

TEST(ShardIndexTest, RefusesWhatIsNotAnIndex) {
  const auto expect = [](std::string_view text, std::initializer_list<std::string_view> parts) {
    expect_error<std::invalid_argument>([&] { parse_shard_index(text, "index"); }, parts);
  };
  expect("", {"[parse_shard_index]", "index", "not JSON"});
  expect("{", {"not JSON"});
  expect("[]", {"weight_map"});
  expect("{}", {"weight_map"});
  expect(R"({"weight_map": []})", {"weight_map"});
  expect(R"({"weight_map": {}})", {"weight_map"});
  expect(R"({"weight_map": {"a": 1}})", {"the file of a is 1"});
  expect(R"({"weight_map": {"a": null}})", {"the file of a is null"});
  expect(R"({"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}})", {"a is given twice"});
  expect(R"({"weight_map": {"a": "x.safetensors"}, "more": 1})", {"unknown key more"});
  expect(R"({"weight_map": {"a": "x.safetensors"}, "metadata": 1})", {"metadata is 1"});
  expect(R"({"weight_map": {"a": "x.safetensors"}, "metadata": {"total_size": -1}})",
         {"total_size is -1"});
  expect(R"({"weight_map": {"a": "x.safetensors"}, "metadata": {"total_size": 1.5}})",
         {"total_size is 1.5"});
  expect(std::string(100, '['), {"nested deeper"});
  expect(std::string_view("{\0}", 3), {"zero byte"});
}

TEST(ShardIndexTest, StaysInTheFolder) {
  for (const char* name :
       {"/etc/x.safetensors", "../x.safetensors", "a/../x.safetensors", "a/x.safetensors",
        "..\\\\x.safetensors", "c:x.safetensors", ".safetensors", "..safetensors", "x.bin",
        "x.bin\\u0000.safetensors", ""})
    expect_error<std::invalid_argument>(
        [&] { parse_shard_index(std::string(R"({"weight_map": {"a": ")") + name + "\"}}"); },
        {"the file of a is", "same folder"});
}

}  // namespace
}  // namespace retnet
