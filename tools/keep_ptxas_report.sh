#!/usr/bin/env bash
# Starts nvcc, as CMake's launcher of the CUDA compiler: what ptxas reports of each kernel (-Xptxas -v: registers, spills) is
# kept in OBJECT.ptxas for tests/check_kernels.py, and everything else that the compiler says is passed on.
set -euo pipefail

object=
for ((i = 1; i < $#; ++i)); do
    if [[ ${!i} == -o ]]; then
        next=$((i + 1))
        object=${!next}
    fi
done
[[ -n $object && $* == *\ -c\ * ]] || exec "$@" # CMake asks for versions, and links

code=0
"$@" 2>"$object.ptxas" || code=$?
grep -vE '^ptxas info|bytes stack frame, .* bytes spill' "$object.ptxas" >&2 || true
exit "$code"
