#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the fuzz targets with clang and runs them from the corpus of the repository, as many at once as there are cores:
#   tests/fuzz/run.sh [option of libFuzzer]... [target]...      tests/fuzz/run.sh -runs=10000000 index config
# Without options each runs for 10 seconds. An input may take 2 seconds and 512 MB. One that shows a defect is written
# to build/fuzz/<target>-*, and the script fails; what else was found of interest stays in build/fuzz/corpus.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
. "$root/cmake/setup.sh"

options=""
targets=""
for argument in "$@"; do
  case "$argument" in
    -*) options="$options $argument" ;;
    *) targets="$targets $argument" ;;
  esac
done
options=${options:--max_total_time=10}
targets=${targets:-safetensors index config tokenizer_json tiktoken}

command -v clang++ >/dev/null 2>&1 || die "clang++ was not found (Debian: clang, libclang-rt-dev)."
cmake -S "$root" -B "$root/build/fuzz" -G Ninja --log-level=NOTICE -DCMAKE_CXX_COMPILER=clang++ -DRETNET_FUZZ=ON \
  -DRETNET_BUILD_TESTS=ON -DRETNET_BUILD_BENCH=OFF -DRETNET_BUILD_EXAMPLES=OFF -DRETNET_INSTALL=OFF >&2
cmake --build "$root/build/fuzz" --parallel "$(jobs)" --target retnet_fuzz >&2

fuzz() {
  mkdir -p "$root/build/fuzz/corpus/$1"
  # shellcheck disable=SC2086 # a list of options
  ASAN_OPTIONS=quarantine_size_mb=16:malloc_context_size=4 "$root/build/fuzz/tests/fuzz/fuzz_$1" \
    -max_len=2048 -timeout=2 -rss_limit_mb=512 -malloc_limit_mb=256 -print_final_stats=1 -print_funcs=0 \
    -dict="$root/tests/fuzz/dict/$1.dict" -artifact_prefix="$root/build/fuzz/$1-" $options \
    "$root/build/fuzz/corpus/$1" "$root/tests/fuzz/corpus/$1" >"$root/build/fuzz/$1.log" 2>&1
}

failed=""
finish() {
  for name in $running; do
    log="$root/build/fuzz/${name%=*}.log"
    if wait "${name#*=}"; then
      say "${name%=*}: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions, nothing found"
    else
      tail -n 60 "$log" >&2
      failed="$failed ${name%=*}"
    fi
  done
  running=""
}

running=""
for target in $targets; do
  fuzz "$target" &
  running="$running $target=$!"
  [ "$(echo "$running" | wc -w)" -lt "$(jobs)" ] || finish
done
finish
[ -z "$failed" ] || die "fuzzing failed:$failed"
