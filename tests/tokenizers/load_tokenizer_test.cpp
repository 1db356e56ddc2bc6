// SPDX-License-Identifier: MIT
#include "retnet/tokenizers/load_tokenizer.hpp"

#include "tokenizers/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::read_file;
using io_test::TempDir;
using io_test::write_file;
using tokenizer_test::data;

TEST(LoadTokenizer, TakesWhatIsInTheFolder) {
  const TempDir dir;
  expect_error<std::invalid_argument>([&] { load_tokenizer(dir.string()); },
                                      {"[load_tokenizer] " + dir.string(),
                                       " holds no tokenizer, expected tokenizer.json, *.tiktoken"});
  write_file(dir / "r50k_base.tiktoken", read_file(data("small.tiktoken")));
  EXPECT_EQ(load_tokenizer(dir.string())->vocab_size(), 50257);
  write_file(dir / "tokenizer.json", read_file(data("gpt2.json")));
  EXPECT_EQ(load_tokenizer(dir.string())->vocab_size(), 440);
  EXPECT_EQ(load_tokenizer(dir / "r50k_base.tiktoken")->vocab_size(), 50257);
  EXPECT_EQ(load_tokenizer(data("llama.json"))->vocab_size(), 600);
}

TEST(LoadTokenizer, ReadsTheConfigBesideTheFile) {
  const TempDir dir;
  write_file(dir / "tokenizer.json", read_file(data("gpt2.json")));
  EXPECT_EQ(load_tokenizer(dir.string())->special().eos, std::nullopt);
  write_file(dir / "tokenizer_config.json",
             R"({"eos_token":"<|endoftext|>","bos_token":{"content":"<|endoftext|>"},)"
             R"("pad_token":null,"unk_token":"nowhere",)"
             R"("model_max_length":1000000000000000019884624838656})");
  const auto tokenizer = load_tokenizer(dir.string());
  EXPECT_EQ(tokenizer->special().eos, 0);
  EXPECT_EQ(tokenizer->special().bos, 0);
  EXPECT_EQ(tokenizer->special().pad, std::nullopt);
  EXPECT_EQ(tokenizer->special().unk, std::nullopt);
  write_file(dir / "tokenizer_config.json", R"({"eos_token":7})");
  expect_error<std::invalid_argument>(
      [&] { load_tokenizer(dir.string()); },
      {"tokenizer_config.json of ", "tokenizer.json: eos_token is 7, expected a string"});
}

TEST(LoadTokenizer, RefusesToGuess) {
  const TempDir dir;
  write_file(dir / "gpt2.tiktoken", read_file(data("small.tiktoken")));
  write_file(dir / "cl100k_base.tiktoken", read_file(data("small.tiktoken")));
  write_file(dir / "notes.txt", "");
  expect_error<std::invalid_argument>([&] { load_tokenizer(dir.string()); },
                                      {"has 2 files *.tiktoken, expected one"});
  expect_error<std::invalid_argument>([&] { load_tokenizer(dir / "notes.txt"); },
                                      {"notes.txt holds no tokenizer"});
  expect_error<std::system_error>([&] { load_tokenizer(dir / "none.json"); }, {"none.json"});
}

}  // namespace
}  // namespace retnet
