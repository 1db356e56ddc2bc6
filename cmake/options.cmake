# SPDX-License-Identifier: MIT
# Everything beside the headers is built only when this is the top project; a consumer gets two targets and no more.
option(RETNET_BUILD_TESTS "Build the tests (GoogleTest, nlohmann-json)" ${PROJECT_IS_TOP_LEVEL})
option(RETNET_BUILD_BENCH "Build the benchmarks (Google Benchmark)" ${PROJECT_IS_TOP_LEVEL})
option(RETNET_BUILD_EXAMPLES "Build the examples (nlohmann-json, CLI11, liblzma if found)" ${PROJECT_IS_TOP_LEVEL})
option(RETNET_INSTALL "Generate the install rules" ${PROJECT_IS_TOP_LEVEL})
option(RETNET_NATIVE "Compile our own programs with -march=native; never reaches a consumer" ${PROJECT_IS_TOP_LEVEL})
option(RETNET_CUDA "Make retnet::cuda and build its programs with nvcc (CUDA toolkit 13)" OFF)
option(RETNET_FUZZ "Build the fuzz targets of tests/fuzz with clang's libFuzzer" OFF)
option(RETNET_WERROR "Treat warnings in our own programs as errors" OFF)

if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  get_property(retnet_multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
  if(NOT CMAKE_BUILD_TYPE AND NOT retnet_multi_config)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
  endif()
endif()
