// SPDX-License-Identifier: MIT
// Checkpoints come back exactly, or not at all with every reason named.
#include "retnet/io/checkpoint.hpp"

#include <clocale>
#include <cmath>
#include <cstring>
#include <limits>

#include "io/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::read_file;
using io_test::TempDir;

ParamLayout small_layout() {
  ParamLayout layout;
  layout.add("proj.weight", 3, 5, {Init::Kind::xavier_uniform});
  layout.add("norm.weight", 1, 7, {Init::Kind::ones}, false);
  layout.add("out.weight", 2, 2, {Init::Kind::normal});
  return layout;
}

template <class S>
ParamBuffer<S> filled(const ParamLayout& layout, std::uint64_t seed) {
  ParamBuffer<S> buffer(layout);
  initialize(buffer, layout, Seed{seed});
  return buffer;
}

template <class S>
bool same_bits(const ParamBuffer<S>& a, const ParamBuffer<S>& b) {
  return a.flat().size() == b.flat().size() &&
         std::memcmp(static_cast<const void*>(a.flat().data()), b.flat().data(),
                     a.flat().size_bytes()) == 0;
}

template <class S>
class Params : public testing::Test {};
using Scalars = testing::Types<float, double, bfloat16, half>;
TYPED_TEST_SUITE(Params, Scalars);

TYPED_TEST(Params, RoundTripExactly) {
  const TempDir dir;
  const auto layout = small_layout();
  const auto saved = filled<TypeParam>(layout, 1);
  save_params(dir / "p", layout, saved, "ema.");
  ParamBuffer<TypeParam> empty;
  load_params(dir / "p", layout, empty, "ema.");
  EXPECT_TRUE(same_bits(saved, empty));
  auto other = filled<TypeParam>(layout, 2);
  const auto* memory = other.flat().data();
  load_params(dir / "p", layout, other, "ema.");
  EXPECT_TRUE(same_bits(saved, other));
  EXPECT_EQ(other.flat().data(), memory) << "a buffer of the right size keeps its memory";
}

TEST(Params, AreTensorsUnderTheirNames) {
  const TempDir dir;
  const auto layout = small_layout();
  const auto saved = filled<float>(layout, 1);
  save_params(dir / "p", layout, saved);
  const SafetensorsFile file(dir / "p");
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.at("proj.weight").describe(), "F32 [3,5]");
  EXPECT_EQ(file.at("norm.weight").describe(), "F32 [7]");
  EXPECT_EQ(file.read<float>("proj.weight")[4], saved[layout.find("proj.weight")->place](0, 4));
  EXPECT_EQ(file.metadata().at("format"), "retnet");
  EXPECT_EQ(file.metadata().at("library_version"), RETNET_VERSION_STRING);
}

TEST(Params, AreReadFromOtherFloatTypes) {
  const TempDir dir;
  const auto layout = small_layout();
  const auto wide = filled<double>(layout, 1);
  save_params(dir / "p", layout, wide);
  ParamBuffer<float> narrow;
  load_params(dir / "p", layout, narrow);
  EXPECT_TRUE(same_bits(narrow, wide.cast<float>()));
  save_params(dir / "p", layout, wide.cast<bfloat16>());
  load_params(dir / "p", layout, narrow);
  EXPECT_TRUE(same_bits(narrow, wide.cast<bfloat16>().cast<float>()));
}

TEST(Params, AVectorMayBeARowOfAnotherTool) {
  const auto layout = small_layout();
  const auto saved = filled<float>(layout, 1);
  SafetensorsWriter out;
  const auto part = [&](const char* name) {
    const Param p = layout.find(name)->place;
    return std::span<const float>(saved[p].data, static_cast<std::size_t>(p.size()));
  };
  out.add("proj.weight", {3, 5}, part("proj.weight"));
  out.add("norm.weight", {1, 7}, part("norm.weight"));
  out.add("out.weight", {2, 2}, part("out.weight"));
  const auto bytes = out.bytes();
  CheckpointReader in{SafetensorsFile(bytes)};
  ParamBuffer<float> loaded;
  in.expect_params("", layout, loaded);
  in.load();
  EXPECT_TRUE(same_bits(saved, loaded));
}

