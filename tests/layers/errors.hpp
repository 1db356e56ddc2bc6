// SPDX-License-Identifier: MIT
// Errors at the public door: the right exception, and a message that says what it must.
#pragma once

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <stdexcept>
#include <string>
#include <vector>

namespace retnet::test {

template <class S>
using RowMajorMatrixOf = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// f() throws std::invalid_argument, and what() contains every part.
template <class F>
void expect_error(F&& f, const std::vector<std::string>& parts) {
  try {
    f();
  } catch (const std::invalid_argument& error) {
    const std::string what = error.what();
    EXPECT_EQ(what.front(), '[') << what;
    for (const auto& part : parts)
      EXPECT_NE(what.find(part), std::string::npos) << "no \"" << part << "\" in: " << what;
    return;
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception: " << error.what();
    return;
  }
  ADD_FAILURE() << "nothing thrown, expected " << (parts.empty() ? "" : parts.front());
}

}  // namespace retnet::test
