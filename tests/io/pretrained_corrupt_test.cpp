// SPDX-License-Identifier: MIT
// Checkpoints that are not what they say: each is refused, with the names of what is wrong.
#include <functional>
#include <limits>

#include "io/pretrained_models.hpp"

namespace retnet {
namespace {

using io_test::config_of;
using io_test::DialectCase;
using io_test::expect_error;
using io_test::model_of;
using io_test::TempDir;
using io_test::write_file;

/// A good checkpoint, which each test spoils in its own way.
class PretrainedCorrupt : public testing::Test {
 protected:
  const TempDir dir;
  const DialectCase c = io_test::dialect_cases()[3];  // torchscale_v2

  PretrainedCorrupt() { save_pretrained(dir.string(), model_of<float>(config_of(c)), c.dialect); }

  /// Writes the tensors anew, each as `change` leaves it; one whose name it empties is left out.
  void rewrite(const std::function<void(StoredTensor&)>& change,
               const std::function<void(SafetensorsWriter&)>& add = {}) const {
    const SafetensorsFile file(dir / "model.safetensors");
    SafetensorsWriter out;
    for (StoredTensor t : file.tensors()) {
      change(t);
      if (!t.name.empty()) out.add(t.name, t.dtype, t.shape, t.bytes);
    }
    if (add) add(out);
    out.write(dir / "model.safetensors");
  }
  void rewrite_config(const std::function<void(nlohmann::ordered_json&)>& change) const {
    auto json = nlohmann::ordered_json::parse(io_test::read_file(dir / "config.json"));
    change(json);
    write_file(dir / "config.json", json.dump());
  }
  void expect_refused(std::initializer_list<std::string_view> parts) const {
    expect_error<std::invalid_argument>([&] { inspect_pretrained(dir.string()); }, parts);
    expect_error<std::invalid_argument>([&] { load_pretrained<double>(dir.string()); }, parts);
    expect_error<std::invalid_argument>([&] { load_pretrained<float>(dir.string()); }, parts);
  }
};

TEST_F(PretrainedCorrupt, EveryProblemIsNamed) {
  const std::vector<float> more(7);
  rewrite(
      [](StoredTensor& t) {
        if (t.name == "layers.0.retention.v_proj.weight") t.name.clear();
        if (t.name == "layers.1.ffn.fc1.weight") std::swap(t.shape[0], t.shape[1]);
        if (t.name == "layer_norm.weight") t.dtype = Dtype::i32;
      },
      [&](SafetensorsWriter& out) { out.add("layers.2.ffn.fc1.weight", {7}, more); });
  expect_refused(
      {"a torchscale_v2 model:", "missing: layers.0.retention.v_proj.weight, expected [24,16]",
       "layers.1.ffn.fc1.weight is F32 [16,20], expected F64, F32, F16 or BF16 [20,16]",
       "layer_norm.weight is I32 [16]", "unknown: layers.2.ffn.fc1.weight F32 [7]"});
}

TEST_F(PretrainedCorrupt, VectorsMayBeRowsAndNothingElse) {
  rewrite([](StoredTensor& t) {
    if (t.name == "layer_norm.weight") t.shape = {1, 16};
  });
  EXPECT_NO_THROW(inspect_pretrained(dir.string()));
  rewrite([](StoredTensor& t) {
    if (t.name == "layer_norm.weight") t.shape = {16, 1};
  });
  expect_refused({"layer_norm.weight is F32 [16,1], expected", "[16]"});
}

TEST_F(PretrainedCorrupt, AMatrixIsNoList) {
  rewrite([](StoredTensor& t) {
    if (t.name == "layers.0.ffn.fc2.weight") t.shape = {320};
  });
  expect_refused({"layers.0.ffn.fc2.weight is F32 [320]", "[16,20]"});
}

TEST_F(PretrainedCorrupt, NoEmbeddingOrTwo) {
  const std::vector<float> embedding(13 * 16);
  rewrite([](StoredTensor&) {},
          [&](SafetensorsWriter& out) {
            out.add("decoder.embed_tokens.weight", {13, 16}, embedding);
          });
  expect_refused({"embed_tokens.weight", "expected one embedding"});
  rewrite([](StoredTensor& t) {
    if (t.name.ends_with("embed_tokens.weight")) t.name.clear();
  });
  expect_refused({"no tensor embed_tokens.weight"});
}

TEST_F(PretrainedCorrupt, TheConfigOfAnotherSize) {
  rewrite_config([](auto& json) { json["decoder_layers"] = 3; });
  expect_refused({"the config needs at least 7968 parameters", "the 5754 that the file holds"});
  rewrite_config([](auto& json) { json["decoder_layers"] = 1; });
  expect_refused({"unknown: layers.1.retention.q_proj.weight"});
  rewrite_config([](auto& json) {
    json["decoder_layers"] = 2;
    json["decoder_ffn_embed_dim"] = 18;
  });
  expect_refused({"layers.0.ffn.fc1.weight is F32 [20,16], expected", "[18,16]"});
}

// A few bytes of config may not take gigabytes of memory, nor minutes.
TEST_F(PretrainedCorrupt, SizesBeyondTheFile) {
  for (const char* key : {"decoder_layers", "vocab_size", "decoder_ffn_embed_dim"}) {
    rewrite_config([&](auto& json) { json[key] = 2147483646; });
    expect_refused({"the config needs at least"});
    rewrite_config([&](auto& json) { json[key] = 2; });
  }
  rewrite_config([](auto& json) {
    json["decoder_embed_dim"] = 2147483646;
    json["decoder_retention_heads"] = 1073741823;
    json["decoder_value_embed_dim"] = 1073741823;
  });
  expect_refused({"the config needs at least"});
}

TEST_F(PretrainedCorrupt, NoConfig) {
  std::filesystem::remove(dir / "config.json");
  expect_error<std::system_error>([&] { inspect_pretrained(dir.string()); },
                                  {"cannot read", "config.json"});
  write_file(dir / "config.json", "");
  expect_refused({"config.json", "not JSON"});
  write_file(dir / "config.json", "{}");
  expect_refused({"config.json", "none of the keys"});
}

TEST_F(PretrainedCorrupt, ATensorOfAnotherFamily) {
  const std::vector<float> one(1);
  const auto with = [&](const char* name) {
    save_pretrained(dir.string(), model_of<float>(config_of(c)), c.dialect);
    rewrite([](StoredTensor&) {}, [&](SafetensorsWriter& out) { out.add(name, {1}, one); });
  };
  with("score.weight");
  expect_refused({"score.weight", "classifier"});
  with("layers.0.moe_layer.gate.wg.weight");
  expect_refused({"mixture of experts"});
  with("layers.0.retention.q_proj.A.weight");
  expect_refused({"multiway"});
  with("retentions.0.retentions.0.W_Q");
  expect_refused({"Jamie-Stirling"});
}

TEST_F(PretrainedCorrupt, TheWrongDialect) {
  expect_error<std::invalid_argument>(
      [&] { inspect_pretrained(dir.string(), {.dialect = Dialect::fla}); }, {"unknown keys"});
  expect_error<std::invalid_argument>(
      [&] {
        inspect_pretrained(dir.string(),
                           {.dialect = Dialect::syncdoth, .ignore_unknown_keys = true});
      },
      {"missing: lm_head.weight", "unknown: output_projection.weight"});
}

TEST_F(PretrainedCorrupt, AnglesAndDecays) {
  const auto with = [&](const char* name, std::vector<float> values) {
    save_pretrained(dir.string(), model_of<float>(config_of(c)), c.dialect);
    const auto n = static_cast<Index>(values.size());
    rewrite(
        [&](StoredTensor& t) {
          if (t.name == name) t.name.clear();
        },
        [&](SafetensorsWriter& out) { out.add(name, {n}, values); });
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  with("retnet_rel_pos.angle", {1, 1, 1});
  expect_refused({"retnet_rel_pos.angle is F32 [3], expected [8]"});
  with("retnet_rel_pos.angle", {1, 1, 1, 1, 1, 1, 1, 2});
  expect_refused({"retnet_rel_pos.angle holds 2", "each angle twice"});
  with("retnet_rel_pos.angle", {kNan, kNan, 1, 1, 1, 1, 1, 1});
  expect_refused({"retnet_rel_pos.angle holds nan", "finite"});
  with("retnet_rel_pos.decay", {-1});
  expect_refused({"retnet_rel_pos.decay is F32 [1], expected [2]"});
  for (const float bad : {0.5F, kNan, kInfinity, -kInfinity}) {
    with("retnet_rel_pos.decay", {-1, bad});
    expect_refused({"retnet_rel_pos.decay holds", "(0, 1]"});
  }
  with("retnet_rel_pos.decay", {-1, 0});
  EXPECT_NO_THROW(inspect_pretrained(dir.string()));
}

TEST_F(PretrainedCorrupt, AShardThatIsCutShort) {
  save_pretrained(dir / "shards", model_of<float>(config_of(c)), c.dialect,
                  {.max_shard_bytes = 4000});
  std::string name;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "shards"))
    if (entry.path().string().find("model-00002") != std::string::npos) name = entry.path();
  const std::string text = io_test::read_file(name);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, text.size() / 2, text.size() - 1}) {
    write_file(name, std::string_view(text).substr(0, size));
    expect_error<std::invalid_argument>([&] { inspect_pretrained(dir / "shards"); },
                                        {"model-00002"});
  }
}

