// SPDX-License-Identifier: MIT
// Checkpoints of every dialect: what is written is read back as the same model, from one file or
// several, in the mapped file or converted.
#include "retnet/io/pretrained.hpp"

#include <fstream>

#include "io/pretrained_models.hpp"
#include "retnet/model/presets.hpp"

namespace retnet {
namespace {

using io_test::config_of;
using io_test::DialectCase;
using io_test::expect_error;
using io_test::expect_same_function;
using io_test::expect_same_weights;
using io_test::model_of;
using io_test::TempDir;

class PretrainedRoundTrip : public testing::TestWithParam<DialectCase> {
 protected:
  const DialectCase c = GetParam();
  const RetNetConfig config = config_of(c);
  const TempDir dir;
};

TEST_P(PretrainedRoundTrip, IsTheSameModel) {
  const auto model = model_of<float>(config);
  save_pretrained(dir.string(), model, c.dialect);
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"config.json", "model.safetensors"}));
  PretrainedInfo info;
  const auto loaded = load_pretrained<float>(dir.string(), {.compat = c.compat}, &info);
  EXPECT_EQ(info.dialect, c.dialect);
  EXPECT_EQ(info.dtype, Dtype::f32);
  EXPECT_EQ(info.parameters, model.count_params());
  EXPECT_EQ(info.files, 1U);
  EXPECT_TRUE(loaded.weight_buffer().borrows());
  // XATL's mixed decays have no rule of ours: the file's buffers say them, to float32.
  if (config.retention.decay != DecayKind::values) {
    EXPECT_EQ(config_to_json(loaded.config()), config_to_json(config));
    expect_same_function(model, loaded);
  }
  expect_same_weights(model, loaded);
}

// Written, read and written again: the same bytes.
TEST_P(PretrainedRoundTrip, IsTheSameFile) {
  save_pretrained(dir / "one", model_of<float>(config), c.dialect);
  const auto loaded = load_pretrained<float>(dir / "one", {.compat = c.compat});
  save_pretrained(dir / "two", loaded, c.dialect);
  const auto again = load_pretrained<float>(dir / "two", {.compat = c.compat});
  EXPECT_EQ(config_to_json(again.config()), config_to_json(loaded.config()));
  for (const char* name : {"/config.json", "/model.safetensors"})
    EXPECT_EQ(io_test::read_file(dir / std::string("one") + name),
              io_test::read_file(dir / std::string("two") + name))
        << name;
}

TEST_P(PretrainedRoundTrip, InShards) {
  const auto model = model_of<float>(config);
  save_pretrained(dir.string(), model, c.dialect, {.max_shard_bytes = 4000});
  EXPECT_GT(dir.names().size(), 3U);
  PretrainedInfo info;
  const auto loaded = load_pretrained<float>(dir.string(), {.compat = c.compat}, &info);
  EXPECT_GE(info.files, 2U);
  EXPECT_TRUE(loaded.weight_buffer().borrows());
  expect_same_weights(model, loaded);
  expect_same_function(
      load_pretrained<float>(dir / "model.safetensors.index.json", {.compat = c.compat}), loaded);
  // Back in one file: the index of before is gone, or it would be taken for this one.
  save_pretrained(dir.string(), loaded, c.dialect);
  EXPECT_FALSE(std::filesystem::exists(dir / "model.safetensors.index.json"));
  expect_same_weights(model, load_pretrained<float>(dir.string(), {.compat = c.compat}));
  save_pretrained(dir.string(), model, c.dialect, {.max_shard_bytes = 4000});
  EXPECT_FALSE(std::filesystem::exists(dir / "model.safetensors"));
}

