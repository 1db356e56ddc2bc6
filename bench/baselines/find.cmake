# SPDX-License-Identifier: MIT
# Libraries to compare with: makes the interface library retnet_baselines of those that are found. All are optional
# (Debian: libopenblas-dev libblis-dev libdnnl-dev; ggml where CMAKE_PREFIX_PATH says).
add_library(retnet_baselines INTERFACE)

# retnet_find_baseline(<name> <header> <library> [<more to link>...])
function(retnet_find_baseline name header library)
  string(TOUPPER RETNET_BENCH_${name} macro)
  find_path(${macro}_INCLUDE_DIR ${header} PATH_SUFFIXES blis)
  find_library(${macro}_LIBRARY ${library})
  mark_as_advanced(${macro}_INCLUDE_DIR ${macro}_LIBRARY)
  if(${macro}_INCLUDE_DIR AND ${macro}_LIBRARY)
    target_sources(retnet_baselines INTERFACE ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${name}.cpp)
    target_compile_definitions(retnet_baselines INTERFACE ${macro})
    target_include_directories(retnet_baselines SYSTEM INTERFACE ${${macro}_INCLUDE_DIR})
    target_link_libraries(retnet_baselines INTERFACE ${${macro}_LIBRARY} ${ARGN})
  endif()
endfunction()

# In this order: cblas_sgemm is also a symbol of BLIS, which is called by names of its own.
retnet_find_baseline(openblas cblas-openblas.h openblas)
retnet_find_baseline(blis blis.h blis)

# The number of threads of oneDNN is that of OpenMP. Its library alone, not its compiler flag: with that Eigen would
# start threads as well.
find_package(OpenMP QUIET COMPONENTS CXX)
if(OpenMP_CXX_FOUND)
  retnet_find_baseline(onednn oneapi/dnnl/dnnl.h dnnl ${OpenMP_CXX_LIBRARIES})
endif()

find_package(ggml CONFIG QUIET)
if(TARGET ggml::ggml)
  target_sources(retnet_baselines INTERFACE ${CMAKE_CURRENT_LIST_DIR}/ggml.cpp)
  target_compile_definitions(retnet_baselines INTERFACE RETNET_BENCH_GGML)
  target_link_libraries(retnet_baselines INTERFACE ggml::ggml)
endif()
