// SPDX-License-Identifier: MIT
// retnet_eval: its inputs in all their types, its command line, and that nothing half-written
// stays.

#include <gtest/gtest.h>

#include "retnet/io/safetensors.hpp"
#include "tools/cases.hpp"

namespace tools {
namespace {

using Ids = std::vector<std::int64_t>;

const fs::path kModel = fs::path(RETNET_TEST_DATA_DIR) / "golden/data/fla_gqa";  // vocabulary 61

class RetnetEvalTool : public testing::Test {
 protected:
  Scratch scratch;
  const std::string in = scratch / "in.safetensors", out = scratch / "out.safetensors";

  // A file with one tensor [B,T] after the other.
  template <class T>
  void write(const std::string& name, std::vector<retnet::Index> shape,
             const std::vector<T>& values) {
    tensors_[name] = {shape, retnet::dtype_of<T>(), {}};
    auto& bytes = tensors_[name].bytes;
    bytes.resize(values.size() * sizeof(T));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    retnet::SafetensorsWriter file;
    for (const auto& [key, t] : tensors_) file.add(key, t.dtype, t.shape, t.bytes);
    file.write(in);
  }
  Arguments arguments(Arguments more) const {
    Arguments all{"--model", kModel, "--input", in, "--output", out};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Archive eval(const Arguments& more) const {
    const auto done = run(RETNET_EVAL, arguments(more));
    EXPECT_EQ(done.code, 0) << done.err;
    return done.code == 0 ? Archive(out) : Archive();
  }
  // Exit code, a part of what stderr says, and nothing new in the folder.
  void expect_refused(int code, const std::string& message, const Arguments& more) const {
    const auto before = scratch.names();
    const auto done = run(RETNET_EVAL, arguments(more));
    EXPECT_EQ(done.code, code) << done.err;
    EXPECT_NE(done.err.find(message), std::string::npos) << done.err;
    EXPECT_EQ(scratch.names(), before);
  }

 private:
  struct Tensor {
    std::vector<retnet::Index> shape;
    retnet::Dtype dtype;
    std::vector<std::byte> bytes;
  };
  std::map<std::string, Tensor> tensors_;
};

TEST_F(RetnetEvalTool, ReadsIdsOfAnyIntegerType) {
  write<std::int64_t>("input_ids", {1, 4}, {3, 1, 60, 5});
  const auto expected = eval({"--form", "parallel"}).at("logits").values;
  EXPECT_EQ(expected.size(), 4U * 61U);
  write<std::int32_t>("i32", {1, 4}, {3, 1, 60, 5});
  write<std::uint8_t>("u8", {1, 4}, {3, 1, 60, 5});
  write<std::int16_t>("i16", {1, 4}, {3, 1, 60, 5});
  for (const std::string name : {"i32", "u8", "i16"})
    EXPECT_EQ(eval({"--form", "parallel", "--ids", name}).at("logits").values, expected) << name;
}

TEST_F(RetnetEvalTool, ThreadsDoNotChangeABit) {
  write<std::int64_t>("input_ids", {2, 70}, Ids(140, 7));
  const auto one = eval({"--form", "chunkwise", "--grad", "--threads", "1"});
  const auto four = eval({"--form", "chunkwise", "--grad", "--threads", "4"});
  ASSERT_EQ(one.arrays().size(), four.arrays().size());
  for (const auto& [key, array] : one.arrays()) EXPECT_EQ(array.values, four.at(key).values) << key;
}

// Each row of a padded batch, and each packed sequence, is what it is alone.
TEST_F(RetnetEvalTool, MaskedAndPackedRowsStandAlone) {
  write<std::int64_t>("input_ids", {2, 4}, {-100, 9, 8, 7, 3, 1, 60, 5});
  write<std::int64_t>("mask", {2, 4}, {0, 1, 1, 1, 1, 1, 1, 1});
  write<std::uint8_t>("mask_u8", {2, 4}, {0, 1, 1, 1, 1, 1, 1, 1});
  write<std::int64_t>("short", {1, 3}, {9, 8, 7});
  write<std::int64_t>("long", {1, 4}, {3, 1, 60, 5});
  write<std::int64_t>("packed", {1, 7}, {9, 8, 7, 3, 1, 60, 5});
  write<std::int32_t>("cu", {3}, {0, 3, 7});
  const auto masked = eval({"--form", "recurrent", "--mask", "mask", "--loss"});
  const auto packed =
      eval({"--form", "parallel", "--ids", "packed", "--cu-seqlens", "cu", "--loss"});
  const auto a = eval({"--form", "parallel", "--ids", "short", "--loss"});
  const auto b = eval({"--form", "chunkwise", "--ids", "long", "--loss"});
  EXPECT_EQ(eval({"--form", "recurrent", "--mask", "mask_u8"}).at("logits").values,
            masked.at("logits").values);

  std::vector<double> expected = a.at("logits").values;
  expected.insert(expected.end(), b.at("logits").values.begin(), b.at("logits").values.end());
  EXPECT_LE(error(packed.at("logits"), Array{{1, 7, 61}, expected}), 2e-6);
  expected.insert(expected.begin(), 61, 0.0);
  EXPECT_LE(error(masked.at("logits"), Array{{2, 4, 61}, expected}), 2e-6);
  // the mean over the 2 + 3 tokens that have a next one
  const double mean = (2 * a.at("loss").values[0] + 3 * b.at("loss").values[0]) / 5;
  EXPECT_NEAR(masked.at("loss").values[0], mean, 1e-5 * mean);
  EXPECT_NEAR(packed.at("loss").values[0], mean, 1e-5 * mean);

  const auto greedy = eval({"--form", "parallel", "--mask", "mask", "--greedy", "2"});
  EXPECT_EQ(greedy.at("generated_ids").shape, (std::vector<retnet::Index>{2, 6}));
  EXPECT_EQ(greedy.at("generated_ids").values[0], -100.0);  // as given
}

TEST_F(RetnetEvalTool, PrintsTheLossAndNothingElse) {
  write<std::int64_t>("input_ids", {1, 4}, {3, 1, 60, 5});
  const auto done = run(RETNET_EVAL, arguments({"--form", "parallel", "--loss"}));
  EXPECT_EQ(done.out.rfind("loss: ", 0), 0U) << done.out;
  EXPECT_NEAR(std::stod(done.out.substr(6)), Archive(out).at("loss").values[0], 1e-7);
  EXPECT_EQ(done.err, "");
  EXPECT_EQ(run(RETNET_EVAL, arguments({"--form", "parallel"})).out, "");
}

TEST_F(RetnetEvalTool, WrongCommandLines) {
  write<std::int64_t>("input_ids", {1, 4}, {3, 1, 60, 5});
  const auto usage = [&](const std::string& message, const Arguments& more) {
    expect_refused(2, message, more);
  };
  usage("--form", {});
  usage("diagonal", {"--form", "diagonal"});
  usage("--chunk", {"--form", "parallel", "--chunk", "8"});
  usage("--chunk", {"--form", "chunkwise", "--chunk", "0"});
  usage("--chunk", {"--form", "chunkwise", "--chunk", "many"});
  usage("--compat", {"--form", "parallel", "--compat", "nearly"});
  usage("--precision", {"--form", "parallel", "--precision", "half"});
  usage("--threads", {"--form", "parallel", "--threads", "0"});
  usage("--greedy", {"--form", "parallel", "--greedy", "0"});
  usage("--greedy", {"--form", "parallel", "--greedy", "3", "--grad"});
  usage("--greedy", {"--form", "parallel", "--greedy", "3", "--loss"});
  usage("--greedy", {"--form", "parallel", "--greedy", "3", "--cu-seqlens", "c"});
  usage("--mask", {"--form", "parallel", "--mask", "m", "--cu-seqlens", "c"});
  usage("--verbose", {"--form", "parallel", "--verbose"});
  EXPECT_EQ(run(RETNET_EVAL, {"--form", "parallel"}).code, 2);
  const auto help = run(RETNET_EVAL, {"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_NE(help.out.find("Example: retnet_eval"), std::string::npos);
}

TEST_F(RetnetEvalTool, WrongInputs) {
  write<std::int64_t>("input_ids", {2, 3}, {3, 1, 60, 5, 6, 7});
  write<float>("float_ids", {2, 3}, std::vector<float>(6, 1.0F));
  write<std::int64_t>("flat", {3}, {1, 2, 3});
  write<std::int64_t>("none", {1, 0}, {});
  write<std::int64_t>("high", {1, 3}, {1, 61, 3});
  write<std::int64_t>("negative", {1, 3}, {1, -1, 3});
  write<std::int64_t>("huge", {1, 2}, {1, std::int64_t{1} << 40});
  write<std::int64_t>("wide", {1, 4}, {1, 2, 3, 4});
  write<std::int64_t>("single", {2, 1}, {1, 2});
  write<std::int64_t>("cu", {3}, {0, 2, 3});
  write<std::int64_t>("cu_back", {4}, {0, 2, 1, 3});
  const auto input = [&](const std::string& message, const Arguments& more) {
    Arguments all{"--form", "parallel"};
    all.insert(all.end(), more.begin(), more.end());
    expect_refused(1, message, all);
  };
  input("no tensor", {"--ids", "absent"});
  input("float_ids", {"--ids", "float_ids"});
  input("expected [B,T]", {"--ids", "flat"});
  input("expected [B,T]", {"--ids", "none"});
  input("token 61 at row 1", {"--ids", "high"});
  input("token -1 at row 1", {"--ids", "negative"});
  input("huge", {"--ids", "huge"});
  input("one token", {"--ids", "single", "--loss"});
  input("no tensor", {"--mask", "absent"});
  input("expected [B,T]", {"--mask", "flat", "--ids", "high"});
  input("same shape", {"--mask", "single"});
  input("2 rows", {"--cu-seqlens", "cu"});
  input("ends with 3", {"--cu-seqlens", "cu", "--ids", "wide"});
  input("increasing", {"--cu-seqlens", "cu_back", "--ids", "high"});
  const std::vector<Ids> wrong{{1, 1, 0}, {0, 1, 0}, {0, 0, 0}, {0, 1, 2}, {2, 1, 1}};
  for (const auto& row : wrong) {
    Ids mask{1, 1, 1};
    mask.insert(mask.end(), row.begin(), row.end());
    write<std::int64_t>("mask", {2, 3}, mask);
    input("row 1 of mask is not left padding", {"--mask", "mask"});
  }
}

TEST_F(RetnetEvalTool, WrongFiles) {
  write<std::int64_t>("input_ids", {1, 3}, {3, 1, 60});
  const auto refused = [&](const std::string& message, const Arguments& given) {
    const auto before = scratch.names();
    const auto done = run(RETNET_EVAL, given);
    EXPECT_EQ(done.code, 1) << done.err;
    EXPECT_NE(done.err.find(message), std::string::npos) << done.err;
    EXPECT_EQ(scratch.names(), before);
  };
  const Arguments form{"--form", "parallel"};
  const auto with = [&](Arguments a) {
    a.insert(a.end(), form.begin(), form.end());
    return a;
  };
  refused("absent", with({"--model", scratch / "absent", "--input", in, "--output", out}));
  refused("absent", with({"--model", kModel, "--input", scratch / "absent", "--output", out}));
  refused("no/where", with({"--model", kModel, "--input", in, "--output", scratch / "no/where"}));
  refused(scratch.path(), with({"--model", kModel, "--input", in, "--output", scratch.path()}));

  fs::create_directory(scratch / "cut");
  fs::copy_file(kModel / "config.json", scratch / "cut/config.json");
  const std::string whole = text_of(kModel / "model.safetensors");
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{500}, whole.size() - 1}) {
    write_text(scratch / "cut/model.safetensors", whole.substr(0, size));
    refused("model.safetensors",
            with({"--model", scratch / "cut", "--input", in, "--output", out}));
  }
  write_text(scratch / "cut/model.safetensors", whole);
  write_text(scratch / "cut/config.json", "{\"hidden_size\": 64,");
  refused("config.json", with({"--model", scratch / "cut", "--input", in, "--output", out}));
}

TEST_F(RetnetEvalTool, AnErrorLeavesTheOldOutput) {
  write<std::int64_t>("input_ids", {1, 3}, {3, 1, 61});
  write_text(out, "old");
  expect_refused(1, "token 61", {"--form", "parallel"});
  EXPECT_EQ(text_of(out), "old");
}

TEST_F(RetnetEvalTool, ReferenceGradientsDoNotComeInChunks) {
  write<std::int64_t>("input_ids", {1, 3}, {3, 1, 60});
  const fs::path scaled = fs::path(RETNET_TEST_DATA_DIR) / "golden/data/torchscale_v2_plain_init";
  const auto grad = [&](const std::string& form, const std::string& compat) {
    return run(RETNET_EVAL, {"--model", scaled, "--input", in, "--output", out, "--form", form,
                             "--compat", compat, "--grad"});
  };
  EXPECT_EQ(grad("parallel", "reference").code, 0);
  EXPECT_EQ(grad("chunkwise", "exact").code, 0);
  const auto done = grad("chunkwise", "reference");
  EXPECT_EQ(done.code, 1);
  EXPECT_NE(done.err.find("in the parallel form"), std::string::npos) << done.err;
}

TEST_F(RetnetEvalTool, AKillAtAnyMomentLeavesAWholeOutput) {
  write<std::int64_t>("input_ids", {32, 512}, Ids(32 * 512, 5));
  const Arguments given = arguments({"--form", "chunkwise"});
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(run(RETNET_EVAL, given).code, 0);
  const auto whole = std::chrono::steady_clock::now() - begin;
  const auto expected = text_of(out);
  int killed = 0;
  for (int i = 0; i < 12; ++i) {
    if (i % 2 == 0) fs::remove(out);
    Process process(RETNET_EVAL, given);
    std::this_thread::sleep_for(whole * i / 11);
    process.send(SIGKILL);
    killed += process.finish().signal == SIGKILL;
    if (fs::exists(out)) {
      EXPECT_EQ(text_of(out), expected);
    }
  }
  EXPECT_GT(killed, 0);
}

}  // namespace
}  // namespace tools
