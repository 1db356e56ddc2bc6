// SPDX-License-Identifier: MIT
// Writes the seeds of the fuzz targets: what our own writers make of small models, and the data of
// the other tests.
//   fuzz_corpus <tests folder> <corpus folder>
// Other files of the corpus, regressions for instance, stay as they are.
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/small_model.hpp"
#include "retnet/io/pretrained.hpp"

namespace retnet::fuzz {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  in.exceptions(std::ios::failbit | std::ios::badbit);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Corpus {
 public:
  Corpus(fs::path folder, const char* target) : folder_(std::move(folder) / target) {
    fs::create_directories(folder_);
  }
  void add(const std::string& name, std::string_view text) const {
    std::ofstream out(folder_ / name, std::ios::binary);
    out.exceptions(std::ios::failbit | std::ios::badbit);
    out << text;
  }
  void add(const std::string& name, std::span<const std::byte> bytes) const {
    add(name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }

 private:
  fs::path folder_;
};

/// Sections with zero bytes between them.
std::string joined(std::initializer_list<std::string_view> sections) {
  std::string out;
  for (const auto section : sections) out.append(section).append(1, '\0');
  out.pop_back();
  return out;
}

void write_safetensors(const fs::path& corpus) {
  const Corpus out(corpus, "safetensors");
  const RetNetModel<float> model(small_config(), Seed{1});
  const auto describe = [](SafetensorsWriter& file) {  // as save_model, less what changes often
    file.metadata("format", "retnet");
    file.metadata("format_version", "1");
    file.metadata("config",
                  R"({"version":1,"vocab":3,"d_model":2,"layers":2,"feed_forward":{"hidden":1},)"
                  R"("attention":[{"layer":1,"attention":{"heads":1,"window":3}}],)"
                  R"("retention":{"heads":1,"normalization":"paper_score"}})");
  };
  {
    const auto tensors = keyed_tensors(KeyMap(), model.layout());
    std::vector<std::vector<float>> values;
    for (const auto& t : tensors) values.push_back(gather<float>(t, model.weight_buffer()));
    SafetensorsWriter file;
    for (std::size_t i = 0; i < tensors.size(); ++i)
      file.add(tensors[i].key, tensors[i].shape, values[i]);
    out.add("weights", file.bytes());
    describe(file);
    out.add("model", file.bytes());
  }
  {
    RowMatrix<Token> tokens(kSmallSequences, 4);
    tokens << 0, 1, 2, 1, 1, 0, 2, 2;
    auto state = model.initial_state(kSmallSequences);
    model.forward_recurrent(tokens, state);
    CheckpointWriter states;
    states.set("step", 17);
    states.set("lr", 0.5);
    states.add_state("", state);
    out.add("state", states.bytes());
  }
  {
    std::vector<std::vector<std::byte>> values;
    SafetensorsWriter file;
    for (const auto& info : detail::kDtypes) values.emplace_back(2 * info.bytes, std::byte{1});
    for (std::size_t i = 0; i < values.size(); ++i)
      file.add(detail::kDtypes[i].name, detail::kDtypes[i].dtype, {2, 1}, values[i]);
    file.add("none", Dtype::f32, {0, 5}, {});
    file.add("", Dtype::u8, {}, std::span(values[0]).first(1));
    out.add("every_dtype", file.bytes());
  }
  out.add("empty", SafetensorsWriter().bytes());
}

void write_index(const fs::path& corpus) {
  const Corpus out(corpus, "index");
  const std::map<std::string, std::string> files{
      {"model.embeddings.weight", "model-00001-of-00002.safetensors"},
      {"model.layers.0.attn.q_proj.weight", "model-00001-of-00002.safetensors"},
      {"lm_head.weight", "model-00002-of-00002.safetensors"}};
  out.add("two_shards", detail::index_json(12345, files));
  out.add("no_size", R"({"weight_map":{"a":"m.safetensors"}})");
  out.add("more_metadata",
          R"({"metadata":{"total_size":8,"format":"pt","by":[1,null,true,-2.5e3,{"\u00e9":""}]},)"
          R"("weight_map":{"\ud83d\ude42":"\u6625.safetensors","":"x.safetensors"}})");
  for (const char* name : {"../m.safetensors", "/m.safetensors", ".safetensors", "m.bin"})
    out.add("refused_" + std::to_string(std::string_view(name).size()),
            detail::index_json(1, {{"a", name}}));
  out.add("found_zero_byte", R"({"weight_map":{"a":"x.bin\u0000.safetensors"}})");
}

/// The first byte of the config target.
char how(Dialect dialect, Compat compat = Compat::exact, bool ignore = false) {
  return static_cast<char>('@' + static_cast<int>(dialect) + (compat == Compat::exact ? 0 : 8) +
                           (ignore ? 16 : 0));
}

void write_config(const fs::path& corpus, const fs::path& tests) {
  const Corpus out(corpus, "config");
  const auto add = [&](const std::string& name, Dialect dialect, Compat compat,
                       std::string_view text, std::string_view tensors = "") {
    const std::string first(1, how(dialect, compat));
    out.add(name, joined({first + std::string(text), tensors}));
  };
  for (const auto& entry : fs::directory_iterator(tests / "golden/data")) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    const auto text = Json::parse(read_file(entry.path() / "config.json")).dump();
    const Dialect dialect = detect_dialect(text);
    add(entry.path().filename().string(), dialect, Compat::exact, text,
        dialect == Dialect::fla ? "model.layers.0.attn.g_norm.weight\nlm_head.weight"
                                : "layers.0.retention.q_proj.weight");
  }
  const ModelSize size{.vocab = 5, .d_model = 8, .layers = 2, .heads = 2, .d_value = 8, .ffn = 8};
  const auto add_written = [&](const char* name, Dialect dialect, const RetNetConfig& c) {
    add(std::string("written_") + name, dialect,
        c.retention.compat() ? Compat::reference : Compat::exact,
        Json::parse(dialect_config_to_json(c, dialect)).dump());
  };
  RetNetConfig small = small_config();
  small.cross_decoder.layers = 1;
  small.cross_decoder.attention.heads = 1;
  add_written("retnet", Dialect::retnet, small);
  RetNetConfig values = presets::torchscale_v2(size);
  values.retention.decay = DecayKind::values;
  values.retention.gamma = {0.5, 0.875};
  values.retention.theta = ThetaKind::values;
  values.retention.theta_values = {1.0, 0.25};
  add_written("retnet_values", Dialect::retnet, values);
  add_written("v2", Dialect::torchscale_v2, presets::torchscale_v2(size));
  add_written("syncdoth", Dialect::syncdoth, presets::syncdoth(size));
  add_written("fla", Dialect::fla, presets::fla(size));
  add("v2_reference", Dialect::torchscale_v2, Compat::reference,
      Json::parse(dialect_config_to_json(presets::torchscale_v2(size), Dialect::torchscale_v2))
          .dump());
  add("least_retnet", Dialect::retnet, Compat::exact,
      R"({"version":1,"vocab":5,"d_model":8,"layers":2,"retention":{"heads":2}})");
  add("xatl", Dialect::xatl, Compat::exact,
      R"({"decoder_embed_dim":8,"hidden_size":8,"decoder_layers":2,"decoder_retention_heads":2,)"
      R"("decoder_value_embed_dim":8,"decoder_ffn_embed_dim":8,"vocab_size":5,)"
      R"("use_rms_norm":false,"groupnorm_affine":true,"use_bias":true,"lm_head_bias":true,)"
      R"("retnet_bottleneck":4,"parallel_residual":true,"shared_attention_norm":true,)"
      R"("rotary_percentage":0.5,"activation_fn":"gelu_new","use_lm_decay":true,"use_glu":false,)"
      R"("retnet_stability_update":true,"hybrid_attention_layers":[]})");
  add("xatl_attention", Dialect::xatl, Compat::exact,
      R"({"decoder_embed_dim":8,"decoder_layers":2,"decoder_retention_heads":2,"vocab_size":5,)"
      R"("decoder_value_embed_dim":8,"decoder_ffn_embed_dim":8,"hybrid_attention_layers":[1]})");
  add("fla_attention", Dialect::fla, Compat::exact,
      R"({"hidden_size":8,"num_heads":2,"num_hidden_layers":2,"vocab_size":5,)"
      R"("attn":{"layers":[1],"num_heads":2,"num_kv_heads":1,"window_size":4,"qkv_bias":true,)"
      R"("qk_norm":true,"rope_theta":10000.0}})");
  add("found_wide", Dialect::fla, Compat::exact, R"({"hidden_size":2147483647,"num_heads":1})");
  add("found_wide_ffn", Dialect::fla, Compat::exact,
      R"({"hidden_size":2000000000,"num_heads":1,"expand_v":0.5})");
}

void write_tokenizer_json(const fs::path& corpus, const fs::path& tests) {
  const Corpus out(corpus, "tokenizer_json");
  constexpr std::string_view kText = "It is a truth, 'll 12 \xE6\x98\xA5\xF0\x9F\x99\x82 <s>\n  x";
  constexpr std::string_view kConfig =
      R"({"bos_token":"<s>","eos_token":{"content":"</s>"},"pad_token":null})";
  const fs::path data = tests / "tokenizers/data";
  for (const char* name : {"affixes", "gpt2", "llama", "llama3", "metaspace", "neox"})
    out.add(name, joined({read_file(data / (std::string(name) + ".json")), kConfig, kText}));

  // The single parts, each in a tokenizer of few tokens.
  const Json parts = Json::parse(read_file(data / "parts.json"));
  const auto plain = Json::parse(
      R"({"added_tokens":[{"id":9,"content":"<s>","special":true,"lstrip":true},
          {"id":10,"content":"is","single_word":true,"rstrip":true,"normalized":true}],
          "normalizer":null,"pre_tokenizer":null,"decoder":null,"post_processor":{
          "type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
          {"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<s>":{"id":"<s>","ids":[9],
          "tokens":["<s>"]}}},"model":{"type":"BPE","unk_token":"?","fuse_unk":true,
          "vocab":{"?":0,"a":1,"b":2,"ab":3," ":4,"\u2581":5,"\u0120":6,"-":7,"1":8},
          "merges":["a b"]}})");
  // What a text is made ten times as long by, again and again; what splits it, again and again.
  const auto add_steps = [&](const char* key, const char* list, const char* step) {
    Json json = plain;
    json[key] = {{"type", "Sequence"}, {list, Json(20, Json::parse(step))}};
    out.add(detail::concat("found_growth_", key), joined({json.dump(), "", "ab -1 <s>aaaa    "}));
  };
  constexpr const char* kReplace =
      R"({"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaaaa"})";
  add_steps("normalizer", "normalizers", kReplace);
  add_steps("decoder", "decoders", kReplace);
  add_steps("pre_tokenizer", "pretokenizers", R"({"type":"ByteLevel","use_regex":false})");
  Json joins = plain;
  joins["normalizer"] = Json::parse(
      R"({"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Prepend","prepend":"\u2581"},
          {"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "},{"type":"Lowercase"}]})");
  joins["pre_tokenizer"] = Json::parse(
      R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},
          {"type":"Split","pattern":{"Regex":"\\w+|[^\\s]"},"behavior":"MergedWithNext"},
          {"type":"Metaspace","prepend_scheme":"first"}]})");
  joins["decoder"] = Json::parse(
      R"({"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"},
          {"type":"Strip","content":" ","start":1,"stop":0}]})");
  joins["post_processor"] = Json::parse(
      R"({"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing",
          "single":[{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"</s>"}}],
          "special_tokens":{"</s>":{"ids":[10]}}}]})");
  out.add("sequences", joined({joins.dump(), kConfig, kText}));
  const auto add_parts = [&](const char* kind, const char* key) {
    int number = 0;
    for (const auto& part : parts.at(kind)) {
      if (number++ % 4 != 0 && std::string_view(kind) == "pre_tokenizers") continue;
      Json json = plain;
      json[key] = part[0];
      out.add(detail::concat(key, "_", number), joined({json.dump(), "", "ab -1\xC3\xA9 <s>"}));
    }
  };
  add_parts("pre_tokenizers", "pre_tokenizer");
  add_parts("normalizers", "normalizer");
  add_parts("decoders", "decoder");
}

