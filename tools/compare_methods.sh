#!/usr/bin/env bash
# Trains full, lora and switchlora on the same tokens for the same number of steps, each with lr and dense_lr swept, and
# prints a table and a plot of validation loss. One command, resumable: finished runs are kept, cut-off ones resume.
set -euo pipefail
# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/example_text.sh
source "$(dirname "${BASH_SOURCE[0]}")/example_text.sh"

explain() { printf '%s\n' "$@" | sed 's/^/    /'; }

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    echo "tools/compare_methods.sh [--steps=N] [--seeds=N] [--jobs=N] [--output=DIR]   (see tools/compare_methods.py --help)"
    exit 0
fi

cd "$root"
work=runs/compare
install_packages
build_preset release --target switchyard
mkdir -p "$work"
say "Text and tokens"
get_text "$work"
if [[ ! -s $work/tokens.h5 ]]; then
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        build/release/switchyard tokenize "$work/text.txt" --output="$work/tokens.h5" --vocab_size=2048
fi
say "Training (resumable: start this again after an interruption)"
exec python3 tools/compare_methods.py "$@"
