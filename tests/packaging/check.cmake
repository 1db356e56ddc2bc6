# SPDX-License-Identifier: MIT
# Builds a consumer by one route. cmake -DROUTE= -DSOURCE_DIR= ... -P check.cmake, see CMakeLists.txt.
cmake_minimum_required(VERSION 3.25)
set(consumer "${SOURCE_DIR}/tests/packaging/consumer")
set(moved_prefix "${SCRATCH}/moved/prefix")
set(work "${SCRATCH}/${ROUTE}")
file(REMOVE_RECURSE "${work}")
file(MAKE_DIRECTORY "${work}")

# Runs a command; with EXPECT_ERROR <regex> it must fail and say so.
function(run)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "EXPECT_ERROR;OUTPUT" "COMMAND")
  execute_process(COMMAND ${arg_COMMAND}
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE error_output)
  string(APPEND output "${error_output}")
  list(JOIN arg_COMMAND " " line)
  if(NOT arg_EXPECT_ERROR AND NOT status EQUAL 0)
    message(FATAL_ERROR "failed (${status}): ${line}\n${output}")
  elseif(arg_EXPECT_ERROR)
    # CMake wraps its messages wherever it likes.
    string(REGEX REPLACE "[ \n]+" " " unwrapped "${output}")
    if(status EQUAL 0 OR NOT unwrapped MATCHES "${arg_EXPECT_ERROR}")
      message(FATAL_ERROR "expected an error with \"${arg_EXPECT_ERROR}\": ${line}\n${output}")
    endif()
  endif()
  if(arg_OUTPUT)
    set(${arg_OUTPUT} "${output}" PARENT_SCOPE)
  endif()
endfunction()

set(configure ${CMAKE_COMMAND} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER})

function(build_consumer)
  run(COMMAND ${configure} -S ${consumer} -B ${work}/build ${ARGN})
  run(COMMAND ${CMAKE_COMMAND} --build ${work}/build)
  run(COMMAND ${work}/build/hello)
  run(COMMAND ${work}/build/hello_io)
endfunction()

if(ROUTE STREQUAL "install")
  # Moved after the installation: whoever finds the package now does so by relative paths alone.
  run(COMMAND ${CMAKE_COMMAND} --install ${BINARY_DIR} --prefix ${work}/prefix)
  file(REMOVE_RECURSE "${SCRATCH}/moved")
  file(MAKE_DIRECTORY "${SCRATCH}/moved")
  file(RENAME "${work}/prefix" "${moved_prefix}")

  file(GLOB_RECURSE files "${moved_prefix}/*")
  foreach(file IN LISTS files)
    file(READ "${file}" text)
    foreach(path IN ITEMS "${SOURCE_DIR}" "${BINARY_DIR}" "${work}")
      string(FIND "${text}" "${path}/" position)
      if(NOT position EQUAL -1)
        message(FATAL_ERROR "${file} names ${path}: it cannot be moved")
      endif()
    endforeach()
  endforeach()

  file(GLOB_RECURSE ours RELATIVE "${SOURCE_DIR}/include" "${SOURCE_DIR}/include/*.hpp" "${SOURCE_DIR}/include/*.cuh")
  file(GLOB_RECURSE installed RELATIVE "${moved_prefix}/include" "${moved_prefix}/include/*")
  list(SORT ours)
  list(SORT installed)
  if(NOT ours STREQUAL installed)
    message(FATAL_ERROR "installed headers differ from ours:\n${ours}\n${installed}")
  endif()

elseif(ROUTE STREQUAL "find_package")
  build_consumer(-DCMAKE_PREFIX_PATH=${moved_prefix} -DVERSION=${VERSION})

elseif(ROUTE STREQUAL "versions")
  # Before 1.0 a minor version may break its users.
  set(probe "${work}/probe")
  file(WRITE "${probe}/CMakeLists.txt"
    "cmake_minimum_required(VERSION 3.25)\nproject(probe CXX)\nfind_package(retnet \${WANTED} CONFIG REQUIRED \${PARTS})\n")
  set(probe_with ${configure} -S ${probe} -B ${work}/build -DCMAKE_PREFIX_PATH=${moved_prefix})
  string(REGEX MATCH "^([0-9]+)\\.([0-9]+)" minor "${VERSION}")
  math(EXPR next "${CMAKE_MATCH_2} + 1")
  run(COMMAND ${probe_with} -DWANTED=${minor})
  run(COMMAND ${probe_with} -DWANTED=${CMAKE_MATCH_1}.${next} EXPECT_ERROR "compatible with requested version")
  run(COMMAND ${probe_with} -DWANTED=${minor} "-DPARTS=COMPONENTS;io")
  run(COMMAND ${probe_with} -DWANTED=${minor} "-DPARTS=COMPONENTS;io" -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
    EXPECT_ERROR "component io needs nlohmann-json")
  run(COMMAND ${probe_with} -DWANTED=${minor} "-DPARTS=OPTIONAL_COMPONENTS;io"
    -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON)
  # No compiler for CUDA is asked for: who has none learns what is missing.
  run(COMMAND ${probe_with} -DWANTED=${minor} "-DPARTS=COMPONENTS;cuda" -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON
    EXPECT_ERROR "component cuda needs the CUDA toolkit")
  if(CUDA)
    run(COMMAND ${probe_with} -DWANTED=${minor} "-DPARTS=COMPONENTS;cuda"
      -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=OFF -DCUDAToolkit_ROOT=${CUDA})
  endif()
  run(COMMAND ${probe_with} -DWANTED=${minor} "-DPARTS=COMPONENTS;nonsense" EXPECT_ERROR "no component nonsense")

