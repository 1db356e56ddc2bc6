// SPDX-License-Identifier: MIT
// A model that was saved and loaded is the same function, bit for bit.
#include "retnet/io/model_file.hpp"

#include <cstring>

#include "io/support.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::TempDir;

RetNetConfig small() {
  RetNetConfig c{.vocab = 19, .d_model = 16, .layers = 2};
  c.retention.heads = 2;
  c.retention.head_norm_affine = Affine::per_channel;
  c.feed_forward.kind = FeedForwardKind::glu;
  c.feed_forward.bias = true;
  return c;
}

RowMatrix<Token> some_tokens() {
  RowMatrix<Token> tokens(2, 9);
  for (Index i = 0; i < tokens.size(); ++i) tokens.data()[i] = static_cast<Token>(i * 7 % 19);
  return tokens;
}

template <class Model>
void expect_same_function(const Model& a, const Model& b) {
  const auto tokens = some_tokens();
  const auto x = a.forward_parallel(tokens), y = b.forward_parallel(tokens);
  EXPECT_EQ(std::memcmp(x.data(), y.data(), static_cast<std::size_t>(x.size()) * sizeof(*x.data())),
            0);
  auto s = a.initial_state(2), t = b.initial_state(2);
  const auto p = a.forward_recurrent(tokens, s), q = b.forward_recurrent(tokens, t);
  EXPECT_EQ(std::memcmp(p.data(), q.data(), static_cast<std::size_t>(p.size()) * sizeof(*p.data())),
            0);
}

TEST(ModelFile, IsTheSameFunction) {
  const TempDir dir;
  const RetNetModel<float> model(small(), Seed{3});
  save_model(dir / "m", model);
  const auto loaded = load_model<float>(dir / "m");
  EXPECT_EQ(config_to_json(loaded.config()), config_to_json(model.config()));
  expect_same_function(model, loaded);
}

TEST(ModelFile, HoldsDoubles) {
  const TempDir dir;
  const RetNetModel<double> model(small(), Seed{3});
  save_model(dir / "m", model);
  expect_same_function(model, load_model<double>(dir / "m"));
}

TEST(ModelFile, HoldsBfloat16) {
  const TempDir dir;
  const RetNetModel<float> model(small(), Seed{3});
  const auto half_size = model.with_weights(model.weight_buffer().cast<bfloat16>());
  save_model(dir / "m", half_size);
  EXPECT_EQ(SafetensorsFile(dir / "m").at("embed_tokens.weight").dtype, Dtype::bf16);
  expect_same_function(half_size, load_model<float, bfloat16>(dir / "m"));
  // Widened on the way in, and narrowed on the way in.
  expect_same_function(load_model<float>(dir / "m"),
                       model.with_weights(half_size.weight_buffer().cast<float>()));
  save_model(dir / "m", model);
  expect_same_function(half_size, load_model<float, bfloat16>(dir / "m"));
}

TEST(ModelFile, LoadsFromMemory) {
  const TempDir dir;
  const RetNetModel<float> model(small(), Seed{3});
  save_model(dir / "m", model);
  const auto bytes = io_test::bytes_of(io_test::read_file(dir / "m"));
  expect_same_function(model, load_model<float>(SafetensorsFile(bytes)));
}

TEST(ModelFile, SaysWhatItIs) {
  const TempDir dir;
  save_model(dir / "m", RetNetModel<float>(small()));
  const auto metadata = SafetensorsFile(dir / "m").metadata();
  EXPECT_EQ(metadata.at("format"), "retnet");
  EXPECT_EQ(metadata.at("format_version"), "1");
  EXPECT_EQ(metadata.at("library_version"), RETNET_VERSION_STRING);
  EXPECT_EQ(config_from_json(metadata.at("config")).vocab, 19);
}

/// The file of a small model, its config replaced.
std::vector<std::byte> with_config(const std::string& config, const char* format = "retnet") {
  const RetNetModel<float> model(small());
  SafetensorsWriter out;
  for (const auto& e : model.layout().entries()) {
    const auto w = model.weights()[e.place];
    const std::span<const float> values(w.data, static_cast<std::size_t>(e.place.size()));
    out.add(e.name, detail::param_shape(e.place), values);
  }
  out.metadata("format", format);
  out.metadata("format_version", "1");
  out.metadata("config", config);
  return out.bytes();
}
void refused(const std::vector<std::byte>& bytes, std::initializer_list<std::string_view> parts) {
  expect_error<std::invalid_argument>(
      [&] { load_model<float>(SafetensorsFile(bytes, "m.safetensors")); }, parts);
}

TEST(ModelFile, ConfigAndTensorsMustAgree) {
  auto c = small();
  EXPECT_NO_THROW(load_model<float>(SafetensorsFile(with_config(config_to_json(c)))));
  c.layers = 1;
  refused(with_config(config_to_json(c)),
          {"m.safetensors", "unknown: layers.1.", "expected these"});
  c = small();
  c.vocab = 18;
  refused(with_config(config_to_json(c)),
          {"embed_tokens.weight is F32 [19,16], expected", "[18,16]"});
}

TEST(ModelFile, OtherFilesAreRefused) {
  refused(with_config(config_to_json(small()), "pt"),
          {"[load_model] m.safetensors: format is pt, expected retnet"});
  refused(with_config("{}"), {"m.safetensors: version is missing"});
  refused(SafetensorsWriter().bytes(), {"m.safetensors: format is "});
}

TEST(ModelFile, AHugeConfigTakesNoMemory) {
  constexpr Index kHuge = (Index{1} << 31) - 1;
  const auto huge = [](auto change) {
    auto c = small();
    change(c);
    refused(with_config(config_to_json(c)),
            {"[load_model] m.safetensors: the config needs at least"});
  };
  huge([](auto& c) { c.vocab = kHuge; });
  huge([](auto& c) { c.layers = kHuge; });
  huge([](auto& c) { c.layers = 3; });
  huge([](auto& c) { c.feed_forward.hidden = kHuge; });
  huge([](auto& c) { c.retention.d_value = kHuge - 1; });
  huge([](auto& c) { c.d_model = kHuge - 3; });
  huge([](auto& c) {
    c.retention.heads = c.retention.d_key = kHuge - 1;
    c.retention.d_value = kHuge - 1;
    c.retention.rotation = RotationLayout::none;
  });
}

TEST(ModelFile, SurvivesDamageToItsHeader) {
  const TempDir dir;
  save_model(dir / "m", RetNetModel<float>(small()));
  const auto good = io_test::bytes_of(io_test::read_file(dir / "m"));
  const auto header = static_cast<std::size_t>(good[0]) | static_cast<std::size_t>(good[1]) << 8;
  ASSERT_GT(header, 1000u);
  int loaded = 0, refused = 0;
  for (std::size_t i = 0; i < header + 8; i += 2) {
    auto bytes = good;
    for (const auto value : {std::byte{'9'}, bytes[i] ^ std::byte{1}}) {
      bytes[i] = value;
      try {
        const auto model = load_model<float>(SafetensorsFile(bytes));
        loaded += model.layout().count() > 0;
      } catch (const std::exception&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(loaded, 0);
  EXPECT_GT(refused, loaded);
}

}  // namespace
}  // namespace retnet
