# SPDX-License-Identifier: MIT
# Component cuda of the installed package: retnet::cuda, where the CUDA toolkit is found. Compile its users for
# CMAKE_CUDA_ARCHITECTURES 90a to have the kernels for Hopper.
find_package(CUDAToolkit QUIET)
if(TARGET CUDA::cudart AND TARGET CUDA::cublasLt)
  if(NOT TARGET retnet::cuda)
    add_library(retnet::cuda INTERFACE IMPORTED)
    target_compile_options(retnet::cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
    target_link_libraries(retnet::cuda INTERFACE retnet::retnet CUDA::cudart CUDA::cublasLt)
  endif()
  set(retnet_cuda_FOUND TRUE)
else()
  set(retnet_NOT_FOUND_MESSAGE "component cuda needs the CUDA toolkit with cuBLAS")
endif()
