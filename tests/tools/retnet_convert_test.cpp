// SPDX-License-Identifier: MIT
// retnet_convert: what it writes is the same model, all of it or nothing.

#include <gtest/gtest.h>

#include "retnet/io/safetensors.hpp"
#include "tools/cases.hpp"

namespace tools {
namespace {

const fs::path kCases = fs::path(RETNET_TEST_DATA_DIR) / "golden/data";

class RetnetConvert : public testing::Test {
 protected:
  Scratch scratch;

  static Finished convert(const fs::path& from, const Arguments& more) {
    Arguments all{"--from", from};
    all.insert(all.end(), more.begin(), more.end());
    return run(RETNET_CONVERT, all);
  }
  std::string written(const fs::path& from, const std::string& name, const Arguments& more) {
    Arguments all{"--to", scratch / name};
    all.insert(all.end(), more.begin(), more.end());
    const auto done = convert(from, all);
    EXPECT_EQ(done.code, 0) << done.err;
    EXPECT_EQ(done.out.rfind("read ", 0), 0U) << done.out;
    EXPECT_NE(done.out.find("\nwrote "), std::string::npos) << done.out;
    return scratch / name;
  }
  // Logits of the ids of a case.
  std::vector<double> logits(const fs::path& model, const std::string& name) const {
    const std::string out = scratch / "logits.safetensors";
    const auto done =
        run(RETNET_EVAL, {"--model", model, "--input", kCases / name / "io.safetensors", "--output",
                          out, "--form", "parallel"});
    EXPECT_EQ(done.code, 0) << done.err;
    return done.code == 0 ? Archive(out).at("logits").values : std::vector<double>();
  }
  void expect_refused(int code, const std::string& message, const fs::path& from,
                      const Arguments& more) {
    const auto before = scratch.names();
    const auto done = convert(from, more);
    EXPECT_EQ(done.code, code) << done.err;
    EXPECT_EQ(done.out, "");
    EXPECT_NE(done.err.find(message), std::string::npos) << done.err;
    EXPECT_EQ(scratch.names(), before);
  }
};

TEST_F(RetnetConvert, TheModelStaysTheSame) {
  for (const std::string name : {"torchscale_v2_plain_init", "torchscale_v2_decoder_prefix"}) {
    const auto expected = logits(kCases / name, name);
    fs::path from = kCases / name;
    for (const std::string dialect : {"syncdoth", "retnet", "torchscale_v2"}) {
      from = written(from, name + "_" + dialect, {"--dialect", dialect});
      EXPECT_EQ(logits(from, name), expected) << name << " " << dialect;
    }
  }
  const auto expected = logits(kCases / "fla_gqa", "fla_gqa");
  const auto ours = written(kCases / "fla_gqa", "ours", {"--dialect", "retnet"});
  EXPECT_EQ(logits(ours, "fla_gqa"), expected);
  EXPECT_EQ(logits(written(ours, "theirs", {"--dialect", "fla"}), "fla_gqa"), expected);
}

TEST_F(RetnetConvert, Types) {
  const fs::path from = kCases / "fla_bf16";
  const auto expected = logits(from, "fla_bf16");
  const auto dtype_of = [](const fs::path& folder) {
    return retnet::SafetensorsFile(folder / "model.safetensors").at("lm_head.weight").dtype;
  };
  const auto same = written(from, "same", {"--dialect", "fla"});
  const auto wide = written(from, "wide", {"--dialect", "fla", "--dtype", "f64"});
  const auto back = written(wide, "back", {"--dialect", "fla", "--dtype", "bf16"});
  EXPECT_EQ(dtype_of(same), retnet::Dtype::bf16);
  EXPECT_EQ(dtype_of(wide), retnet::Dtype::f64);
  EXPECT_EQ(text_of(fs::path(back) / "model.safetensors"),
            text_of(fs::path(same) / "model.safetensors"));
  EXPECT_EQ(logits(same, "fla_bf16"), expected);
}

TEST_F(RetnetConvert, Shards) {
  const auto expected = logits(kCases / "fla_gqa", "fla_gqa");
  const auto folder =
      written(kCases / "fla_gqa", "shards", {"--dialect", "fla", "--max-shard", "100kB"});
  EXPECT_TRUE(fs::exists(fs::path(folder) / "model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(fs::path(folder) / "model.safetensors"));
  EXPECT_EQ(logits(folder, "fla_gqa"), expected);
}

TEST_F(RetnetConvert, AFullFolderNeedsForce) {
  fs::create_directory(scratch / "out");
  const auto small = written(kCases / "fla_gqa", "out", {"--dialect", "fla", "--max-shard", "1kB"});
  write_text(fs::path(small) / "notes.txt", "mine");
  const Arguments again{"--to", small, "--dialect", "fla"};
  const auto before = Archive(fs::path(small) / "model-00001-of-00024.safetensors").arrays().size();
  expect_refused(1, "not empty", kCases / "fla_packed", again);
  EXPECT_EQ(Archive(fs::path(small) / "model-00001-of-00024.safetensors").arrays().size(), before);

  const auto expected = logits(kCases / "fla_packed", "fla_packed");
  written(kCases / "fla_packed", "out", {"--dialect", "fla", "--force"});
  EXPECT_EQ(logits(small, "fla_packed"), expected);
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(small)) names.insert(entry.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{"config.json", "model.safetensors", "notes.txt"}));
  EXPECT_EQ(text_of(fs::path(small) / "notes.txt"), "mine");

  // onto itself
  written(small, "out", {"--dialect", "fla", "--force"});
  EXPECT_EQ(logits(small, "fla_packed"), expected);
}

TEST_F(RetnetConvert, Inspect) {
  const auto done = convert(kCases / "fla_gqa", {"--inspect"});
  EXPECT_EQ(done.code, 0) << done.err;
  for (const char* part : {"dialect fla", "25 tensors", "F32", "vocab 61", "4 heads, 2 of keys"})
    EXPECT_NE(done.out.find(part), std::string::npos) << done.out;
  const auto ours = written(kCases / "fla_gqa", "ours", {"--dialect", "retnet"});
  EXPECT_NE(convert(ours, {"--inspect"}).out.find("dialect retnet"), std::string::npos);
}

TEST_F(RetnetConvert, WhatADialectCannotSay) {
  expect_refused(1, "fla", kCases / "torchscale_v2_plain_init",
                 {"--to", scratch / "out", "--dialect", "fla"});
  expect_refused(1, "xatl", kCases / "fla_gqa", {"--to", scratch / "out", "--dialect", "xatl"});
  expect_refused(1, "syncdoth", kCases / "fla_gqa",
                 {"--to", scratch / "out", "--dialect", "syncdoth"});
}

TEST_F(RetnetConvert, WrongInputs) {
  const Arguments to{"--to", scratch / "out", "--dialect", "fla"};
  expect_refused(1, "absent", scratch / "absent", to);
  write_text(scratch / "file", "");
  expect_refused(1, "not a folder", kCases / "fla_gqa",
                 {"--to", scratch / "file", "--dialect", "fla"});
  fs::create_directory(scratch / "cut");
  fs::copy_file(kCases / "fla_gqa/config.json", scratch / "cut/config.json");
  write_text(scratch / "cut/model.safetensors",
             text_of(kCases / "fla_gqa/model.safetensors").substr(0, 90000));
  expect_refused(1, "model.safetensors", scratch / "cut", to);
}

TEST_F(RetnetConvert, WrongCommandLines) {
  const auto usage = [&](const std::string& message, const Arguments& more) {
    expect_refused(2, message, kCases / "fla_gqa", more);
  };
  usage("--inspect", {});
  usage("--dialect", {"--to", scratch / "out"});
  usage("--to", {"--dialect", "fla"});
  usage("--inspect", {"--inspect", "--dialect", "fla"});
  usage("klingon", {"--to", scratch / "out", "--dialect", "klingon"});
  usage("--dtype", {"--to", scratch / "out", "--dialect", "fla", "--dtype", "i8"});
  usage("--max-shard", {"--to", scratch / "out", "--dialect", "fla", "--max-shard", "large"});
  EXPECT_EQ(run(RETNET_CONVERT, {"--help"}).code, 0);
}

}  // namespace
}  // namespace tools