TEST_P(PretrainedRoundTrip, InEveryType) {
  const auto model = model_of<double>(config);
  save_pretrained(dir / "f64", model, c.dialect);
  EXPECT_EQ(inspect_pretrained(dir / "f64").dtype, Dtype::f64);
  expect_same_weights(model, load_pretrained<double>(dir / "f64", {.compat = c.compat}));
  save_pretrained(dir / "bf16", model, c.dialect, {.dtype = Dtype::bf16});
  EXPECT_EQ(inspect_pretrained(dir / "bf16").dtype, Dtype::bf16);
  const auto narrow = model.with_weights(model.weight_buffer().template cast<bfloat16>());
  const auto half_size = load_pretrained<double, bfloat16>(dir / "bf16", {.compat = c.compat});
  EXPECT_TRUE(half_size.weight_buffer().borrows());
  expect_same_weights(narrow, half_size);
  const auto wide = load_pretrained<double>(dir / "bf16", {.compat = c.compat});
  EXPECT_FALSE(wide.weight_buffer().borrows());
  expect_same_weights(model.with_weights(narrow.weight_buffer().template cast<double>()), wide);
  save_pretrained(dir / "f16", model, c.dialect, {.dtype = Dtype::f16});
  EXPECT_EQ(load_pretrained<float>(dir / "f16").count_params(), model.count_params());
  expect_error<std::invalid_argument>(
      [&] { save_pretrained(dir / "i8", model, c.dialect, {.dtype = Dtype::i8}); }, {"dtype = I8"});
}

TEST_P(PretrainedRoundTrip, BehindAPrefix) {
  save_pretrained(dir.string(), model_of<float>(config), c.dialect);
  const SafetensorsFile file(dir / "model.safetensors");
  SafetensorsWriter out;
  for (const auto& [key, value] : file.metadata()) out.metadata(key, value);
  for (const auto& t : file.tensors()) out.add("decoder." + t.name, t.dtype, t.shape, t.bytes);
  out.write(dir / "model.safetensors");
  PretrainedInfo info;
  const auto loaded = load_pretrained<float>(dir.string(), {.compat = c.compat}, &info);
  EXPECT_EQ(info.keys.prefix(), detail::is_hugging_face(c.dialect) ? "decoder.model." : "decoder.");
  expect_same_weights(model_of<float>(config), loaded);
}

INSTANTIATE_TEST_SUITE_P(Dialects, PretrainedRoundTrip, testing::ValuesIn(io_test::dialect_cases()),
                         [](const auto& param) { return param.param.name; });

// ---- our own files ----

TEST(PretrainedOwn, SaveModelIsReadToo) {
  const TempDir dir;
  const RetNetModel<float> model(
      presets::yoco({.vocab = 19, .d_model = 16, .layers = 2, .heads = 2}), Seed{3});
  save_model(dir / "model.safetensors", model);
  for (const std::string& path : {dir.string(), dir / "model.safetensors"}) {
    PretrainedInfo info;
    const auto loaded = load_pretrained<float>(path, {}, &info);
    EXPECT_EQ(info.dialect, Dialect::retnet);
    EXPECT_TRUE(loaded.weight_buffer().borrows());
    EXPECT_EQ(config_to_json(loaded.config()), config_to_json(model.config()));
    expect_same_function(model, loaded);
  }
}

TEST(PretrainedOwn, IsSavedToo) {
  const TempDir dir;
  const RetNetModel<float> model(
      presets::jamie({.vocab = 19, .d_model = 16, .layers = 2, .heads = 2}));
  save_pretrained(dir / "whole", model, Dialect::retnet);
  EXPECT_EQ(io_test::read_file(dir / "whole/model.safetensors"), [&] {
    save_model(dir / "m", model);
    return io_test::read_file(dir / "m");
  }());
  save_pretrained(dir / "shards", model, Dialect::retnet, {.max_shard_bytes = 3000});
  EXPECT_GT(inspect_pretrained(dir / "shards").files, 1U);
  expect_same_function(model, load_pretrained<float>(dir / "shards"));
}

TEST(PretrainedOwn, AForeignFileHasNoConfigInside) {
  const TempDir dir;
  const auto config = config_of(io_test::dialect_cases()[3]);
  save_pretrained(dir.string(), model_of<float>(config), Dialect::torchscale_v2);
  expect_error<std::invalid_argument>(
      [&] { inspect_pretrained(dir.string(), {.dialect = Dialect::retnet}); },
      {"no config in its metadata"});
}

// ---- old and redundant tensors ----

