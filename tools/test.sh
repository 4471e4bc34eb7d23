#!/usr/bin/env bash
# Installs what is missing, builds and runs everything that must always hold: all tests of the release build, those of
# back ends on the CUDA back end too, which an emulation executes, and single-rank tests under AddressSanitizer and
# UndefinedBehaviorSanitizer.
set -euo pipefail
# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
    cat <<'TEXT'
tools/test.sh [--long] [--no-asan] [--no-cuda] [ctest arguments]
  --long     also the campaigns (tests labelled `long`: many kills, many switches, all under sanitizers), exported weights in
             transformers and peft, which it installs in .venv-torch (6 GB), and a build with MPICH, which it installs
             beside Open MPI: its tests with ranks
  --no-asan  without the sanitizer build
  --no-cuda  the CPU program alone: without the CUDA back end, emulated and compiled
Everything else goes to ctest: tools/test.sh --no-asan -R checkpoint
TEXT
}

long=0 asan=1 cuda=1 ctest_arguments=() architectures=90 sanitized=single_rank_tests
for argument in "$@"; do
    case $argument in
        --long) long=1 architectures="80;90;100" sanitized=all_single_rank_tests ;;
        --no-asan) asan=0 ;;
        --no-cuda) cuda=0 ;;
        --help | -h) usage && exit 0 ;;
        *) ctest_arguments+=("$argument") ;;
    esac
done

# run_ctest PRESET [arguments]: keeps the output in build/PRESET/test.log. One test more than there are cores, because
# many wait: for ranks that start, files that are synced, a watchdog's clock.
run_ctest() {
    local preset=$1 left_out='^long$' without_tests=error
    shift
    [[ ${#ctest_arguments[@]} -eq 0 ]] || without_tests=ignore # a test may be of one build alone
    if [[ $long -eq 1 ]]; then
        [[ $preset == mpich ]] || left_out='^nothing$'
    elif [[ $asan -eq 1 && $preset == "$tested" ]]; then
        left_out='^(long|sanitized)$' # the latter run in the sanitizer build
    fi
    (cd "$root" && ctest --preset "$preset" --parallel "$(($(nproc) + 1))" "--no-tests=$without_tests" --label-exclude "$left_out" "$@" \
        "${ctest_arguments[@]}" </dev/null) 2>&1 | tee "$root/build/$preset/test.log"
}

# build_meanwhile PRESET [arguments]: starts build_preset with the cores' spare time; finish_build waits for it.
build_meanwhile() {
    builds=$root/build/$1.log
    # A session of its own, which can be ended whole, and yields to those of the tests: Linux shares cores out between
    # sessions before it looks at nice (sched(7), autogroup).
    setsid bash -c '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$@"' - \
        bash "$root/tools/setup.sh" "$@" >"$builds" 2>&1 </dev/null &
    builder=$!
    trap 'kill -- "-$builder" 2>/dev/null || true' EXIT
    say "Building build/$1 meanwhile: build/$1.log"
}
finish_build() {
    say "Waiting for what is left of that build"
    wait "$builder" || { tail -n 40 "$builds" && die "the build failed: $builds"; }
    trap - EXIT
}

# Configures the build whose tests run: build/cuda-emulated holds the release build of the CPU program and the CUDA back end,
# emulated and, where there is a CUDA toolkit, compiled for GPUs.
prepare_tested_build() {
    tested=release
    [[ $cuda -eq 1 ]] || return 0
    if ! echo '#include <boost/context/fiber.hpp>' | g++ -x c++ -fsyntax-only - 2>/dev/null; then
        say "SKIPPED: the CUDA back end, whose emulation needs Boost.Context (Debian and Ubuntu: libboost-context-dev)"
        return
    fi
    tested="cuda-emulated"
    local nvcc include backends="cpu;cuda-emulated;cuda-emulated-address;cuda-emulated-thread"
    nvcc=$(command -v nvcc || true)
    include=${nvcc:+$(dirname "$(readlink -f "$nvcc")")/../include}
    if [[ -n $nvcc && -f $include/cublasLt.h ]]; then
        backends+=";cuda"
    else
        say "SKIPPED: compiling for GPUs, which needs nvcc 13 with cuBLASLt (NVIDIA's package cuda-toolkit-13-0)"
    fi
    configure_preset "$tested" -DSWITCHYARD_BACKENDS="$backends" -DSWITCHYARD_GPU_ARCHITECTURES="$architectures"
}

closing_line() { grep -E 'tests passed, [0-9]+ tests? failed|^No tests were found' "$root/build/$1/test.log" | tail -n 1; }

install_packages
install_test_packages "${test_packages[@]}"
[[ $long -eq 0 ]] || install_test_packages "${mpich_packages[@]}"
started=$SECONDS
prepare_tested_build
build_preset "$tested"
if [[ $asan -eq 1 ]]; then
    configure_preset asan -DSWITCHYARD_TEST_OBJECTS="$root/build/$tested"
    build_meanwhile asan --target "$sanitized"
fi
say "Tests of the release build$([[ $long -eq 1 ]] && echo ', campaigns included')"
declare -A results=([$tested]=0) titles=(
    [release]="release build" [cuda-emulated]="release build and emulated CUDA" [asan]="sanitizer build, single rank" [mpich]="MPICH build, tests with ranks")
run_ctest "$tested" || results[$tested]=$?
if [[ $asan -eq 1 ]]; then
    finish_build
    say "Single-rank tests under the address and undefined-behaviour sanitizers"
    results[asan]=0
    run_ctest asan --label-regex '^ranks_1$' || results[asan]=$?
fi
if [[ $long -eq 1 ]] && ! command -v mpicxx.mpich >/dev/null; then
    say "SKIPPED: the tests with MPICH, which is not installed (Debian and Ubuntu: ${mpich_packages[*]})"
elif [[ $long -eq 1 ]]; then
    build_preset mpich
    say "Tests that start ranks, with MPICH"
    results[mpich]=0
    run_ctest mpich --label-regex '^(ranks_[0-9]+|mpirun)$' || results[mpich]=$?
fi

say "Finished in $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s. Logs: build/*/test.log"
ran=0
for preset in "${!results[@]}"; do [[ $(closing_line "$preset") != *passed* ]] || ran=1; done
[[ $ran -eq 1 ]] || die "no test was run (none has that name, or it needs --long); ctest --preset $tested -N lists them"
# Closing lines; the one that decides comes last, by itself.
order=()
for preset in mpich asan "$tested"; do [[ ${results[$preset]:-1} -ne 0 ]] || order+=("$preset"); done
for preset in mpich asan "$tested"; do [[ ${results[$preset]:-0} -eq 0 ]] || order+=("$preset"); done
for preset in "${order[@]::${#order[@]}-1}"; do printf '%s: %s\n' "${titles[$preset]}" "$(closing_line "$preset")"; done
preset=${order[-1]}
printf '%s:\n%s\n' "${titles[$preset]}" "$(closing_line "$preset")"
exit "${results[$preset]}"
