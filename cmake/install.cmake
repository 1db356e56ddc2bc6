# SPDX-License-Identifier: MIT
# Header-only: everything goes to include/ and share/, nothing depends on the machine or on the prefix.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(retnet_config_dir share/cmake/retnet)

install(TARGETS retnet EXPORT retnetTargets FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT retnetTargets NAMESPACE retnet:: DESTINATION ${retnet_config_dir})

# Components are defined by the installed config, on the machine that uses them; their headers always go along.
foreach(folder IN LISTS retnet_component_folders)
  if(retnet_${folder}_headers)
    install(DIRECTORY "${retnet_include}/retnet/${folder}" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/retnet
      FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh")
  endif()
endforeach()

configure_package_config_file(cmake/retnetConfig.cmake.in "${PROJECT_BINARY_DIR}/retnetConfig.cmake"
  INSTALL_DESTINATION ${retnet_config_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/retnetConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
configure_file(cmake/retnet.pc.in "${PROJECT_BINARY_DIR}/retnet.pc" @ONLY)

install(FILES
  "${PROJECT_BINARY_DIR}/retnetConfig.cmake"
  "${PROJECT_BINARY_DIR}/retnetConfigVersion.cmake"
  cmake/retnetEigen.cmake
  cmake/retnetSentencePiece.cmake
  cmake/retnet_cuda.cmake
  cmake/retnet_io.cmake
  cmake/retnet_sentencepiece.cmake
  cmake/retnet_tokenizers.cmake
  DESTINATION ${retnet_config_dir})
install(FILES "${PROJECT_BINARY_DIR}/retnet.pc" DESTINATION share/pkgconfig)
install(FILES LICENSE DESTINATION share/doc/retnet)
