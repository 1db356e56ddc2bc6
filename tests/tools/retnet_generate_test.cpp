// SPDX-License-Identifier: MIT
// retnet_generate: its text, its tokenizers, how it ends.

#include <gtest/gtest.h>

#include "retnet/io/model_file.hpp"
#include "retnet/tokenizers/tokenizer.hpp"
#include "tools/cases.hpp"

namespace tools {
namespace {

class RetnetGenerate : public testing::Test {
 protected:
  Scratch scratch;

  // A model that was never trained, in a folder of its own.
  std::string model(retnet::Index vocab) const {
    const std::string folder = scratch / ("model" + std::to_string(vocab));
    fs::create_directories(folder);
    const auto config = retnet::presets::torchscale_v2(
        {.vocab = vocab, .d_model = 32, .layers = 2, .heads = 2, .d_value = 32, .ffn = 32});
    retnet::save_model(folder + "/model.safetensors", retnet::RetNetModel<float>(config, {5}));
    return folder;
  }
  // Letters a, b, c, ...: one token each.
  static void write_tokenizer(const std::string& folder, int letters) {
    nlohmann::json vocab;
    for (int i = 0; i < letters; ++i) vocab[std::string(1, static_cast<char>('a' + i))] = i;
    const nlohmann::json json{
        {"version", "1.0"},
        {"decoder", {{"type", "Fuse"}}},
        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
    write_text(fs::path(folder) / "tokenizer.json", json.dump());
  }
  static Finished generate(Arguments arguments, const std::string& input = "") {
    return run(RETNET_GENERATE, arguments, input);
  }
  static std::string text(const Arguments& arguments, const std::string& input = "") {
    const auto done = generate(arguments, input);
    EXPECT_EQ(done.code, 0) << done.err;
    EXPECT_EQ(done.err, "");
    return done.out;
  }
  static void expect_refused(int code, const std::vector<std::string>& messages,
                             const Arguments& arguments) {
    const auto done = generate(arguments);
    EXPECT_EQ(done.code, code) << done.err;
    EXPECT_EQ(done.out, "");
    for (const auto& message : messages)
      EXPECT_NE(done.err.find(message), std::string::npos) << done.err;
  }
};

TEST_F(RetnetGenerate, LikeliestTokensAreThoseOfRetnetEval) {
  const std::string folder = model(256), prompt = "Once upon a time";
  const std::vector<std::int64_t> ids(prompt.begin(), prompt.end());
  retnet::SafetensorsWriter file;
  file.add("input_ids", {1, static_cast<retnet::Index>(ids.size())}, ids);
  file.write(scratch / "in.safetensors");
  const auto eval =
      run(RETNET_EVAL, {"--model", folder, "--input", scratch / "in.safetensors", "--output",
                        scratch / "out.safetensors", "--form", "recurrent", "--greedy", "50"});
  ASSERT_EQ(eval.code, 0) << eval.err;
  const auto& all = Archive(scratch / "out.safetensors").at("generated_ids").values;
  const std::vector<std::int32_t> expected(all.begin() + static_cast<std::ptrdiff_t>(ids.size()),
                                           all.end());
  for (const std::string& place : {folder, folder + "/model.safetensors"})
    EXPECT_EQ(text({"--model", place, "--prompt", prompt, "--temperature", "0", "--max-tokens",
                    "50", "--chunk", "3"}),
              retnet::repair_utf8(retnet::ByteTokenizer().decode(expected)));
}

TEST_F(RetnetGenerate, TheSeedDecidesTheText) {
  const std::string folder = model(256);
  const Arguments base{"--model", folder, "--prompt", "x", "--max-tokens", "40"};
  const auto seeded = [&](const std::string& seed, const std::string& threads) {
    Arguments a = base;
    a.insert(a.end(), {"--seed", seed, "--threads", threads});
    return text(a);
  };
  EXPECT_EQ(seeded("1", "1"), text(base));
  EXPECT_EQ(seeded("1", "3"), text(base));
  EXPECT_NE(seeded("2", "1"), text(base));
}

TEST_F(RetnetGenerate, ThePromptMayComeFromStandardInput) {
  const std::string folder = model(256), prompt = "two\nlines \xC3\xA9";
  const auto base = text({"--model", folder, "--prompt", prompt, "--max-tokens", "9"});
  EXPECT_EQ(text({"--model", folder, "--prompt", "-", "--max-tokens", "9"}, prompt), base);
  EXPECT_EQ(text({"--model", folder, "--prompt", "-", "--max-tokens", "9", "--echo"}, prompt),
            prompt + base);
}

TEST_F(RetnetGenerate, StopTexts) {
  const std::string folder = model(256);
  const Arguments base{"--model", folder, "--prompt", "x", "--max-tokens", "60"};
  const std::string whole = text(base);
  for (std::size_t at = 20; at < 40; ++at) {
    const std::string stop = whole.substr(at, 4);
    if (stop.find('\0') != std::string::npos) continue;
    Arguments a = base;
    a.insert(a.end(), {"--stop", stop, "--stop", "not in the text"});
    EXPECT_EQ(text(a), whole.substr(0, whole.find(stop)));
  }
}

TEST_F(RetnetGenerate, Statistics) {
  const auto done =
      generate({"--model", model(256), "--prompt", "four", "--max-tokens", "7", "--stats"});
  EXPECT_EQ(done.code, 0);
  EXPECT_EQ(done.err.rfind("prompt: 4 tokens in ", 0), 0U) << done.err;
  EXPECT_NE(done.err.find("text: 7 tokens in "), std::string::npos) << done.err;
  EXPECT_NE(done.err.find("tokens/s"), std::string::npos) << done.err;
}

TEST_F(RetnetGenerate, AnInterruptEndsTheText) {
  for (const int signal : {SIGINT, SIGTERM}) {
    Process process(RETNET_GENERATE,
                    {"--model", model(256), "--prompt", "x", "--max-tokens", "0", "--stats"});
    ASSERT_TRUE(process.wait_for_output(30.0));
    process.send(signal);
    const auto done = process.finish();
    EXPECT_EQ(done.code, 128 + signal);
    EXPECT_EQ(retnet::repair_utf8(done.out), done.out);  // whole characters
    EXPECT_NE(done.err.find("tokens/s"), std::string::npos) << done.err;
  }
}

#ifdef RETNET_EXAMPLES_HAVE_TOKENIZERS
TEST_F(RetnetGenerate, ReadsTheTokenizerOfTheFolderOrAnother) {
  const std::string folder = model(3);
  const Arguments base{"--model", folder, "--prompt", "abc", "--max-tokens", "30"};
  Arguments named = base;
  named.insert(named.end(), {"--tokenizer", scratch / "tokenizer.json"});
  write_tokenizer(scratch.path(), 3);
  const std::string letters = text(named);
  EXPECT_EQ(letters.size(), 30U);
  EXPECT_EQ(letters.find_first_not_of("abc"), std::string::npos);
  write_tokenizer(folder, 3);
  EXPECT_EQ(text(base), letters);
}

TEST_F(RetnetGenerate, VocabulariesOfDifferentSizes) {
  const std::string folder = model(6);
  const Arguments base{"--model", folder, "--prompt", "abc", "--max-tokens", "200"};
  Arguments padded = base;
  padded.push_back("--padded-vocab");
  write_tokenizer(folder, 7);
  expect_refused(1, {"7 tokens", "has 6"}, base);
  expect_refused(1, {"7 tokens", "has 6"}, padded);
  write_tokenizer(folder, 4);
  expect_refused(1, {"4 tokens", "has 6", "--padded-vocab"}, base);
  EXPECT_NE(text(padded).find("\xEF\xBF\xBD"), std::string::npos);  // an id without a token
  write_text(fs::path(folder) / "tokenizer.json", "{");
  expect_refused(1, {"tokenizer.json"}, base);
}
#endif

TEST_F(RetnetGenerate, BytesAreOnlyForModelsOf256Tokens) {
  expect_refused(1, {"255 tokens", "256", "--tokenizer"},
                 {"--model", model(255), "--prompt", "x", "--max-tokens", "5"});
}

TEST_F(RetnetGenerate, WrongCommandLines) {
  const std::string folder = model(256);
  const auto usage = [&](const std::string& message, Arguments more) {
    Arguments all{"--model", folder, "--prompt", "x"};
    all.insert(all.end(), more.begin(), more.end());
    expect_refused(2, {message}, all);
  };
  usage("--temperature", {"--temperature", "-1"});
  usage("--temperature", {"--temperature", "hot"});
  usage("--top-p", {"--top-p", "0"});
  usage("--top-p", {"--top-p", "1.5"});
  usage("--top-k", {"--top-k", "-3"});
  usage("--repetition-penalty", {"--repetition-penalty", "0"});
  usage("--max-tokens", {"--max-tokens", "-1"});
  usage("--stop", {"--stop", ""});
  usage("--unknown", {"--unknown"});
  expect_refused(2, {"--prompt"}, {"--model", folder});
  EXPECT_EQ(generate({"--help"}).code, 0);
}

TEST_F(RetnetGenerate, WrongInputs) {
  expect_refused(1, {"absent"}, {"--model", scratch / "absent", "--prompt", "x"});
  expect_refused(1, {"no tokens"}, {"--model", model(256), "--prompt", ""});
  expect_refused(1, {"no tokenizer"},
                 {"--model", model(256), "--prompt", "x", "--tokenizer", scratch.path()});
}

}  // namespace
}  // namespace tools