void write_tiktoken(const fs::path& corpus, const fs::path& tests) {
  const Corpus out(corpus, "tiktoken");
  constexpr std::string_view kText = "It's 1234 \xE6\x98\xA5\xF0\x9F\x99\x82<|endoftext|>\r\n  x";
  out.add("small",
          joined({"@" + read_file(tests / "tokenizers/data/small.tiktoken"), "<x>", kText}));
  const std::string merges = "YWI= 256\nYWJh 300\r\nICA= 257\n";  // before the 256 bytes
  for (const char first : {'H', 'I', 'J'})
    out.add(std::string("merges_") + first, joined({first + merges, "<x>", kText}));
  out.add("pattern", joined({"L" + merges, R"(\s+|[^\s]{1,4})", kText}));
  out.add("pattern_gap", joined({"L" + merges, R"(\p{L}+)", kText}));
}

}  // namespace
}  // namespace retnet::fuzz

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fprintf(stderr, "usage: fuzz_corpus <tests folder> <corpus folder>\n");
    return 2;
  }
  const std::filesystem::path tests = argv[1], corpus = argv[2];
  retnet::fuzz::write_safetensors(corpus);
  retnet::fuzz::write_index(corpus);
  retnet::fuzz::write_config(corpus, tests);
  retnet::fuzz::write_tokenizer_json(corpus, tests);
  retnet::fuzz::write_tiktoken(corpus, tests);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "fuzz_corpus: %s\n", e.what());
  return 1;
}
