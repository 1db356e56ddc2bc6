// SPDX-License-Identifier: MIT
#include "retnet/io/training_checkpoint.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

namespace retnet {
namespace {

namespace fs = std::filesystem;

class TrainingCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("retnet_training_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path() const { return (folder_ / "run.safetensors").string(); }

 private:
  fs::path folder_;
};

RetNetModel<float> model(Index d_model = 16) {
  return RetNetModel<float>(
      presets::torchscale_v2({.vocab = 32, .d_model = d_model, .layers = 2, .heads = 2}), Seed{3});
}

std::vector<std::uint8_t> text() {
  std::vector<std::uint8_t> out(2000);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::uint8_t>(philox(Seed{1}, 0, i / 3)[0] % 32);
  return out;
}

void run(Trainer<float>& trainer, std::int64_t steps) {
  const auto bytes = text();
  const TextStreams<std::uint8_t> streams(bytes, 2, 24);
  Cpu ctx(2);
  Batch batch;
  while (trainer.step() < steps) {
    streams.fill(trainer.step(), batch);
    trainer.step(ctx, batch, 1e-2);
  }
}

TrainerConfig config(bool carry) {
  return {.form = Form::chunkwise(8), .carry_state = carry, .dropout_seed = {5}};
}

TEST_F(TrainingCheckpoint, ResumedRunEndsBitIdentical) {
  for (const bool carry : {false, true}) {
    Trainer<float> whole(model(), config(carry));
    run(whole, 9);

    Trainer<float> first(model(), config(carry));
    run(first, 4);
    save_training(path(), first, {{"seconds", 1.0 / 3.0}});
    Trainer<float> second(model(), config(carry));
    const auto notes = load_training(path(), second);
    EXPECT_EQ(notes.at("seconds"), 1.0 / 3.0);
    EXPECT_EQ(second.step(), 4);
    EXPECT_EQ(second.optimizer().steps(), 4);
    run(second, 9);

    const auto a = whole.weights().flat(), b = second.weights().flat();
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]) << "carry " << carry << " at " << i;
  }
}

TEST_F(TrainingCheckpoint, AnotherModelIsRefusedAndNothingChanges) {
  Trainer<float> small(model(16), config(false));
  run(small, 2);
  save_training(path(), small);
  Trainer<float> large(model(24), config(false));
  const std::vector<float> before(large.weights().flat().begin(), large.weights().flat().end());
  try {
    load_training(path(), large);
    FAIL() << "loaded a checkpoint of another width";
  } catch (const std::invalid_argument& e) {
    const std::string what = e.what();
    EXPECT_NE(what.find("embed_tokens.weight"), std::string::npos) << what;
    EXPECT_NE(what.find("[32,24]"), std::string::npos) << what;
    EXPECT_NE(what.find("[32,16]"), std::string::npos) << what;
  }
  EXPECT_EQ(large.step(), 0);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), large.weights().flat().begin()));
}

TEST_F(TrainingCheckpoint, MissingFileNamesIt) {
  Trainer<float> trainer(model(), config(false));
  try {
    load_training(path(), trainer);
    FAIL() << "loaded a file that is not there";
  } catch (const std::system_error& e) {
    EXPECT_NE(std::string(e.what()).find("run.safetensors"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace retnet
