# SPDX-License-Identifier: MIT
# Sourced by tests/run.sh, examples/run.sh and .ci/run, which set $root: finds or installs what a build needs, and
# configures $root/build. POSIX sh.
build="$root/build"

say() { printf '%s\n' "retnet: $*" >&2; }
die() { say "$*"; exit 1; }

# Not every system that has getconf has nproc, nor the other way round.
jobs() { nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1; }

# Tools count wherever they come from; libraries are asked of the package manager.
is_there() {
  case "$1" in
    g++) command -v "${CXX:-c++}" ;;
    cmake) command -v cmake ;;
    ninja-build) command -v ninja ;;
    xz-utils) command -v xz ;;
    pkg-config) command -v pkg-config ;;
    *) [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
  esac >/dev/null 2>&1
}

# need <Debian package>...: installs what is missing where that is allowed, else prints the line to type.
need() {
  missing=""
  for package in "$@"; do
    is_there "$package" || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0

  if ! command -v apt-get >/dev/null 2>&1; then
    # Another system: the libraries may well be there. CMake looks for them and names what is not.
    for tool in "${CXX:-c++}" cmake ninja; do
      command -v "$tool" >/dev/null 2>&1 || die "$tool was not found; please install it and run this again."
    done
    return 0
  fi

  if [ "$(id -u)" = 0 ]; then
    as_root="env"
  elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
  else
    say "packages are missing, and installing them needs root. Please type"
    printf '%s\n' "    sudo apt-get install --no-install-recommends$missing" >&2
    die "and run this again."
  fi
  say "installing$missing; this takes a minute"
  # An outdated list of one foreign source is no reason to stop; a failed installation is.
  $as_root apt-get -o DPkg::Lock::Timeout=120 -qq update || true
  # shellcheck disable=SC2086 # a list of names
  $as_root DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -qq \
    install --no-install-recommends $missing >/dev/null || die "the installation failed; see above."
}

# Where CMake finds the CUDA compiler, if there is one.
find_nvcc() {
  if [ -z "${CUDACXX:-}" ] && ! command -v nvcc >/dev/null 2>&1 && [ -x /usr/local/cuda/bin/nvcc ]; then
    CUDACXX=/usr/local/cuda/bin/nvcc
    export CUDACXX
  fi
  command -v "${CUDACXX:-nvcc}" >/dev/null 2>&1
}

# A build folder of another generator, or of a checkout that has moved since, cannot be configured again.
drop_foreign_cache() {
  cache="$build/CMakeCache.txt"
  [ -f "$cache" ] || return 0
  home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$cache")
  here=$(sed -n 's/^CMAKE_CACHEFILE_DIR:INTERNAL=//p' "$cache")
  if grep -q '^CMAKE_GENERATOR:INTERNAL=Ninja$' "$cache" &&
    [ "$(cd "$home" 2>/dev/null && pwd -P)" = "$root" ] &&
    [ "$(cd "$here" 2>/dev/null && pwd -P)" = "$root/build" ]; then
    return 0
  fi
  say "build/ was configured for another generator or another place; configuring it anew."
  rm -rf "$cache" "$build/CMakeFiles"
}

# configure <options for a fresh build folder> -- <options for any>
configure() {
  mkdir -p "$build" 2>/dev/null && [ -w "$build" ] || die "cannot write to $build."
  drop_foreign_cache
  fresh=yes
  [ ! -f "$build/CMakeCache.txt" ] || fresh=no
  seen_separator=no
  for option in "$@"; do
    shift
    if [ "$option" = -- ]; then
      seen_separator=yes
    elif [ "$seen_separator" = yes ] || [ "$fresh" = yes ]; then
      set -- "$@" "$option"
    fi
  done
  # From inside $root: called through a symbolic link, CMake would take the link for the place of the sources.
  (cd "$root" && cmake -S . -B build -G Ninja --log-level=NOTICE "$@" >&2) || die "the configuration failed; see above."
}

build_target() {
  (cd "$root" && cmake --build build --parallel "$(jobs)" --target "$@" >&2) || die "the build failed; see above."
}
