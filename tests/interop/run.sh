#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Loads what save_pretrained writes in the reference implementations, and what they save in this
# library. Needs PyPI and GitHub, so that it is no part of the tests. Argument: a folder to work in
# (retnet-interop among the temporary files).
#
# RETNET_INTEROP_TORCHSCALE, _SYNCDOTH, _XATL: git repositories, if not those on GitHub.
# On a machine with a GPU fla's kernels run as well; elsewhere its models are only loaded.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
here=$root/tests/interop
work=${1:-${TMPDIR:-/tmp}/retnet-interop}
torchscale=${RETNET_INTEROP_TORCHSCALE:-https://github.com/microsoft/torchscale}
syncdoth=${RETNET_INTEROP_SYNCDOTH:-https://github.com/syncdoth/RetNet}
xatl=${RETNET_INTEROP_XATL:-https://github.com/syncdoth/RetNet-XATL}
mkdir -p "$work"

if [ ! -f "$work/installed" ]; then
  [ -d "$work/venv" ] || python3 -m venv "$work/venv"
  pip() { "$work/venv/bin/python" -m pip install -q --disable-pip-version-check "$@"; }
  pip -r "$here/requirements.txt"
  pip --no-deps torchscale==0.3.0  # fairscale and timm, of which nothing is used, are not installed
  # What syncdoth/RetNet and RetNet-XATL were written for.
  pip --no-deps --target "$work/old" transformers==4.38.2 tokenizers==0.15.2 \
    huggingface_hub==0.25.2
  touch "$work/installed"
fi
source_of() {  # repository, commit, folder
  [ -d "$work/$3" ] && return
  git clone -q --no-checkout "$1" "$work/$3.git"
  mkdir "$work/$3"
  git -C "$work/$3.git" archive "$2" | tar -x -C "$work/$3"
}
source_of "$torchscale" 4d1e0e8 torchscale_v2
source_of "$torchscale" 258eda3 torchscale_v1
source_of "$syncdoth" 2634bbf syncdoth
source_of "$xatl" a96412f xatl

read -r -a eigen < <(pkg-config --cflags-only-I eigen3 | sed 's/-I/-isystem /g')
for program in write_models read_models; do
  "${CXX:-g++}" -std=c++20 -O1 -march=native -I"$root/include" -I"$root/tests" "${eigen[@]}" \
    "$here/$program.cpp" -o "$work/$program" -pthread
done
rm -rf "$work/written" "$work/saved" "$work/saved_by_wheel"
"$work/write_models" "$work/written" >"$work/written.log"

export HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
status=0
check() {  # PYTHONPATH, then check.py's arguments
  PYTHONPATH=$1 "$work/venv/bin/python" "$here/check.py" "${@:2}" 2>"$work/$2.log" || status=1
}
check "$work/torchscale_v2" torchscale_v2 --written "$work/written" --saved "$work/saved"
check "" torchscale_wheel --written "$work/written" --saved "$work/saved_by_wheel"
check "$work/torchscale_v1" torchscale_v1 --written "$work/written" --saved "$work/saved"
check "$work/old:$work/syncdoth" syncdoth --written "$work/written" --saved "$work/saved"
check "$work/old:$work/xatl" xatl --written "$work/written" --saved "$work/saved"
if "$work/venv/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  # Without TF32, which moves the logits by 1e-3.
  TRITON_F32_DEFAULT=ieee check "" fla --written "$work/written" --saved "$work/saved"
else
  check "" fla --written "$work/written" --load-only
fi
for folder in saved saved_by_wheel; do
  "$work/read_models" "$work/$folder" || status=1
done
exit "$status"
