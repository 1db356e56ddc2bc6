#include "common/ngram.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "common/corpus.hpp"

#ifndef RETNET_EXAMPLES_DATA_DIR
#define RETNET_EXAMPLES_DATA_DIR RETNET_TEST_DATA_DIR "/../examples/data"
#endif

namespace examples {
namespace {

std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

double probability(const NgramModel& model, std::string_view history, char next) {
  return model.probability(bytes(history), static_cast<std::uint8_t>(next));
}

// "aabab": bigrams aa 1, ab 2, ba 1, so n1 = 2, n2 = 1, D_1 = 2 / 4.
// Distinct bytes seen before a: 2 (aa, ba), before b: 1 (ab), so n1 = n2 = 1, D_0 = 1 / 3.
TEST(Ngram, MatchesAHandCalculation) {
  const NgramModel model(bytes("aabab"), 1);
  const double spread = (1.0 / 3.0) * 2.0 / 3.0 / 256.0;
  const double a = (2.0 - 1.0 / 3.0) / 3.0 + spread;
  const double b = (1.0 - 1.0 / 3.0) / 3.0 + spread;
  EXPECT_NEAR(probability(model, "", 'a'), a, 1e-15);
  EXPECT_NEAR(probability(model, "", 'b'), b, 1e-15);
  EXPECT_NEAR(probability(model, "", 'z'), spread, 1e-15);
  EXPECT_NEAR(probability(model, "a", 'b'), 1.5 / 3.0 + 0.5 * 2.0 / 3.0 * b, 1e-15);
  EXPECT_NEAR(probability(model, "a", 'a'), 0.5 / 3.0 + 0.5 * 2.0 / 3.0 * a, 1e-15);
  EXPECT_NEAR(probability(model, "b", 'a'), 0.5 + 0.5 * a, 1e-15);
  EXPECT_NEAR(probability(model, "b", 'z'), 0.5 * spread, 1e-15);
  // A context never seen leaves the shorter one; a long history counts with its last byte only.
  EXPECT_NEAR(probability(model, "z", 'a'), a, 1e-15);
  EXPECT_EQ(probability(model, "bbba", 'b'), probability(model, "a", 'b'));
  const double bits = -std::log2(a) - std::log2(probability(model, "a", 'b'));
  EXPECT_NEAR(model.bits_per_byte(bytes("ab")), bits / 2.0, 1e-14);
}

TEST(Ngram, ProbabilitiesSumToOneInEveryContext) {
  const auto text = bytes("the cat sat on the mat, and the rat sat on the cat; that was that.");
  for (int order = 1; order <= 7; ++order) {
    const NgramModel model(text, order);
    for (std::string_view history : {"", "t", "he", "the", "zzz", "on the ca", "\xff\xff\xff"}) {
      double sum = 0.0;
      for (int next = 0; next < 256; ++next) {
        const double p = model.probability(bytes(history), static_cast<std::uint8_t>(next));
        EXPECT_GT(p, 0.0);
        sum += p;
      }
      EXPECT_NEAR(sum, 1.0, 1e-12) << "order " << order << ", history " << history;
    }
  }
}

TEST(Ngram, FindsNothingInNoiseAndEverythingInRepetition) {
  std::mt19937 random(1);
  std::vector<std::uint8_t> noise(200000);
  for (std::uint8_t& byte : noise) byte = static_cast<std::uint8_t>(random() & 0xff);
  const std::span<const std::uint8_t> all(noise);
  const double bits = NgramModel(all.first(180000)).bits_per_byte(all.last(20000));
  EXPECT_GT(bits, 7.99);
  EXPECT_LT(bits, 8.5);

  std::string same;
  for (int i = 0; i < 1000; ++i) same += "abcd";
  EXPECT_LT(NgramModel(bytes(same)).bits_per_byte(bytes(same)), 0.02);
}

TEST(Ngram, IsAStrongBaselineOnTheBundledText) {
  const Corpus corpus = load_corpus(RETNET_EXAMPLES_DATA_DIR "/austen.txt");
  const NgramModel model(corpus.train);
  EXPECT_EQ(model.order(), 3);
  EXPECT_NEAR(model.bits_per_byte(corpus.held_out), 2.0290, 5e-4);
  EXPECT_GT(NgramModel(corpus.train, 2).bits_per_byte(corpus.held_out), 2.5);
}

TEST(Ngram, RefusesBadOrdersAndEmptyTexts) {
  const auto text = bytes("abcabc");
  EXPECT_THROW(NgramModel(text, 0), std::invalid_argument);
  EXPECT_THROW(NgramModel(text, 8), std::invalid_argument);
  EXPECT_THROW(NgramModel(bytes("abc"), 3), std::invalid_argument);
  EXPECT_NO_THROW(NgramModel(bytes("abcd"), 3));
  EXPECT_THROW(NgramModel(text, 2).bits_per_byte({}), std::invalid_argument);
}

}  // namespace
}  // namespace examples
