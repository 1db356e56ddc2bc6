#!/bin/sh
# SPDX-License-Identifier: MIT
# Measures the table of README.md on this machine and writes it there: bench/readme_numbers.sh
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

need g++ cmake ninja-build libeigen3-dev libbenchmark-dev
configure -DRETNET_BUILD_TESTS=OFF -DRETNET_BUILD_EXAMPLES=OFF -- -DRETNET_BUILD_BENCH=ON
build_target bench_forms
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$build/bench/bench_forms" --benchmark_filter='/(256|1024|4096|16384)$' --benchmark_format=csv \
  --benchmark_repetitions=5 --benchmark_report_aggregates_only=true 2>"$scratch/context" >"$scratch/rows"
grep -q _median "$scratch/rows" || die "the bench printed no medians."
peak=$(sed -n 's/^fma_peak_gflops_one_thread: //p' "$scratch/context")

{
  printf '<!-- numbers:begin, written by bench/readme_numbers.sh -->\n'
  printf 'Retention operator, 8 heads of Dk 64, Dv 128, float, one thread of %s,\n' \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sed -n 1p)"
  printf '%s, %s: thousand tokens/s (GFLOP/s of useful work; multiply-add\n' \
    "$("${CXX:-g++}" --version | sed -n '1s/ (.*) / /p')" "$(date -u +%Y-%m-%d)"
  printf 'peak measured in the same run: %s). Medians of 5. Redo it with `bench/readme_numbers.sh`.\n\n' "$peak"
  awk -F, '
    function cell(i, t) { return (i, t) in tokens ? sprintf("%.0f (%.0f)", tokens[i, t] / 1e3, flops[i, t] / 1e9) : "" }
    /^name,/ { for (i = 1; i <= NF; i++) { gsub(/"/, "", $i); column[$i] = i }; next }
    /_median/ {
      gsub(/"/, "", $1); sub(/_median$/, "", $1); split($1, part, "/")
      tokens[part[1], part[2]] = $(column["tokens/s"]); flops[part[1], part[2]] = $(column["FLOP/s"])
    }
    END {
      print "| T | 256 | 1024 | 4096 | 16384 |"
      print "|---|---|---|---|---|"
      n = split("parallel|chunkwise|recurrent|chunkwise_forward_backward|baseline_oracle_parallel|baseline_eigen_parallel|baseline_eigen_chunkwise", key, "|")
      split("parallel|chunkwise, 64 at a time|recurrent, one by one|chunkwise, forward and backward|naive loops, parallel|plain Eigen, parallel|plain Eigen, chunkwise", name, "|")
      for (i = 1; i <= n; i++)
        printf "| %s | %s | %s | %s | %s |\n", name[i], cell(key[i], 256), cell(key[i], 1024), cell(key[i], 4096), cell(key[i], 16384)
    }' "$scratch/rows"
  printf '<!-- numbers:end -->\n'
} >"$scratch/table"

awk -v table="$scratch/table" '
  /^<!-- numbers:begin/ { while ((getline line < table) > 0) print line; skip = 1 }
  !skip { print }
  /^<!-- numbers:end/ { skip = 0 }' "$root/README.md" >"$scratch/README.md"
cp "$scratch/README.md" "$root/README.md"
sed -n '/numbers:begin/,/numbers:end/p' "$root/README.md"
