# SPDX-License-Identifier: MIT
# Sets retnet_version from the macros in include/retnet/version.hpp, the one place where it is written.
set(retnet_version_header "${CMAKE_CURRENT_LIST_DIR}/../include/retnet/version.hpp")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${retnet_version_header}")
file(READ "${retnet_version_header}" retnet_version_text)

set(retnet_version "")
foreach(part IN ITEMS MAJOR MINOR PATCH)
  if(NOT retnet_version_text MATCHES "#define RETNET_VERSION_${part} ([0-9]+)")
    message(FATAL_ERROR "RETNET_VERSION_${part} not found in ${retnet_version_header}")
  endif()
  list(APPEND retnet_version ${CMAKE_MATCH_1})
endforeach()
list(JOIN retnet_version "." retnet_version)