TEST_F(PretrainedCorrupt, UnknownKeysMayBeIgnored) {
  rewrite_config([](auto& json) { json["alibi"] = true; });
  expect_refused({"unknown keys", "alibi"});
  EXPECT_NO_THROW(inspect_pretrained(dir.string(), {.ignore_unknown_keys = true}));
}

TEST_F(PretrainedCorrupt, AFolderThatCannotBeWritten) {
  const auto model = model_of<float>(config_of(c));
  expect_error<std::system_error>([&] { save_pretrained(dir / "config.json", model, c.dialect); },
                                  {"config.json"});
  RetNetConfig other = config_of(c);
  other.retention.bias = true;
  expect_error<std::invalid_argument>(
      [&] { save_pretrained(dir / "new", model_of<float>(other), c.dialect); }, {"retention.bias"});
  EXPECT_FALSE(std::filesystem::exists(dir / "new"));
}

// Our own files are as strict.
TEST(PretrainedOwnCorrupt, IsRefused) {
  const TempDir dir;
  const auto model = model_of<float>(config_of(io_test::dialect_cases()[3]));
  SafetensorsWriter out;
  detail::describe_model(out, model.config());
  const auto tensors = keyed_tensors(KeyMap(), model.layout());
  std::vector<std::vector<float>> values;
  values.reserve(tensors.size());
  for (const auto& t : tensors) {
    if (t.key == "final_norm.weight") continue;
    out.add(t.key, t.shape, values.emplace_back(gather<float>(t, model.weight_buffer())));
  }
  out.write(dir / "model.safetensors");
  expect_error<std::invalid_argument>([&] { inspect_pretrained(dir.string()); },
                                      {"missing: final_norm.weight, expected [16]"});
  out.metadata("format_version", "99");
  out.write(dir / "model.safetensors");
  expect_error<std::invalid_argument>([&] { inspect_pretrained(dir.string()); },
                                      {"format_version is 99"});
}

}  // namespace
}  // namespace retnet
