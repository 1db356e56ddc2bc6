// SPDX-License-Identifier: MIT
// The text of the error that a call at the public door throws.
#pragma once

#include <stdexcept>
#include <string>

namespace retnet::test {

/// what() of the std::invalid_argument that f throws; "nothing was thrown" if it throws none.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace retnet::test
