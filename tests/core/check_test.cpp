// SPDX-License-Identifier: MIT
#include "retnet/core/check.hpp"

#include <gtest/gtest.h>

#include <string>

#include "retnet/core/view.hpp"

namespace retnet {
namespace {

enum class Colour { red, green };

TEST(Check, MessagesNameThePlaceTheGivenAndTheExpected) {
  const View<float, 3> view(nullptr, {2, 3, 4});
  try {
    RETNET_CHECK(false, "Place::name", "shape ", view, ", rate ", 0.25, ", ", 7, ", ", true, ", ",
                 Colour::green, ", ", std::string("text"), ", expected more");
    FAIL() << "expected an exception";
  } catch (const std::invalid_argument& e) {
    EXPECT_EQ(std::string(e.what()),
              "[Place::name] shape [2,3,4], rate 0.25, 7, true, 1, text, expected more");
  }
}

TEST(Check, IsSilentWhenTheConditionHolds) {
  EXPECT_NO_THROW(RETNET_CHECK(1 + 1 == 2, "Place::name", "never seen"));
}

}  // namespace
}  // namespace retnet