TEST(Params, EveryMismatchIsNamedAndNothingIsLoaded) {
  const TempDir dir;
  ParamLayout other;
  other.add("proj.weight", 5, 3, {Init::Kind::ones});
  other.add("norm.weight", 1, 7, {Init::Kind::ones});
  other.add("extra.weight", 2, 2, {Init::Kind::ones});
  save_params(dir / "p", other, filled<float>(other, 1));
  const auto layout = small_layout();
  auto buffer = filled<float>(layout, 2);
  expect_error<std::invalid_argument>(
      [&] { load_params(dir / "p", layout, buffer); },
      {"[CheckpointReader::load]", dir / "p", "holds 3 tensors, expected these 3",
       "proj.weight is F32 [5,3], expected F64, F32, F16 or BF16 [3,5]",
       "missing: out.weight, expected [2,2]", "unknown: extra.weight F32 [2,2]"});
  EXPECT_TRUE(same_bits(buffer, filled<float>(layout, 2)));
  ParamBuffer<float> empty;
  EXPECT_THROW(load_params(dir / "p", layout, empty), std::invalid_argument);
  EXPECT_TRUE(empty.empty());
}

TEST(Params, OtherKindsAreRefused) {
  const TempDir dir;
  ParamLayout layout;
  layout.add("w", 1, 2, {});
  const std::vector<int> values{1, 2};
  SafetensorsWriter out;
  out.add("w", {2}, values);
  out.write(dir / "p");
  ParamBuffer<float> buffer;
  expect_error<std::invalid_argument>([&] { load_params(dir / "p", layout, buffer); },
                                      {"w is I32 [2], expected F64, F32, F16 or BF16 [2]"});
  expect_error<std::invalid_argument>(
      [&] { save_params(dir / "p", layout, buffer); },
      {"[CheckpointWriter::add_params]", "0 elements, expected 32"});
}

TEST(Checkpoint, HoldsATrainingRun) {
  const TempDir dir;
  const auto layout = small_layout();
  const auto w = filled<float>(layout, 1), m = filled<float>(layout, 2),
             v = filled<float>(layout, 3);
  {
    CheckpointWriter out;
    out.add_params("", layout, w);
    out.add_params("adam.m.", layout, m);
    out.add_params("adam.v.", layout, v);
    out.set("step", std::int64_t{123456789012345});
    out.set("seed", ~std::uint64_t{0});
    out.set("learning_rate", 0.1 + 0.2);
    out.set("best_loss", std::numeric_limits<double>::infinity());
    out.set("note", "line one\nline two \xE2\x82\xAC");
    out.set("done", true);
    out.write(dir / "run");
  }
  CheckpointReader in(dir / "run");
  ParamBuffer<float> w2, m2, v2(layout);
  in.expect_params("", layout, w2);
  in.expect_params("adam.m.", layout, m2);
  in.expect_params("adam.v.", layout, v2);
  EXPECT_TRUE(w2.empty()) << "filled by load(), not before";
  in.load();
  EXPECT_TRUE(same_bits(w, w2));
  EXPECT_TRUE(same_bits(m, m2));
  EXPECT_TRUE(same_bits(v, v2));
  EXPECT_EQ(in.get<std::int64_t>("step"), 123456789012345);
  EXPECT_EQ(in.get<std::uint64_t>("seed"), ~std::uint64_t{0});
  EXPECT_EQ(in.get<double>("learning_rate"), 0.1 + 0.2);
  EXPECT_EQ(in.get<double>("best_loss"), std::numeric_limits<double>::infinity());
  EXPECT_EQ(in.get<std::string>("note"), "line one\nline two \xE2\x82\xAC");
  EXPECT_TRUE(in.get<bool>("done"));
  EXPECT_FALSE(in.has("nothing"));
}

TEST(Checkpoint, LoadsAllSectionsOrNone) {
  const TempDir dir;
  const auto layout = small_layout();
  CheckpointWriter out;
  const auto w = filled<float>(layout, 1);
  out.add_params("", layout, w);
  out.add_params("adam.m.", layout, w);
  out.write(dir / "run");
  auto w2 = filled<float>(layout, 2), m2 = filled<float>(layout, 3), v2 = m2;
  CheckpointReader in(dir / "run");
  in.expect_params("", layout, w2);
  in.expect_params("adam.m.", layout, m2);
  in.expect_params("adam.v.", layout, v2);
  expect_error<std::invalid_argument>([&] { in.load(); }, {"missing: adam.v.proj.weight"});
  EXPECT_TRUE(same_bits(w2, filled<float>(layout, 2)));
  EXPECT_TRUE(same_bits(m2, filled<float>(layout, 3)));
  CheckpointReader less(dir / "run");
  less.expect_params("", layout, w2);
  expect_error<std::invalid_argument>([&] { less.load(); },
                                      {"unknown: adam.m.norm.weight F32 [7]"});
  expect_error<std::invalid_argument>([&] { less.expect_params("", layout, w2); },
                                      {"announced before"});
}

