#!/usr/bin/env bash
# Trains every method on the same tokens for the same number of steps, each with lr and dense_lr swept, and prints tables and
# a plot: validation loss, step time, bytes and memory. One command, resumable: rows of docs/study are not made again.
set -euo pipefail
# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/example_text.sh
source "$(dirname "${BASH_SOURCE[0]}")/example_text.sh"

explain() { printf '%s\n' "$@" | sed 's/^/    /'; }

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    echo "tools/compare_methods.sh [--quick] [--methods=A,B] [--steps=N] [--seeds=N] [--jobs=N] [--again] [--output=DIR] [--plans]"
    echo "  --quick: 25 minutes on two cores. See tools/compare_methods.py --help."
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
