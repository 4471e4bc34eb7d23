#!/usr/bin/env bash
# Installs what is missing, builds and runs everything that must always hold: all tests of the release build, and the
# single-rank tests under AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail
# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
    cat <<'TEXT'
tools/test.sh [--long] [--no-asan] [ctest arguments]
  --long     also the campaigns (tests labelled `long`: many kills, many switches, ...), and exported weights in
             transformers and peft, which it installs in .venv-torch (6 GB)
  --no-asan  only the release build
Everything else goes to ctest: tools/test.sh --no-asan -R checkpoint
TEXT
}

long=0 asan=1 ctest_arguments=()
for argument in "$@"; do
    case $argument in
        --long) long=1 ;;
        --no-asan) asan=0 ;;
        --help | -h) usage && exit 0 ;;
        *) ctest_arguments+=("$argument") ;;
    esac
done
selection=()
[[ $long -eq 1 ]] || selection=(--label-exclude '^long$')

# run_ctest PRESET [arguments]: keeps the output in build/PRESET/test.log.
run_ctest() {
    local preset=$1
    shift
    (cd "$root" && ctest --preset "$preset" --parallel "$(nproc)" --no-tests=error "${selection[@]}" "$@" \
        "${ctest_arguments[@]}" </dev/null) 2>&1 | tee "$root/build/$preset/test.log"
}

# build_meanwhile PRESET [arguments]: starts build_preset with the cores' spare time; finish_build waits for it.
build_meanwhile() {
    builds=$root/build/$1.log
    set -m # a process group of its own, so that it can be ended whole
    (renice -n 19 "$BASHPID" >/dev/null && build_preset "$@") >"$builds" 2>&1 </dev/null &
    builder=$!
    set +m
    trap 'kill -- "-$builder" 2>/dev/null || true' EXIT
    say "Building build/$1 meanwhile: build/$1.log"
}
finish_build() {
    say "Waiting for what is left of that build"
    wait "$builder" || { tail -n 40 "$builds" && die "the build failed: $builds"; }
    trap - EXIT
}

closing_line() { grep -E 'tests passed, [0-9]+ tests? failed|^No tests were found' "$root/build/$1/test.log" | tail -n 1; }

install_packages
install_test_packages
started=$SECONDS
build_preset release
[[ $asan -eq 0 ]] || build_meanwhile asan --target single_rank_tests
say "Tests of the release build$([[ $long -eq 1 ]] && echo ', campaigns included')"
release_result=0 asan_result=0
run_ctest release || release_result=$?
if [[ $asan -eq 1 ]]; then
    finish_build
    say "Single-rank tests under the address and undefined-behaviour sanitizers"
    run_ctest asan --label-regex '^ranks_1$' || asan_result=$?
fi

say "Finished in $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s. Logs: build/*/test.log"
# The closing line that decides comes last.
if [[ $asan -eq 0 ]]; then
    closing_line release
elif [[ $asan_result -ne 0 && $release_result -eq 0 ]]; then
    printf 'release build: %s\nsanitizer build, single rank:\n%s\n' "$(closing_line release)" "$(closing_line asan)"
else
    printf 'sanitizer build, single rank: %s\nrelease build:\n%s\n' "$(closing_line asan)" "$(closing_line release)"
fi
exit $((release_result != 0 ? release_result : asan_result))
