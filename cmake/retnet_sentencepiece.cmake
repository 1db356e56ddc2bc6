# SPDX-License-Identifier: MIT
# Component sentencepiece of the installed package: retnet::sentencepiece, where that library is found.
include("${CMAKE_CURRENT_LIST_DIR}/retnetSentencePiece.cmake")
if(TARGET retnet_libsentencepiece)
  if(NOT TARGET retnet::sentencepiece)
    add_library(retnet::sentencepiece INTERFACE IMPORTED)
    target_link_libraries(retnet::sentencepiece INTERFACE retnet::retnet retnet_libsentencepiece)
  endif()
  set(retnet_sentencepiece_FOUND TRUE)
else()
  set(retnet_NOT_FOUND_MESSAGE
    "component sentencepiece needs that library (Debian: apt-get install libsentencepiece-dev)")
endif()
