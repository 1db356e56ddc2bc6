# SPDX-License-Identifier: MIT
# Sets retnet_eigen_error, empty when a usable Eigen is there. Read by the build and by the installed package.
#
# Eigen is asked for without a version and compared here: the config of Eigen 5 refuses a request for 3.4, and the
# config of 3.4 refuses a range that reaches 5.
set(retnet_eigen_error "")
if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 CONFIG QUIET)
endif()
if(NOT TARGET Eigen3::Eigen)
  set(retnet_eigen_error "Eigen was not found; retnet needs 3.4 or 5.x (Debian: apt-get install libeigen3-dev)")
elseif(Eigen3_VERSION AND (Eigen3_VERSION VERSION_LESS 3.4 OR Eigen3_VERSION VERSION_GREATER_EQUAL 6))
  set(retnet_eigen_error "Eigen ${Eigen3_VERSION} found in ${Eigen3_DIR}; retnet needs 3.4 or 5.x (set Eigen3_DIR to another)")
endif()
