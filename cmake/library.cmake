# SPDX-License-Identifier: MIT
# retnet::retnet, and one target per optional component. No flags, no warnings: those are the consumer's.
set(retnet_include "${PROJECT_SOURCE_DIR}/include")

# Folders that need more than Eigen; each belongs to a component and stays out of retnet::retnet.
set(retnet_component_folders io tokenizers cuda dist)

file(GLOB_RECURSE retnet_headers CONFIGURE_DEPENDS "${retnet_include}/retnet/*.hpp")
foreach(folder IN LISTS retnet_component_folders)
  file(GLOB_RECURSE retnet_${folder}_headers CONFIGURE_DEPENDS "${retnet_include}/retnet/${folder}/*.hpp"
    "${retnet_include}/retnet/${folder}/*.cuh")
  if(retnet_${folder}_headers)
    list(REMOVE_ITEM retnet_headers ${retnet_${folder}_headers})
  endif()
endforeach()

function(retnet_add_library name exported_name)
  add_library(${name} INTERFACE)
  add_library(retnet::${exported_name} ALIAS ${name})
  target_sources(${name} INTERFACE FILE_SET HEADERS BASE_DIRS "${retnet_include}" FILES ${ARGN})
  set_target_properties(${name} PROPERTIES EXPORT_NAME ${exported_name})
  if(RETNET_BUILD_TESTS)
    set_target_properties(${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
  endif()
endfunction()

retnet_add_library(retnet retnet ${retnet_headers})
target_compile_features(retnet INTERFACE cxx_std_20)
target_link_libraries(retnet INTERFACE Eigen3::Eigen Threads::Threads)

if(TARGET nlohmann_json::nlohmann_json)
  retnet_add_library(retnet_io io ${retnet_io_headers})
  target_link_libraries(retnet_io INTERFACE retnet nlohmann_json::nlohmann_json)
endif()

# One folder, two components: a program that reads tokenizer.json need not link SentencePiece, nor the other way round.
set(retnet_sentencepiece_header "${retnet_include}/retnet/tokenizers/sentencepiece.hpp")
list(REMOVE_ITEM retnet_tokenizers_headers "${retnet_sentencepiece_header}")
if(TARGET retnet_io AND TARGET ICU::i18n AND TARGET ICU::uc)
  retnet_add_library(retnet_tokenizers tokenizers ${retnet_tokenizers_headers})
  target_link_libraries(retnet_tokenizers INTERFACE retnet_io ICU::i18n ICU::uc)
endif()
if(TARGET retnet_libsentencepiece)
  retnet_add_library(retnet_sentencepiece sentencepiece "${retnet_sentencepiece_header}")
  target_link_libraries(retnet_sentencepiece INTERFACE retnet retnet_libsentencepiece)
endif()