TEST(PretrainedFla, ReadsTheFusedMlp) {
  const TempDir dir;
  const DialectCase fla{"fla", Dialect::fla, R"("intermediate_size": 20)"};
  const auto model = model_of<float>(config_of(fla));
  save_pretrained(dir.string(), model, Dialect::fla);
  const SafetensorsFile file(dir / "model.safetensors");
  SafetensorsWriter out;
  std::vector<std::vector<std::byte>> fused;
  fused.reserve(2);
  for (const auto& t : file.tensors()) {
    if (t.name.find("up_proj") != std::string::npos) continue;
    if (t.name.find("gate_proj") == std::string::npos) {
      out.add(t.name, t.dtype, t.shape, t.bytes);
      continue;
    }
    std::string other = t.name;
    other.replace(other.find("gate_proj"), 9, "up_proj");
    auto& both = fused.emplace_back(t.bytes.begin(), t.bytes.end());
    const auto up = file.at(other).bytes;
    both.insert(both.end(), up.begin(), up.end());
    out.add(t.name, t.dtype, {40, 16}, both);
  }
  out.write(dir / "model.safetensors");
  PretrainedInfo info;
  const auto loaded = load_pretrained<float>(dir.string(), {}, &info);
  EXPECT_TRUE(loaded.weight_buffer().borrows());
  expect_same_weights(model, loaded);
  expect_same_function(model, loaded);

  const auto tensors = keyed_tensors(info.keys, loaded.layout());
  const auto gate =
      std::ranges::find(tensors, "model.layers.1.mlp.gate_proj.weight", &KeyedTensor::key);
  ASSERT_NE(gate, tensors.end());
  EXPECT_EQ(gate->shape, (std::vector<Index>{40, 16}));
  EXPECT_EQ(gather<float>(*gate, loaded.weight_buffer()),
            ShardedSafetensors(dir.string()).read<float>(gate->key));
}

TEST(PretrainedTied, ARepeatedOutputMustBeTheEmbedding) {
  const TempDir dir;
  const DialectCase tied{"tied", Dialect::fla,
                         R"("intermediate_size": 20, "tie_word_embeddings": true)"};
  const auto model = model_of<float>(config_of(tied));
  const auto save_with = [&](const std::vector<float>& output) {
    save_pretrained(dir.string(), model, Dialect::fla);
    const SafetensorsFile file(dir / "model.safetensors");
    SafetensorsWriter out;
    for (const auto& t : file.tensors()) out.add(t.name, t.dtype, t.shape, t.bytes);
    out.add("lm_head.weight", {13, 16}, output);
    out.write(dir / "model.safetensors");
  };
  save_pretrained(dir.string(), model, Dialect::fla);
  auto output = ShardedSafetensors(dir.string()).read<float>("model.embeddings.weight");
  save_with(output);
  expect_same_function(model, load_pretrained<float>(dir.string()));
  output[5] += 1.0F;
  save_with(output);
  expect_error<std::invalid_argument>([&] { inspect_pretrained(dir.string()); },
                                      {"lm_head.weight", "not the embedding"});
}

// ---- angles and decays ----

TEST(PretrainedRelPos, TheFileIsPreferred) {
  const TempDir dir;
  auto config = config_of(io_test::dialect_cases()[3]);
  config.retention.decay = DecayKind::values;
  config.retention.gamma = {0.25, 1.0};
  config.retention.theta = ThetaKind::values;
  config.retention.theta_values = {1.5, 0.1, 0.25, 0.0};
  const auto model = model_of<float>(config);
  save_pretrained(dir.string(), model, Dialect::torchscale_v2);
  const ShardedSafetensors files(dir.string());
  EXPECT_EQ(files.find("retnet_rel_pos.angle")->shape, (std::vector<Index>{8}));
  EXPECT_EQ(files.find("retnet_rel_pos.angle")->dtype, Dtype::f64);  // 0.1 is no float
  EXPECT_EQ(files.read<double>("retnet_rel_pos.angle")[3], 0.1);
  const auto loaded = load_pretrained<float>(dir.string());
  EXPECT_EQ(config_to_json(loaded.config()), config_to_json(config));
  expect_same_function(model, loaded);
}

// The original has the buffer with no element then, and misses it.
TEST(PretrainedRelPos, IsThereWithoutRotation) {
  const TempDir dir;
  auto config = presets::xatl({.vocab = 13, .d_model = 16, .layers = 1, .heads = 2});
  config.retention.rotation = RotationLayout::none;
  const auto model = model_of<float>(config);
  save_pretrained(dir.string(), model, Dialect::xatl);
  const ShardedSafetensors files(dir.string());
  ASSERT_NE(files.find("model.retnet_rel_pos.angle"), nullptr);
  EXPECT_EQ(files.find("model.retnet_rel_pos.angle")->shape, (std::vector<Index>{0}));
  EXPECT_EQ(files.find("model.retnet_rel_pos.angle")->dtype, Dtype::f32);
  expect_same_function(model, load_pretrained<float>(dir.string()));
}

