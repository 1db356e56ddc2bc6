# SPDX-License-Identifier: MIT
# retnet::cuda, made where RETNET_CUDA is ON, and what our own CUDA programs share.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(CMAKE_CUDA_COMPILER nvcc HINTS "$ENV{CUDA_PATH}" /usr/local/cuda PATH_SUFFIXES bin)
endif()
# Kernels for Hopper use instructions of this chip alone ("a"); on any other, name it and the portable ones run.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a-real)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

retnet_add_library(retnet_cuda cuda ${retnet_cuda_headers})
# The check of headers by CMake is one of C++; tests/cuda has that of these.
set_target_properties(retnet_cuda PROPERTIES VERIFY_INTERFACE_HEADER_SETS OFF)
# As an option: CMake 3.25 does not know that nvcc can.
target_compile_options(retnet_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
target_link_libraries(retnet_cuda INTERFACE retnet CUDA::cudart CUDA::cublasLt)

list(JOIN retnet_false_alarms "," retnet_cuda_host_options)
list(PREPEND retnet_cuda_host_options -Wall -Wextra -Wno-missing-field-initializers)
list(JOIN retnet_cuda_host_options "," retnet_cuda_options)
list(TRANSFORM retnet_cuda_options PREPEND -Xcompiler=)
if(RETNET_WERROR)
  list(APPEND retnet_cuda_options -Werror=all-warnings -Xcompiler=-Werror)
endif()

# retnet_add_cuda_program(<name> SOURCES ... [LIBRARIES ...]); .cu and .cpp.
function(retnet_add_cuda_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBRARIES")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE retnet::cuda ${arg_LIBRARIES})
  target_compile_options(${name} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:${retnet_cuda_options}>"
    "$<$<COMPILE_LANGUAGE:CXX>:${retnet_program_options};${retnet_false_alarms}>")
  set_target_properties(${name} PROPERTIES CUDA_EXTENSIONS OFF CXX_EXTENSIONS OFF)
endfunction()
