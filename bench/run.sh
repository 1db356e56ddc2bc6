#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds every bench program, runs it on processors of its own, and makes tables and pictures; prints the table of
# what was aimed at and what was reached:
#
#   bench/run.sh            all of it; about an hour on two quiet processors
#   bench/run.sh --bars     only the rows of that table; five minutes
#   bench/run.sh --quick    a few sizes, a few minutes: does everything work?
#   bench/run.sh --smoke    only runs each program once, for a moment; nothing is written
#   --readme                also writes the block of numbers into README.md
#   --name <folder>         of the results; default: processor and vector width
#   --from <folder>         of what bench/measure.sh wrote, here or elsewhere: nothing is measured
#
# Results go to bench/results/<name>/, what the programs wrote to build/bench_results/. Set RETNET_TORCH_PYTHON to a
# python3 that has torch and numpy (Debian: python3-torch), RETNET_BENCH_CPUS to the processors to use ("2,3").
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

mode=full
name=""
raw=""
readme=no
while [ $# -gt 0 ]; do
  case "$1" in
    --bars | --quick | --smoke) mode=${1#--} ;;
    --readme) readme=yes ;;
    --name) name=${2:?"--name needs a folder"} && shift ;;
    --from) raw=$(CDPATH='' cd -- "${2:?"--from needs a folder"}" && pwd -P) && shift ;;
    *) sed -n '3,16s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
  shift
done

need g++ cmake ninja-build libeigen3-dev libbenchmark-dev nlohmann-json3-dev
configure -DRETNET_BUILD_TESTS=OFF -DRETNET_BUILD_EXAMPLES=OFF -- -DRETNET_BUILD_BENCH=ON
if [ -n "$raw" ]; then
  build_target bench_report
else
  build_target retnet_bench
  raw="$build/bench_results"
  "$root/bench/measure.sh" "$build/bench" "$raw" "$mode"
  [ "$mode" != smoke ] || { say "all programs ran." && exit 0; }
fi

machine=$(cat "$raw/machine.txt")
bits=$(sed -n 's/.*"vector_bytes": "\([0-9]*\)".*/\1/p' "$raw/bench_limits.json")
slug=$(printf '%s' "${machine%%,*}" | tr 'A-Z' 'a-z' | tr -c 'a-z0-9' '-' | tr -s '-')
[ "$mode" != quick ] || name=${name:-quick}
name=${name:-$slug-$((bits * 8))bit}
results="$root/bench/results/$name"
[ "$mode" != quick ] || results="$raw/$name" # of sizes that nobody should quote
block="$build/bench_readme.md"
set -- "$raw"/bench_*.json
[ ! -f "$raw/torch.json" ] || set -- "$@" "$raw/torch.json"
"$build/bench/bench_report" "$results" "$block" "$machine" "$@"
say "results are in $results"
[ "$readme" = yes ] || exit 0
[ -f "$block" ] || die "others were at work on these processors; README.md is as it was."
awk -v block="$block" '
  /^<!-- numbers:begin/ {
    print "<!-- numbers:begin, written by bench/run.sh --readme -->"
    while ((getline line < block) > 0) print line
    skip = 1
  }
  /^<!-- numbers:end/ { skip = 0 }
  !skip { print }' "$root/README.md" >"$build/README.md"
cp "$build/README.md" "$root/README.md"
