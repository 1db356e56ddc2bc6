# SPDX-License-Identifier: MIT
# Makes the target retnet_libsentencepiece where the library is found; it has no CMake config of its own. Read by the
# build and by the installed package.
if(NOT TARGET retnet_libsentencepiece)
  find_path(RETNET_SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h)
  find_library(RETNET_SENTENCEPIECE_LIBRARY sentencepiece)
  mark_as_advanced(RETNET_SENTENCEPIECE_INCLUDE_DIR RETNET_SENTENCEPIECE_LIBRARY)
  if(RETNET_SENTENCEPIECE_INCLUDE_DIR AND RETNET_SENTENCEPIECE_LIBRARY)
    add_library(retnet_libsentencepiece UNKNOWN IMPORTED GLOBAL)
    set_target_properties(retnet_libsentencepiece PROPERTIES
      IMPORTED_LOCATION "${RETNET_SENTENCEPIECE_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${RETNET_SENTENCEPIECE_INCLUDE_DIR}")
  endif()
endif()
