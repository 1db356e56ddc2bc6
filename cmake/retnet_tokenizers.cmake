# SPDX-License-Identifier: MIT
# Component tokenizers of the installed package: retnet::tokenizers, where nlohmann-json and ICU are found.
include("${CMAKE_CURRENT_LIST_DIR}/retnet_io.cmake")
if(NOT TARGET ICU::i18n OR NOT TARGET ICU::uc)
  find_package(ICU QUIET COMPONENTS i18n uc)
endif()
if(TARGET retnet::io AND TARGET ICU::i18n AND TARGET ICU::uc)
  if(NOT TARGET retnet::tokenizers)
    add_library(retnet::tokenizers INTERFACE IMPORTED)
    target_link_libraries(retnet::tokenizers INTERFACE retnet::io ICU::i18n ICU::uc)
  endif()
  set(retnet_tokenizers_FOUND TRUE)
else()
  set(retnet_NOT_FOUND_MESSAGE
    "component tokenizers needs nlohmann-json and ICU (Debian: apt-get install nlohmann-json3-dev libicu-dev)")
endif()
