#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds and runs the main example, a byte-level language model. Arguments go to it: examples/run.sh --minutes 2.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

need g++ cmake ninja-build libeigen3-dev nlohmann-json3-dev libcli11-dev liblzma-dev xz-utils
configure -DRETNET_BUILD_TESTS=OFF -DRETNET_BUILD_BENCH=OFF -- -DRETNET_BUILD_EXAMPLES=ON
build_target byte_lm
# Not through ninja: the program writes to the terminal as it goes, and Ctrl-C is its own.
exec "$build/examples/byte_lm" "$@"
