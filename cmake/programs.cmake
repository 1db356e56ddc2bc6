# SPDX-License-Identifier: MIT
# What our own tests, benches and examples share; nothing here touches an exported target.
include(CheckCXXCompilerFlag)

set(retnet_program_options "")
if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  list(APPEND retnet_program_options -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
  if(RETNET_WERROR)
    list(APPEND retnet_program_options -Werror)
  endif()
endif()

# GCC 12 sees overlapping copies in "literal" + std::string (its bug 105651), and reads of what its own AVX-512 header
# leaves undefined on purpose, where Eigen uses it (105593). The programs may write that; the headers are compiled
# without this in tests/odr, since their users would see the warning.
set(retnet_false_alarms "")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  set(retnet_false_alarms -Wno-restrict -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

set(retnet_native_options "")
if(RETNET_NATIVE)
  check_cxx_compiler_flag(-march=native RETNET_HAVE_MARCH_NATIVE)
  if(RETNET_HAVE_MARCH_NATIVE)
    set(retnet_native_options -march=native)
  endif()
endif()

# retnet_add_program(<name> SOURCES ... [LIBRARIES ...] [PORTABLE]); PORTABLE leaves -march=native out.
function(retnet_add_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "PORTABLE" "" "SOURCES;LIBRARIES")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE retnet::retnet ${arg_LIBRARIES})
  target_compile_options(${name} PRIVATE ${retnet_program_options} ${retnet_false_alarms})
  if(NOT arg_PORTABLE)
    target_compile_options(${name} PRIVATE ${retnet_native_options})
  endif()
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()

# What the examples and their tests have in common: "common/..." headers, the data folder, io and decompression.
if(RETNET_BUILD_EXAMPLES OR RETNET_BUILD_TESTS)
  add_library(retnet_example_support INTERFACE)
  target_include_directories(retnet_example_support INTERFACE "${PROJECT_SOURCE_DIR}/examples")
  target_compile_definitions(retnet_example_support INTERFACE
    RETNET_EXAMPLES_DATA_DIR="${PROJECT_SOURCE_DIR}/examples/data")
  target_link_libraries(retnet_example_support INTERFACE retnet::io)
  if(LibLZMA_FOUND)
    target_link_libraries(retnet_example_support INTERFACE LibLZMA::LibLZMA)
    target_compile_definitions(retnet_example_support INTERFACE RETNET_EXAMPLES_HAVE_LZMA)
  endif()
endif()
