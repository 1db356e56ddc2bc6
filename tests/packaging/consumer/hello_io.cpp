// SPDX-License-Identifier: MIT
// The io component brings nlohmann-json along.
#include <nlohmann/json.hpp>

#include <retnet/io/safetensors.hpp>

#include <cstdio>

int main() {
  const auto list = nlohmann::json::parse("[1, 2]");
  std::printf("retnet %s with json\n", RETNET_VERSION_STRING);
  return list.size() == 2 ? 0 : 1;
}
