#!/bin/sh
# SPDX-License-Identifier: MIT
# On a machine with a GPU: builds the CUDA tests in build/ and runs them, then a few under compute-sanitizer where it
# is there. Arguments go to ctest.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
. "$root/cmake/setup.sh"

find_nvcc || die "no nvcc in PATH, CUDACXX or /usr/local/cuda/bin."
configure -DRETNET_BUILD_BENCH=OFF -DRETNET_BUILD_EXAMPLES=OFF -- -DRETNET_BUILD_TESTS=ON -DRETNET_CUDA=ON
build_target test_cuda test_cuda_portable
ctest --test-dir "$build" --output-on-failure --no-tests=error -L cuda "$@"

if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
  for tool in memcheck racecheck; do
    "$sanitizer" --tool "$tool" --error-exitcode 1 "$build/tests/cuda/test_cuda" --gtest_filter='*SameBits*'
  done
else
  say "no compute-sanitizer here, its run is left out"
fi