TEST(PretrainedRelPos, IsComputedWhereItIsMissing) {
  const TempDir dir;
  const auto c = io_test::dialect_cases()[6];
  const auto model = model_of<float>(config_of(c));
  save_pretrained(dir.string(), model, c.dialect);
  const SafetensorsFile file(dir / "model.safetensors");
  SafetensorsWriter without, edited;
  const std::vector<float> halves{-0.5F, -0.25F};
  for (const auto& t : file.tensors()) {
    const bool buffer = t.name.find("rel_pos") != std::string::npos;
    if (!buffer) without.add(t.name, t.dtype, t.shape, t.bytes);
    if (t.name.ends_with("decay")) {
      edited.add(t.name, {2}, halves);
    } else {
      edited.add(t.name, t.dtype, t.shape, t.bytes);
    }
  }
  for (const auto& [key, value] : file.metadata()) edited.metadata(key, value);
  without.write(dir / "model.safetensors");
  expect_same_function(model, load_pretrained<float>(dir.string()));
  edited.write(dir / "model.safetensors");  // the mark of before is no promise any more
  const auto gamma = load_pretrained<float>(dir.string()).config().retention.gamma;
  EXPECT_EQ(gamma, (std::vector<double>{std::exp(-0.5), std::exp(-0.25)}));
}

// ---- memory ----

// Bytes of this process that are in memory.
std::size_t resident() {
  std::ifstream in("/proc/self/statm");
  std::size_t total = 0, pages = 0;
  in >> total >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

class PretrainedMemory : public testing::Test {
 protected:
  static constexpr std::size_t kLarge = std::size_t{90} << 20;
  const TempDir dir;

  RetNetConfig large() const {
    return presets::torchscale_v2(
        {.vocab = 40000, .d_model = 256, .layers = 6, .heads = 4, .d_value = 512, .ffn = 512});
  }
  void save(std::uint64_t max_shard_bytes) const {
    const auto places = RetNetModel<float>::without_weights(large());
    const auto model = places.with_weights(ParamBuffer<float>(places.layout()));
    save_pretrained(dir.string(), model, Dialect::torchscale_v2,
                    {.max_shard_bytes = max_shard_bytes});
  }
};

TEST_F(PretrainedMemory, BorrowedWeightsAreNotRead) {
  if (resident() == 0) GTEST_SKIP() << "no /proc/self/statm here";
  for (const std::uint64_t shard : {std::uint64_t{1} << 40, std::uint64_t{20} << 20}) {
    save(shard);
    const std::size_t before = resident();
    const auto model = load_pretrained<float>(dir.string());
    const std::size_t after = resident();
    EXPECT_TRUE(model.weight_buffer().borrows());
    EXPECT_GT(model.weight_buffer().flat().size() * sizeof(float), kLarge);
    EXPECT_LT(after, before + kLarge / 10);
    const RetNetModel<float> copy = model;
    EXPECT_EQ(copy.weight_buffer().flat().data(), model.weight_buffer().flat().data());
  }
}

TEST_F(PretrainedMemory, ConvertedWeightsAreThereOnce) {
  if (resident() == 0) GTEST_SKIP() << "no /proc/self/statm here";
  save(std::uint64_t{1} << 40);
  const std::size_t before = resident();
  const auto model = load_pretrained<float, bfloat16>(dir.string());
  const std::size_t grown = resident() - std::min(before, resident());
  EXPECT_FALSE(model.weight_buffer().borrows());
  EXPECT_LT(grown, model.weight_buffer().flat().size() * sizeof(bfloat16) + kLarge / 10);
}

TEST(PretrainedBorrowed, OutlivesTheFile) {
  const TempDir dir;
  const auto c = io_test::dialect_cases()[3];
  const auto model = model_of<float>(config_of(c));
  save_pretrained(dir.string(), model, c.dialect);
  const auto loaded = load_pretrained<float>(dir.string());
  save_pretrained(dir.string(), model_of<float>(config_of(io_test::dialect_cases()[5])), c.dialect);
  std::filesystem::remove(dir / "model.safetensors");
  expect_same_function(model, loaded);
}

}  // namespace
}  // namespace retnet
