#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds every bench program, runs it on processors of its own, and makes tables and pictures:
#
#   bench/run.sh            all of it; about an hour on two quiet processors
#   bench/run.sh --quick    a few sizes, a few minutes: does everything work?
#   bench/run.sh --readme   all of it, and writes the block of numbers into README.md
#   bench/run.sh --smoke    only runs each program once, for a moment; nothing is written
#   --name <folder>         of the results; default: processor and vector width
#
# Results go to bench/results/<name>/, what the programs wrote to build/bench_results/. Set RETNET_TORCH_PYTHON to a
# python3 that has torch and numpy (Debian: python3-torch), RETNET_BENCH_CPUS to the processors to use ("2,3").
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

mode=full
name=""
while [ $# -gt 0 ]; do
  case "$1" in
    --quick | --readme | --smoke) mode=${1#--} ;;
    --name) name=${2:?"--name needs a folder"} && shift ;;
    *) sed -n '3,14s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
  shift
done

need g++ cmake ninja-build libeigen3-dev libbenchmark-dev nlohmann-json3-dev
configure -DRETNET_BUILD_TESTS=OFF -DRETNET_BUILD_EXAMPLES=OFF -- -DRETNET_BUILD_BENCH=ON
build_target retnet_bench
raw="$build/bench_results"
mkdir -p "$raw"

# One processor of each of the first two cores: two threads of one core would share its units.
cpus=${RETNET_BENCH_CPUS:-$(lscpu -p=CPU,CORE 2>/dev/null | awk -F, '!/^#/ && !seen[$2]++ { print $1 }' |
  sed -n 1,2p | paste -s -d , -)}
pinned=""
if command -v taskset >/dev/null 2>&1 && [ -n "$cpus" ] && taskset -c "$cpus" true 2>/dev/null; then
  pinned="taskset -c $cpus"
else
  say "taskset is not there or not allowed: threads choose among all processors."
fi

# The libraries that are measured beside ours choose their kernels themselves.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OMP_NUM_THREADS OPENBLAS_NUM_THREADS BLIS_NUM_THREADS OMP_PROC_BIND OMP_PLACES

# measure <program>: Google Benchmark's rows of every repetition, in random order, so that a noisy minute does not hit
# one row alone.
measure() {
  case "$mode" in
    quick) set -- "$1" --quick --benchmark_min_time=0.02 --benchmark_repetitions=2 ;;
    smoke) set -- "$1" --quick --threads=1 --benchmark_min_time=0.001 ;;
    *) set -- "$1" --benchmark_min_time=0.1 --benchmark_repetitions=5 ;;
  esac
  say "running $1"
  program=$1
  shift
  # shellcheck disable=SC2086 # a command and its arguments
  $pinned "$build/bench/$program" "$@" --benchmark_enable_random_interleaving=true \
    --benchmark_display_aggregates_only=true --benchmark_out="$raw/$program.json" \
    --benchmark_out_format=json >"$raw/$program.log" 2>&1 || {
    cat "$raw/$program.log" >&2
    die "$program failed."
  }
}

torch() {
  python=${RETNET_TORCH_PYTHON:-python3}
  rm -f "$raw/torch.json"
  if ! "$python" -c 'import numpy, torch' 2>/dev/null; then
    say "$python has no torch: the results are without PyTorch."
    return 0
  fi
  set -- --repetitions 5 --min-time 0.2
  [ "$mode" != quick ] || set -- --quick --repetitions 1 --min-time 0.02
  say "running peers/torch_retnet.py"
  # shellcheck disable=SC2086
  OMP_PROC_BIND=close $pinned "$python" "$root/bench/peers/torch_retnet.py" "$@" --out "$raw/torch.json" \
    >"$raw/torch.log" 2>&1 || die "peers/torch_retnet.py failed; see $raw/torch.log."
}

# Of the machine, without its name: "AMD EPYC, 2 processors".
machine="$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | sed -n 1p)"
machine="${machine:-$(uname -m)}, $(jobs) processors"

for program in bench_limits bench_ops bench_forms bench_model; do measure $program; done
[ "$mode" != smoke ] || { say "all programs ran." && exit 0; }
torch

bits=$(sed -n 's/.*"vector_bytes": "\([0-9]*\)".*/\1/p' "$raw/bench_limits.json")
slug=$(printf '%s' "${machine%%,*}" | tr 'A-Z' 'a-z' | tr -c 'a-z0-9' '-' | tr -s '-')
[ "$mode" != quick ] || name=${name:-quick}
name=${name:-$slug-$((bits * 8))bit}
results="$root/bench/results/$name"
[ "$mode" != quick ] || results="$raw/$name" # of sizes that nobody should quote
set -- "$raw"/bench_*.json
[ ! -f "$raw/torch.json" ] || set -- "$@" "$raw/torch.json"
"$build/bench/bench_report" "$results" "$raw/readme.md" "$machine" "$@"
say "results are in $results"
[ "$mode" = readme ] || exit 0
[ -f "$raw/readme.md" ] || die "others were at work on these processors; README.md is as it was."
awk -v block="$raw/readme.md" '
  /^<!-- numbers:begin/ {
    print "<!-- numbers:begin, written by bench/run.sh --readme -->"
    while ((getline line < block) > 0) print line
    skip = 1
  }
  /^<!-- numbers:end/ { skip = 0 }
  !skip { print }' "$root/README.md" >"$raw/README.md"
cp "$raw/README.md" "$root/README.md"
