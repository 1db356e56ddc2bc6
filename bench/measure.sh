#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the bench programs of a folder, on processors of their own, and the peer in PyTorch; what they write goes to
# another folder. It needs neither sources nor tools, so that programs built here can be measured elsewhere:
#
#   bench/measure.sh <folder of the programs> <output folder> full|bars|quick|smoke
#
# full is about an hour on two quiet processors; bars only what the bars of bench_report are about, five minutes.
# Environment: see run.sh.
set -eu
programs=${1:?"folder of the programs"}
out=${2:?"output folder"}
mode=${3:?"full, bars, quick or smoke"}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
mkdir -p "$out"

say() { printf '%s\n' "retnet: $*" >&2; }
die() { say "$*" && exit 1; }

# One processor of each of the first two cores: two threads of one core would share its units.
cpus=${RETNET_BENCH_CPUS:-$(lscpu -p=CPU,CORE 2>/dev/null | awk -F, '!/^#/ && !seen[$2]++ { print $1 }' |
  sed -n 1,2p | paste -s -d , -)}
pinned=""
if command -v taskset >/dev/null 2>&1 && [ -n "$cpus" ] && taskset -c "$cpus" true 2>/dev/null; then
  pinned="taskset -c $cpus"
else
  say "taskset is not there or not allowed: threads choose among all processors."
fi

# The libraries that are measured beside ours choose their kernels themselves, ...
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE BLIS_ARCH_TYPE ONEDNN_MAX_CPU_ISA ATEN_CPU_CAPABILITY MKL_ENABLE_INSTRUCTIONS
unset OMP_NUM_THREADS OPENBLAS_NUM_THREADS BLIS_NUM_THREADS OMP_PROC_BIND OMP_PLACES
# ... but where the machine has AVX-512: ours may be built for less, and like is compared with like; and releases that
# are older than a processor take it for one of long ago.
like_ours() {
  grep -qw avx512f /proc/cpuinfo 2>/dev/null || return 0
  if grep -q '"vector_bytes": "64"' "$out/bench_limits.json"; then
    export OPENBLAS_CORETYPE=SkylakeX BLIS_ARCH_TYPE=0
  else
    export OPENBLAS_CORETYPE=Haswell BLIS_ARCH_TYPE=3 ONEDNN_MAX_CPU_ISA=AVX2
    export ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
    held=", all held to AVX2"
  fi
}

# Rows that a bar of bench_report/bars.hpp or the README is about.
rows_of() {
  case "$1" in
    bench_limits) echo 'multiply_add|KB:1048576' ;;
    bench_ops)
      printf '%s|' 'retention/(chunkwise|chunkwise_forward_backward|baseline_eigen_chunkwise|baseline_ggml)/' \
        'step/(in_place|deferred)/.*KB:1048576' 'linear/(float|baseline_(openblas|blis|onednn))/M:(2|4|8|16)/.*cold' \
        'linear/(float|bfloat16)/M:1/.*cold' 'linear/(float|baseline_(openblas|blis|onednn))/M:(64|512)/.*warm.*s:1'
      echo 'error/'
      ;;
    bench_forms)
      printf '%s|' 'op/(chunkwise|chunkwise_forward_backward|parallel|recurrent)/T:(256|1024|4096|16384)/threads:1' \
        'op/chunkwise/T:.*threads:1' 'op/attention/T:(2048|8192)/threads:1' \
        'op/baseline_.*T:(256|1024|4096|16384)/threads:1'
      echo 'layer/(chunkwise|attention)/T:(2048|8192)/threads:1'
      ;;
    bench_model) echo 'prefill/retention/T:2048/|(gradient|training|decode)/retention/|fingerprint' ;;
  esac
}

# measure <program>: Google Benchmark's rows of every repetition, in random order, so that a noisy minute does not hit
# one row alone.
measure() {
  program=$1
  case "$mode" in
    quick) set -- --quick --benchmark_min_time=0.02 --benchmark_repetitions=2 ;;
    smoke) set -- --quick --threads=1 --benchmark_min_time=0.001 ;;
    bars) set -- --benchmark_min_time=0.05 --benchmark_repetitions=3 --benchmark_filter="$(rows_of "$program")" ;;
    *) set -- --benchmark_min_time=0.1 --benchmark_repetitions=5 ;;
  esac
  say "running $program"
  # shellcheck disable=SC2086 # a command and its arguments
  $pinned "$programs/$program" "$@" --benchmark_enable_random_interleaving=true \
    --benchmark_display_aggregates_only=true --benchmark_out="$out/$program.json" \
    --benchmark_out_format=json >"$out/$program.log" 2>&1 || {
    cat "$out/$program.log" >&2
    die "$program failed."
  }
}

torch() {
  python=${RETNET_TORCH_PYTHON:-python3}
  rm -f "$out/torch.json"
  if ! "$python" -c 'import numpy, torch' 2>/dev/null; then
    say "$python has no torch: the results are without PyTorch."
    return 0
  fi
  case "$mode" in
    quick) set -- --quick --repetitions 1 --min-time 0.02 ;;
    bars) set -- --parts models --tokens 2048 --repetitions 3 --min-time 0.2 ;;
    *) set -- --repetitions 5 --min-time 0.2 ;;
  esac
  say "running peers/torch_retnet.py"
  # shellcheck disable=SC2086
  OMP_PROC_BIND=close $pinned "$python" "$here/peers/torch_retnet.py" "$@" --out "$out/torch.json" \
    >"$out/torch.log" 2>&1 || die "peers/torch_retnet.py failed; see $out/torch.log."
}

held=""
measure bench_limits
like_ours

# Of the machine, without its name: "AMD EPYC, 2 processors".
machine="$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | sed -n 1p)"
printf '%s, %s processors%s\n' "${machine:-$(uname -m)}" "$(nproc 2>/dev/null || echo 1)" "$held" >"$out/machine.txt"

[ "$mode" = smoke ] || torch
for program in bench_ops bench_forms bench_model; do measure $program; done
