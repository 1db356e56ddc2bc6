#include "common/xz.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

#include "common/corpus.hpp"

#ifndef RETNET_EXAMPLES_DATA_DIR
#define RETNET_EXAMPLES_DATA_DIR RETNET_TEST_DATA_DIR "/../examples/data"
#endif

namespace examples {
namespace {

#ifdef RETNET_EXAMPLES_HAVE_LZMA

TEST(Xz, TrainingTextHelpsOnTheBundledText) {
  const Corpus corpus = load_corpus(RETNET_EXAMPLES_DATA_DIR "/austen.txt");
  const auto xz = xz_bits_per_byte(corpus.train, corpus.held_out);
  ASSERT_TRUE(xz.has_value());
  EXPECT_NEAR(xz->alone, 2.625, 0.02);
  EXPECT_NEAR(xz->appended, 2.074, 0.02);
}

TEST(Xz, NoiseDoesNotShrinkButItsCopyDoes) {
  std::mt19937 random(1);
  std::vector<std::uint8_t> noise(100000);
  for (std::uint8_t& byte : noise) byte = static_cast<std::uint8_t>(random() & 0xff);
  const auto xz = xz_bits_per_byte(noise, noise);
  ASSERT_TRUE(xz.has_value());
  EXPECT_NEAR(xz->alone, 8.0, 0.02);
  EXPECT_LT(xz->appended, 0.1);
}

TEST(Xz, AnswersForTinyTextsAndRefusesEmptyOnes) {
  const std::vector<std::uint8_t> text = {'a', 'b', 'c'};
  const auto xz = xz_bits_per_byte({}, text);
  ASSERT_TRUE(xz.has_value());
  EXPECT_GT(xz->alone, 0.0);
  EXPECT_THROW(xz_bits_per_byte(text, {}), std::invalid_argument);
}

#else

TEST(Xz, HasNoAnswerWithoutLiblzma) {
  const std::vector<std::uint8_t> text = {'a', 'b', 'c'};
  EXPECT_FALSE(xz_bits_per_byte(text, text).has_value());
}

#endif

}  // namespace
}  // namespace examples
