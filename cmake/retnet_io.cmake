# SPDX-License-Identifier: MIT
# Component io of the installed package: retnet::io, where nlohmann-json is found.
if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json CONFIG QUIET)
endif()
if(TARGET nlohmann_json::nlohmann_json)
  if(NOT TARGET retnet::io)
    add_library(retnet::io INTERFACE IMPORTED)
    target_link_libraries(retnet::io INTERFACE retnet::retnet nlohmann_json::nlohmann_json)
  endif()
  set(retnet_io_FOUND TRUE)
else()
  set(retnet_NOT_FOUND_MESSAGE "component io needs nlohmann-json (Debian: apt-get install nlohmann-json3-dev)")
endif()
