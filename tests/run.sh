#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds and runs every test. Arguments go to ctest: tests/run.sh -L unit, tests/run.sh -R layering.
# Set RETNET_WERROR=ON to have warnings count as errors.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

need g++ cmake ninja-build pkg-config libeigen3-dev libgtest-dev nlohmann-json3-dev libcli11-dev liblzma-dev xz-utils \
  libicu-dev libsentencepiece-dev
configure -DRETNET_BUILD_BENCH=OFF -- -DRETNET_BUILD_TESTS=ON -DRETNET_BUILD_EXAMPLES=ON -DRETNET_INSTALL=ON \
  ${RETNET_WERROR:+"-DRETNET_WERROR=$RETNET_WERROR"}
build_target retnet_tests
exec ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$(jobs)" "$@"
