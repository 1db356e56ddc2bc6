// SPDX-License-Identifier: MIT
#include "retnet_generate/stop_text.hpp"

#include <gtest/gtest.h>

namespace retnet_generate {
namespace {

// What is shown of a text that comes in pieces of `size` bytes.
std::string shown(const std::string& text, std::size_t size,
                  const std::vector<std::string>& stops) {
  StopText stop(stops);
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += size) out += stop.add(text.substr(i, size));
  return out + stop.finish();
}

TEST(StopText, EndsBeforeTheFirstStopTextInAnyPieces) {
  for (std::size_t size = 1; size <= 20; ++size) {
    EXPECT_EQ(shown("one, two, three", size, {}), "one, two, three");
    EXPECT_EQ(shown("one, two, three", size, {"two"}), "one, ");
    EXPECT_EQ(shown("one, two, three", size, {"three", ", "}), "one");
    EXPECT_EQ(shown("one, two, three", size, {"four"}), "one, two, three");
    EXPECT_EQ(shown("aaab", size, {"aab"}), "a");
    EXPECT_EQ(shown("one", size, {"one"}), "");
    EXPECT_EQ(shown("the end", size, {"end."}), "the end");
  }
}

TEST(StopText, HoldsBackOnlyWhatMayBecomeAStopText) {
  StopText stop({"END", "no"});
  EXPECT_EQ(stop.add("a E"), "a ");
  EXPECT_EQ(stop.add("N"), "");
  EXPECT_EQ(stop.add("n"), "EN");
  EXPECT_FALSE(stop.found());
  EXPECT_EQ(stop.add("o more"), "");
  EXPECT_TRUE(stop.found());
  EXPECT_EQ(stop.add("text"), "");
  EXPECT_EQ(stop.finish(), "");
}

TEST(StopText, AnEmptyOneIsRefused) { EXPECT_THROW(StopText({"a", ""}), std::invalid_argument); }

}  // namespace
}  // namespace retnet_generate
