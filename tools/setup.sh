#!/usr/bin/env bash
# Installs what is missing and builds a CMake preset. Sourced by quickstart.sh and test.sh, or called: tools/setup.sh
# [preset [cmake --build arguments]]. Harmless when repeated: asks dpkg and ninja first and does nothing when everything
# is there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The only list of what Switchyard needs (Debian 12's names; Ubuntu's are the same). Debian 13's SentencePiece asks for
# Protocol Buffers without bringing them.
packages=(
    build-essential cmake ninja-build pkg-config git
    libopenmpi-dev openmpi-bin libhdf5-dev
    libboost-program-options-dev libdnnl-dev libsentencepiece-dev libprotobuf-dev sentencepiece
    nlohmann-json3-dev libfmt-dev libgtest-dev
    python3-numpy python3-h5py python3-matplotlib
)
# What only tests need, installed by test.sh alone: without them those tests are skipped, and say so.
# shellcheck disable=SC2034  # used by test.sh
test_packages=(slurm-wlm munge shellcheck libboost-context-dev)
# A second MPI library, for test.sh --long alone. Open MPI stays what mpirun and mpicxx mean.
# shellcheck disable=SC2034
mpich_packages=(mpich libmpich-dev)
spack_line="spack install cmake ninja pkgconf openmpi hdf5 boost+program_options onednn sentencepiece nlohmann-json fmt googletest py-h5py py-matplotlib"

say() { printf '\n==> %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs a command as root, directly or through sudo.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "not root and no sudo (packages must be installed): as root, run: $*"
    fi
}

# missing_packages PACKAGE...: those that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

install_packages() {
    [[ ${SWITCHYARD_SKIP_PACKAGES:-0} == 1 ]] && return
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        printf 'This is not a Debian or Ubuntu system, so nothing is installed. Needed (Debian names):\n  %s\n' "${packages[*]}"
        printf 'With Spack:\n  %s\n' "$spack_line"
        printf 'When they are there, run this again with SWITCHYARD_SKIP_PACKAGES=1.\n'
        exit 1
    fi
    install_missing "${packages[@]}"
}

# install_test_packages PACKAGE...
install_test_packages() {
    [[ ${SWITCHYARD_SKIP_PACKAGES:-0} == 1 ]] && return
    (install_missing "$@") || say "Not all of $* could be installed: tests that need them are skipped"
}

install_missing() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -eq 0 ]] && return
    say "Installing ${#missing[@]} packages: ${missing[*]}"
    as_root apt-get update -q &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
}

# configure_preset PRESET [cmake arguments, which hold for a folder that is there too]
configure_preset() {
    local preset=$1 launcher=()
    shift
    if [[ ! -f $root/build/$preset/build.ninja ]]; then
        # ccache keeps objects of single files; without it, precompiled headers and unity builds halve the time.
        command -v ccache >/dev/null && launcher=(
            -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DCMAKE_UNITY_BUILD=OFF)
        say "Configuring build/$preset"
        (cd "$root" && cmake --preset "$preset" "${launcher[@]}" "$@")
    elif [[ $# -gt 0 ]]; then
        (cd "$root" && cmake "build/$preset" "$@" >/dev/null)
    fi
}

# build_preset PRESET [cmake --build arguments]: configures build/PRESET when needed, then builds what is out of date.
build_preset() {
    local preset=$1
    shift
    configure_preset "$preset"
    say "Building build/$preset"
    (cd "$root" && cmake --build "build/$preset" --parallel "$(build_jobs)" "$@")
}

# One compiler per core, but no more than the memory holds (about 1.5 GB each).
build_jobs() {
    local cores memory
    cores=$(nproc)
    memory=$(awk '/MemAvailable/ {print int($2 / 1500000)}' /proc/meminfo 2>/dev/null || echo "$cores")
    echo $((memory < 1 ? 1 : memory < cores ? memory : cores))
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    install_packages
    build_preset "${1:-release}" "${@:2}"
    say "Ready: build/${1:-release}/switchyard"
fi