elseif(ROUTE STREQUAL "add_subdirectory")
  build_consumer(-DRETNET_SOURCE_DIR=${SOURCE_DIR})
  # A consumer gets two targets, not our tests, benches, examples or install rules.
  run(COMMAND ${CMAKE_COMMAND} --build ${work}/build --target help OUTPUT targets)
  if(targets MATCHES "test_|retnet_tests|retnet_bench|retnet_examples|verify_interface")
    message(FATAL_ERROR "the sub-project brings programs along:\n${targets}")
  endif()
  run(COMMAND ${CMAKE_CTEST_COMMAND} --test-dir ${work}/build -N OUTPUT tests)
  if(NOT tests MATCHES "Total Tests: 0")
    message(FATAL_ERROR "the sub-project brings tests along:\n${tests}")
  endif()
  run(COMMAND ${CMAKE_COMMAND} --install ${work}/build --prefix ${work}/prefix)
  if(EXISTS "${work}/prefix/include")
    message(FATAL_ERROR "the sub-project installs itself")
  endif()

elseif(ROUTE STREQUAL "pkg_config")
  set(ENV{PKG_CONFIG_PATH} "${moved_prefix}/share/pkgconfig")
  run(COMMAND pkg-config --cflags --libs retnet OUTPUT flags)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  run(COMMAND ${COMPILER} -std=c++20 ${consumer}/hello.cpp -o ${work}/hello ${flags})
  run(COMMAND ${work}/hello)
  run(COMMAND pkg-config --modversion retnet OUTPUT version)
  if(NOT version MATCHES "^${VERSION}\n$")
    message(FATAL_ERROR "pkg-config says version ${version}, expected ${VERSION}")
  endif()

elseif(ROUTE STREQUAL "plain_compiler")
  list(TRANSFORM EIGEN_INCLUDE_DIR PREPEND -I)
  run(COMMAND ${COMPILER} -std=c++20 -I ${SOURCE_DIR}/include ${EIGEN_INCLUDE_DIR}
    ${consumer}/hello.cpp -o ${work}/hello)
  run(COMMAND ${work}/hello)

elseif(ROUTE STREQUAL "eigen_versions")
  # Stand-ins that behave as Eigen's own config files: 5 refuses whoever asks for 3.4, 3.4 refuses a range up to 5.
  set(probe ${configure} -S ${SOURCE_DIR} -B ${work}/build
    -DRETNET_BUILD_TESTS=OFF -DRETNET_BUILD_BENCH=OFF -DRETNET_BUILD_EXAMPLES=OFF)
  foreach(version IN ITEMS 3.3.9 3.4.0 3.4.90 5.0.1 6.0.0)
    set(eigen "${work}/eigen-${version}")
    file(WRITE "${eigen}/Eigen3Config.cmake"
      "if(NOT TARGET Eigen3::Eigen)\n  add_library(Eigen3::Eigen INTERFACE IMPORTED)\nendif()\n")
    string(REGEX MATCH "^[0-9]+" major ${version})
    file(WRITE "${eigen}/Eigen3ConfigVersion.cmake"
      "set(PACKAGE_VERSION ${version})\n"
      "if(PACKAGE_FIND_VERSION AND NOT PACKAGE_FIND_VERSION_MAJOR EQUAL ${major})\n"
      "  set(PACKAGE_VERSION_COMPATIBLE FALSE)\n"
      "else()\n  set(PACKAGE_VERSION_COMPATIBLE TRUE)\nendif()\n")
    if(version MATCHES "^(3\\.4|5)")
      run(COMMAND ${probe} -DEigen3_DIR=${eigen})
    else()
      run(COMMAND ${probe} -DEigen3_DIR=${eigen} EXPECT_ERROR "Eigen ${version} found in .* retnet needs 3.4 or 5.x")
    endif()
  endforeach()
  run(COMMAND ${probe} -DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON EXPECT_ERROR "apt-get install .*libeigen3-dev")

elseif(ROUTE STREQUAL "missing_packages")
  # One message, with the whole line to type.
  run(COMMAND ${configure} -S ${SOURCE_DIR} -B ${work}/build
      -DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON
      -DCMAKE_DISABLE_FIND_PACKAGE_benchmark=ON
      -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
    EXPECT_ERROR "apt-get install --no-install-recommends nlohmann-json3-dev libgtest-dev libbenchmark-dev")
  # Without json the library itself still configures.
  run(COMMAND ${configure} -S ${SOURCE_DIR} -B ${work}/build
      -DRETNET_BUILD_TESTS=OFF -DRETNET_BUILD_BENCH=OFF -DRETNET_BUILD_EXAMPLES=OFF
      -DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON
      -DCMAKE_DISABLE_FIND_PACKAGE_benchmark=ON
      -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON)

else()
  message(FATAL_ERROR "unknown route ${ROUTE}")
endif()
