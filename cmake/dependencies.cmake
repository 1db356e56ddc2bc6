# SPDX-License-Identifier: MIT
# Finds what the chosen parts need, on this machine only: nothing is ever downloaded. What is missing is named once,
# all together, with the line that installs it.

# Imported targets must be visible where a parent project links retnet::retnet.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE)

set(retnet_missing "")
macro(retnet_need target debian_package)
  if(NOT TARGET ${target})
    list(APPEND retnet_missing ${debian_package})
  endif()
endmacro()

include(${CMAKE_CURRENT_LIST_DIR}/retnetEigen.cmake)
if(retnet_eigen_error AND TARGET Eigen3::Eigen)
  message(FATAL_ERROR "${retnet_eigen_error}")
endif()
retnet_need(Eigen3::Eigen libeigen3-dev)

if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json CONFIG QUIET)
endif()
if(RETNET_BUILD_TESTS OR RETNET_BUILD_EXAMPLES)
  retnet_need(nlohmann_json::nlohmann_json nlohmann-json3-dev)
endif()

# The components tokenizers and sentencepiece are there where these are.
if(NOT TARGET ICU::i18n OR NOT TARGET ICU::uc)
  find_package(ICU QUIET COMPONENTS i18n uc)
endif()
include(${CMAKE_CURRENT_LIST_DIR}/retnetSentencePiece.cmake)

if(RETNET_BUILD_EXAMPLES)
  if(NOT TARGET CLI11::CLI11)
    find_package(CLI11 CONFIG QUIET)
  endif()
  retnet_need(CLI11::CLI11 libcli11-dev)
endif()

if(RETNET_BUILD_TESTS)
  if(NOT TARGET GTest::gtest_main)
    find_package(GTest CONFIG QUIET)
  endif()
  retnet_need(GTest::gtest_main libgtest-dev)
endif()

if(RETNET_BUILD_BENCH)
  if(NOT TARGET benchmark::benchmark_main)
    find_package(benchmark CONFIG QUIET)
  endif()
  retnet_need(benchmark::benchmark_main libbenchmark-dev)
endif()

if(retnet_missing)
  list(REMOVE_DUPLICATES retnet_missing)
  list(JOIN retnet_missing " " retnet_missing)
  message(FATAL_ERROR
    "retnet: packages are missing. On Debian or Ubuntu:\n"
    "    sudo apt-get install --no-install-recommends ${retnet_missing}\n"
    "The headers alone need only Eigen: turn off the rest with "
    "-DRETNET_BUILD_TESTS=OFF -DRETNET_BUILD_BENCH=OFF -DRETNET_BUILD_EXAMPLES=OFF.")
endif()

if(RETNET_BUILD_EXAMPLES OR RETNET_BUILD_TESTS)
  find_package(LibLZMA QUIET)
endif()
find_package(Threads REQUIRED)
unset(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL)
