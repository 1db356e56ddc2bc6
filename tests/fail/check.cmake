# SPDX-License-Identifier: MIT
# cmake -DCOMPILER= -DSOURCE= -DINCLUDE_DIRS= -P check.cmake
cmake_minimum_required(VERSION 3.25)
list(TRANSFORM INCLUDE_DIRS PREPEND -I)

function(compile status_variable output_variable)
  execute_process(
    COMMAND ${COMPILER} -std=c++20 -fsyntax-only ${INCLUDE_DIRS} ${ARGN} ${SOURCE}
    RESULT_VARIABLE status ERROR_VARIABLE output)
  set(${status_variable} ${status} PARENT_SCOPE)
  set(${output_variable} "${output}" PARENT_SCOPE)
endfunction()

compile(status output)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "the right program does not compile:\n${output}")
endif()

compile(status output -DRETNET_EXPECT_FAIL)
if(status EQUAL 0)
  message(FATAL_ERROR "the wrong program compiles: ${SOURCE}")
endif()
# An error about something else is no proof.
if(NOT output MATCHES "error: [^\n]*(no matching|could not convert|no viable|cannot convert|constraint)" OR
   NOT output MATCHES "View")
  message(FATAL_ERROR "the wrong program fails for another reason:\n${output}")
endif()