TEST(Checkpoint, NumbersComeBackExactlyInAnyLocale) {
  const char* set =
      std::setlocale(LC_ALL, "de_DE.UTF-8");  // a comma for the point, where installed
  const std::vector<double> values{0.0,
                                   -0.0,
                                   1.0,
                                   0.1,
                                   1.0 / 3.0,
                                   1e-310,
                                   std::numeric_limits<double>::denorm_min(),
                                   std::numeric_limits<double>::max(),
                                   std::numeric_limits<double>::lowest(),
                                   3e22,
                                   -std::numeric_limits<double>::infinity(),
                                   std::nextafter(1.0, 2.0)};
  CheckpointWriter out;
  for (std::size_t i = 0; i < values.size(); ++i) out.set("v" + std::to_string(i), values[i]);
  out.set("nan", std::numeric_limits<double>::quiet_NaN());
  out.set("float", 0.1F);
  out.set("low", std::numeric_limits<std::int64_t>::min());
  const auto bytes = out.bytes();
  const CheckpointReader in{SafetensorsFile(bytes)};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto back = in.get<double>("v" + std::to_string(i));
    EXPECT_EQ(std::memcmp(&back, &values[i], sizeof back), 0) << values[i];
  }
  EXPECT_TRUE(std::isnan(in.get<double>("nan")));
  EXPECT_EQ(in.get<float>("float"), 0.1F);
  EXPECT_EQ(in.get<std::int64_t>("low"), std::numeric_limits<std::int64_t>::min());
  if (set != nullptr) std::setlocale(LC_ALL, "C");
}

TEST(Checkpoint, WrongValuesAreNamed) {
  CheckpointWriter out;
  out.set("step", 300);
  out.set("rate", 0.5);
  out.set("word", "3x");
  out.set("huge", "1e999");
  out.set("empty", "");
  const auto bytes = out.bytes();
  const CheckpointReader in{SafetensorsFile(bytes, "run")};
  const std::string_view where = "[CheckpointReader::get]";
  expect_error<std::invalid_argument>([&] { in.get<int>("steps"); },
                                      {where, "run: no key steps", "an integer"});
  expect_error<std::invalid_argument>([&] { in.get<std::uint8_t>("step"); },
                                      {where, "run: step is 300", "from 0 to 255"});
  expect_error<std::invalid_argument>([&] { in.get<int>("rate"); }, {"rate is 0.5", "an integer"});
  expect_error<std::invalid_argument>([&] { in.get<int>("word"); }, {"word is 3x"});
  expect_error<std::invalid_argument>([&] { in.get<double>("word"); }, {"word is 3x", "a number"});
  expect_error<std::invalid_argument>([&] { in.get<double>("huge"); },
                                      {"huge is 1e999", "a number"});
  expect_error<std::invalid_argument>([&] { in.get<double>("empty"); }, {"empty is \"\""});
  expect_error<std::invalid_argument>([&] { in.get<bool>("step"); },
                                      {"step is 300", "true or false"});
  EXPECT_EQ(in.get<double>("step"), 300.0);
  expect_error<std::invalid_argument>([&] { out.set("format", "x"); },
                                      {"[CheckpointWriter::set]", "format"});
}

TEST(Checkpoint, LaterVersionsAreRefused) {
  SafetensorsWriter out;
  out.metadata("format", "retnet");
  out.metadata("format_version", "2");
  const auto bytes = out.bytes();
  expect_error<std::invalid_argument>([&] { CheckpointReader{SafetensorsFile(bytes, "later")}; },
                                      {"later: format_version is 2, expected 1 to 1"});
}

TEST(Checkpoint, TheFileIsTheSameEachTime) {
  const TempDir dir;
  const auto layout = small_layout();
  save_params(dir / "a", layout, filled<float>(layout, 1));
  save_params(dir / "b", layout, filled<float>(layout, 1));
  EXPECT_EQ(read_file(dir / "a"), read_file(dir / "b"));
}

}  // namespace
}  // namespace retnet
