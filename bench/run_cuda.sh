#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds bench_cuda with nvcc alone, runs it and its peers on the GPU that is there, and writes tables; where Eigen is
# found, also those of whole models, which train and generate:
#
#   bench/run_cuda.sh           everything; a minute to build, one to measure, two for the peers
#   bench/run_cuda.sh --quick   the first shapes only
#   --no-peers                  without bench/peers/torch_cuda.py
#   --programs <folder>         of these programs, built already
#   --peers <file>              rows that torch_cuda.py wrote before, on this machine
#   --out <folder>              of the results; default: bench/results/<name of the device>
#
# Peers need a python3 with torch (RETNET_TORCH_PYTHON, default python3); fla's rows a package fla-core. NVCC names the
# compiler.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
say() { printf '%s\n' "retnet: $*" >&2; }
die() { say "$*"; exit 1; }

quick=""
programs=""
peers=""
out=""
with_peers=yes
command="bench/run_cuda.sh $*"
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) quick=--quick ;;
    --no-peers) with_peers=no ;;
    --programs) programs=${2:?"--programs needs a folder"} && shift ;;
    --peers) peers=${2:?"--peers needs a file"} && with_peers=no && shift ;;
    --out) out=${2:?"--out needs a folder"} && shift ;;
    *) sed -n '3,14s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
  shift
done

command -v nvidia-smi >/dev/null 2>&1 || die "no nvidia-smi: there is no GPU to measure."
device=$(nvidia-smi --query-gpu=name --format=csv,noheader | sed -n 1p)
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | sed -n 1p)
slug=$(printf '%s' "$device" | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9' '-')
out=${out:-$root/bench/results/$slug}
mkdir -p "$out"

if [ -z "$programs" ]; then
  nvcc="${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)} -std=c++20 -O2 -I$root/include"
  nvcc="$nvcc -gencode=arch=compute_90a,code=sm_90a"
  programs="$root/build/bench_cuda"
  mkdir -p "$programs"
  waiting=""
  for source in "$root"/bench/cuda/*.cu; do
    case "$source" in *_380m.cu) continue ;; esac
    # shellcheck disable=SC2086 # a command and its arguments
    $nvcc -c "$source" -o "$programs/$(basename "$source" .cu).o" &
    waiting="$waiting $!"
  done
  eigen=$(pkg-config --cflags eigen3 2>/dev/null || { [ -d /usr/include/eigen3 ] && echo -I/usr/include/eigen3; } || :)
  if [ -n "$eigen" ]; then
    for name in train_380m generate_380m; do
      # shellcheck disable=SC2086
      $nvcc $eigen "$root/bench/cuda/$name.cu" -lcublasLt -o "$programs/$name" &
      waiting="$waiting $!"
    done
  else
    say "Eigen was not found: no whole model."
  fi
  for process in $waiting; do wait "$process" || die "a program does not build."; done
  # shellcheck disable=SC2086
  $nvcc "$programs"/*.o -lcublasLt -o "$programs/bench_cuda"
fi

python=${RETNET_TORCH_PYTHON:-python3}
if [ $with_peers = yes ]; then
  if "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    peers="$out/peers.csv"
    rm -f "$peers"
    "$python" "$root/bench/peers/torch_cuda.py" --out "$peers" --processes "$(nproc)" >"$out/peers.log" 2>&1 ||
      die "peers failed; see $out/peers.log"
  else
    say "$python has no torch that sees the GPU: the results are without peers."
  fi
fi

set -- --out="$out" --title="$device, $(date -u +%Y-%m-%d)"
[ -z "$quick" ] || set -- "$@" $quick
[ -z "$peers" ] || set -- "$@" --peers="$peers"
"$programs/bench_cuda" "$@"
{
  printf '\nDriver %s. Command: `%s`.' "$driver" "$command"
  [ ! -f "$out/peers.log" ] || printf ' Peers: %s.' "$(sed -n 1p "$out/peers.log")"
  printf '\n'
  for name in train_380m generate_380m; do
    [ -x "$programs/$name" ] || continue
    printf '\n## %s\n\n```\n' "$name"
    "$programs/$name"
    printf '```\n'
  done
} >>"$out/README.md"
say "results are in $out"
