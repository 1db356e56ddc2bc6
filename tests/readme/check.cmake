# SPDX-License-Identifier: MIT
# cmake -DSOURCE_DIR= -DBINARY_DIR= -DSCRATCH= -DCOMPILER= -DNVCC= -DEIGEN_INCLUDE_DIR= -P check.cmake
cmake_minimum_required(VERSION 3.25)

file(READ ${SOURCE_DIR}/README.md readme)
file(REMOVE_RECURSE ${SCRATCH})
file(MAKE_DIRECTORY ${SCRATCH})

# next_block(<language> <text> <block> <rest>): the first fenced block of that language, and what follows it.
function(next_block language text block rest)
  string(FIND "${text}" "```${language}\n" at)
  if(at EQUAL -1)
    set(${block} "" PARENT_SCOPE)
    return()
  endif()
  string(LENGTH "```${language}\n" fence)
  math(EXPR at "${at} + ${fence}")
  string(SUBSTRING "${text}" ${at} -1 text)
  string(FIND "${text}" "```" end)
  string(SUBSTRING "${text}" 0 ${end} found)
  string(SUBSTRING "${text}" ${end} -1 text)
  set(${block} "${found}" PARENT_SCOPE)
  set(${rest} "${text}" PARENT_SCOPE)
endfunction()

function(run what)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${SCRATCH} RESULT_VARIABLE result
    OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "README: ${what} failed (${result}):\n${output}")
  endif()
  message(STATUS "README: ${what}")
endfunction()

# Each C++ block becomes a function of one program.
set(program "#include \"prelude.hpp\"\n")
set(calls "")
set(count 0)
set(rest "${readme}")
while(TRUE)
  next_block(cpp "${rest}" block rest)
  if(block STREQUAL "")
    break()
  endif()
  math(EXPR count "${count} + 1")
  string(REGEX REPLACE "#include[^\n]*\n" "" block "${block}")
  string(APPEND program "void block_${count}() {\n${block}}\n")
  string(APPEND calls "  block_${count}();\n")
endwhile()
if(count LESS 5)
  message(FATAL_ERROR "README: found ${count} C++ blocks, expected at least 5")
endif()
file(WRITE ${SCRATCH}/blocks.cpp "${program}int main() {\n${calls}}\n")
run("${count} C++ blocks compile" ${COMPILER} -std=c++20 -O1 -I${SOURCE_DIR}/include -I${CMAKE_CURRENT_LIST_DIR}
  -isystem ${EIGEN_INCLUDE_DIR} blocks.cpp -o blocks -pthread)
run("${count} C++ blocks run" ${SCRATCH}/blocks)

# The CUDA block as far as the device's half of the compiler, which checks both halves: to run it takes a device.
next_block(cuda "${readme}" block rest)
if(NVCC)
  string(REGEX MATCHALL "#include[^\n]*\n" includes "${block}")
  list(JOIN includes "" includes)
  string(REGEX REPLACE "#include[^\n]*\n" "" block "${block}")
  file(WRITE ${SCRATCH}/block.cu
    "${includes}const std::vector<std::uint8_t> text(4096, 'a');\nvoid block() {\n${block}}\n")
  run("the CUDA block compiles" ${NVCC} -std=c++20 -ptx -arch=compute_90a -I${SOURCE_DIR}/include
    -isystem ${EIGEN_INCLUDE_DIR} block.cu -o block.ptx)
endif()

# The CMake block is a consumer's whole CMakeLists.txt.
next_block(cmake "${readme}" block rest)
file(WRITE ${SCRATCH}/consumer/CMakeLists.txt "${block}")
file(COPY_FILE ${SOURCE_DIR}/examples/01_hello_retention.cpp ${SCRATCH}/consumer/app.cpp)
run("installed" ${CMAKE_COMMAND} --install ${BINARY_DIR} --prefix ${SCRATCH}/prefix)
run("the CMake block configures" ${CMAKE_COMMAND} -S consumer -B consumer/build
  -DCMAKE_PREFIX_PATH=${SCRATCH}/prefix -DCMAKE_CXX_COMPILER=${COMPILER})
run("the CMake block builds" ${CMAKE_COMMAND} --build consumer/build)
run("what it built runs" ${SCRATCH}/consumer/build/app)

# The compiler line, as it stands.
string(REGEX MATCH "g\\+\\+ -std=[^\n]*" line "${readme}")
if(line STREQUAL "" OR NOT EXISTS /usr/include/eigen3 OR NOT COMPILER MATCHES "(g\\+\\+|c\\+\\+)[^/]*$")
  message(FATAL_ERROR "README: no compiler line that this machine can try")
endif()
file(CREATE_LINK ${SOURCE_DIR}/include ${SCRATCH}/include SYMBOLIC)
file(CREATE_LINK ${SOURCE_DIR}/examples ${SCRATCH}/examples SYMBOLIC)
run("the compiler line" sh -c "${line}")
run("what it compiled runs" ${SCRATCH}/a.out)
