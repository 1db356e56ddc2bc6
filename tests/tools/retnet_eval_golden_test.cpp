// SPDX-License-Identifier: MIT
// retnet_eval over every golden model: it writes what the reference implementations compute.

#include <gtest/gtest.h>

#include "tools/cases.hpp"

namespace tools {
namespace {

constexpr double kLoss = 2e-5;    // golden/data/README.md
constexpr double kDouble = 1e-7;  // computed in double, written as F32

Worst worst;
class Table : public testing::Environment {
  void TearDown() override { worst.print(); }
};
const auto* const table = testing::AddGlobalTestEnvironment(new Table);

// "parallel", "chunkwise", "chunkwise.c48" as options.
Arguments form_options(const std::string& mode, int chunk) {
  if (mode.starts_with("chunkwise"))
    return {"--form", "chunkwise", "--chunk",
            mode == "chunkwise" ? std::to_string(chunk) : mode.substr(11)};
  return {"--form", mode};
}
Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class RetnetEval : public testing::TestWithParam<std::string> {
 protected:
  const Case c{GetParam()};
  const int chunk = c.info.value("chunk_size", 64);
  const Arguments reference =
      c.scaled() ? Arguments{"--compat", "reference"} : Arguments{"--compat", "exact"};
  Scratch scratch;

  Arguments arguments(const Arguments& options) {
    return Arguments{"--model",   c.folder,
                     "--input",   c.folder / "io.safetensors",
                     "--output",  scratch / "out.safetensors",
                     "--threads", "1"} +
           options;
  }
  // The tensors that the tool writes.
  Archive eval(const Arguments& options) {
    const auto done = run(RETNET_EVAL, arguments(options));
    EXPECT_EQ(done.code, 0) << done.err;
    return done.code == 0 ? Archive(scratch / "out.safetensors") : Archive();
  }
  // Compares `logits` of a run with a tensor of the case.
  void expect_logits(const std::string& kind, const Arguments& options, const std::string& golden,
                     double tolerance) {
    const Archive out = eval(options);
    ASSERT_TRUE(out.has("logits"));
    expect_close(kind, error(out.at("logits"), c.io.at(golden)), tolerance, golden);
  }
  void expect_close(const std::string& kind, double error, double tolerance,
                    const std::string& what) {
    worst.note(kind, error, tolerance, GetParam());
    EXPECT_LE(error, tolerance) << kind << ": " << what;
  }
  std::vector<std::string> modes() const {
    std::vector<std::string> out;
    for (const auto& [mode, tolerance] : c.info.at("tolerance_rel").items())
      if (c.io.has("logits." + mode) && !mode.starts_with("masked") && mode != "packed")
        out.push_back(mode);
    return out;
  }
};

TEST_P(RetnetEval, LogitsOfTheReferenceInItsForms) {
  EXPECT_GE(modes().size(), 3U);
  for (const auto& mode : modes()) {
    const Arguments options = form_options(mode, chunk) + reference;
    expect_logits("logits, float", options, "logits." + mode, c.tolerance(mode));
    const std::string wide = c.scaled() ? "logits.float64_reference." + mode : c.exact_logits();
    if (c.io.has(wide))
      expect_logits("logits, double", options + Arguments{"--precision", "double"}, wide, kDouble);
  }
}

TEST_P(RetnetEval, ExactLogitsInEveryForm) {
  for (const std::string mode :
       {"parallel", "recurrent", "chunkwise", "chunkwise.c1", "chunkwise.c5", "chunkwise.c1000"}) {
    const Arguments options = form_options(mode, chunk);
    expect_logits("exact logits, float", options, c.exact_logits(), c.tolerance("recurrent"));
    expect_logits("exact logits, double", options + Arguments{"--precision", "double"},
                  c.exact_logits(), kDouble);
  }
}

TEST_P(RetnetEval, MaskedLogits) {
  for (const auto& golden : c.tensors("logits.masked")) {
    const std::string named = golden == "logits.masked" ? "" : golden.substr(14);
    for (const std::string mode : {"parallel", "recurrent", "chunkwise"}) {
      if (!named.empty() && named != mode) continue;
      const Archive out =
          eval(form_options(mode, 7) + reference + Arguments{"--mask", "attention_mask"});
      ASSERT_TRUE(out.has("logits"));
      const Array &given = out.at("logits"), &mask = c.io.at("attention_mask");
      const auto vocab = static_cast<std::size_t>(given.shape.at(2));
      retnet::test::RelativeError error;
      for (std::size_t i = 0; i < given.values.size(); ++i) {
        if (mask.values[i / vocab] == 1.0)
          error.add(given.values[i], c.io.at(golden).values[i]);
        else
          ASSERT_EQ(given.values[i], 0.0) << "padding";
      }
      const std::string key = named.empty() ? "masked" : "masked." + named;
      expect_close("masked logits", error.value(), c.tolerance(key), mode);
    }
  }
}

TEST_P(RetnetEval, PackedLogits) {
  if (!c.io.has("packed_ids")) return;
  for (const std::string mode : {"parallel", "recurrent", "chunkwise"})
    expect_logits("packed logits",
                  form_options(mode, 16) + reference +
                      Arguments{"--ids", "packed_ids", "--cu-seqlens", "cu_seqlens"},
                  "logits.packed", c.tolerance("packed"));
}

TEST_P(RetnetEval, GreedyTokens) {
  if (!c.io.has("generated_ids")) return;
  const Array& expected = c.io.at("generated_ids");
  const auto added = expected.shape.at(1) - c.io.at("prompt_ids").shape.at(1);
  Arguments options = {"--ids", "prompt_ids", "--greedy", std::to_string(added)};
  if (c.io.has("prompt_mask")) options = options + Arguments{"--mask", "prompt_mask"};
  for (const std::string mode : {"parallel", "recurrent", "chunkwise.c3"})
    for (const Arguments& compat : {reference, Arguments{"--compat", "exact"}}) {
      const Archive out = eval(options + form_options(mode, chunk) + compat);
      ASSERT_TRUE(out.has("generated_ids"));
      EXPECT_FALSE(out.has("logits"));
      EXPECT_EQ(out.at("generated_ids").shape, expected.shape);
      EXPECT_EQ(out.at("generated_ids").values, expected.values) << mode;
      worst.note("greedy texts", 0.0, 1.0, GetParam());
    }
}

TEST_P(RetnetEval, Loss) {
  for (const std::string precision : {"float", "double"}) {
    const Archive out =
        eval(Arguments{"--form", "parallel", "--loss", "--precision", precision} + reference);
    ASSERT_TRUE(out.has("loss"));
    EXPECT_TRUE(out.has("logits"));
    EXPECT_EQ(out.at("loss").shape, std::vector<retnet::Index>{});
    expect_close("loss", error(out.at("loss"), c.io.at("loss")), kLoss, precision);
  }
}

TEST_P(RetnetEval, Gradients) {
  const auto golden = c.tensors("grad.");
  if (golden.empty()) return;
  const double tolerance = c.info.at("grad").at("tolerance_rel").get<double>();
  std::vector<Arguments> forms{{"--form", "parallel"}};
  if (!c.scaled()) forms.push_back({"--form", "chunkwise", "--chunk", "16"});
  for (const auto& form : forms)
    for (const std::string precision : {"float", "double"}) {
      const Archive out = eval(form + Arguments{"--grad", "--precision", precision} + reference);
      ASSERT_TRUE(out.has("loss"));
      std::size_t written = 0;
      for (const auto& [key, array] : out.arrays()) written += key.starts_with("grad.");
      EXPECT_EQ(written, golden.size());
      for (const auto& key : golden) {
        ASSERT_TRUE(out.has(key)) << key;
        expect_close("gradients, " + precision, error(out.at(key), c.io.at(key)), tolerance, key);
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Golden, RetnetEval, testing::ValuesIn(model_cases()),
                         [](const auto& one) { return one.param; });

}  // namespace
}  // namespace tools
