#!/usr/bin/env bash
# The checks for a machine with a GPU, from the folder that gpu_bundle.sh makes: it is copied there, and needs Python there.
# Everything is printed as it comes and summed up at the end.
set -euo pipefail

usage() {
    cat <<'TEXT'
gpu_check.sh --correct | --bench | --more   [--only=NAMES] [--output=DIRECTORY] [--sizes=130m,350m,1b] [--limit=SECONDS]
  --correct  are the results right: tests of kernels, runs against the CPU's numbers, restart (about 150 s)
  --bench    how fast: tokens/s by model and length, full rank and low rank, PyTorch's beside them (about 240 s)
  --more     compute-sanitizer, a profile of a step, more sizes (about 300 s)
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -gt 0 && $1 != --help && $1 != -h ]] || { usage && exit 0; }
command -v python3 >/dev/null || { echo "python3 is not in PATH (the checks are written in it, version 3.8 or later); install it" >&2 && exit 1; }
before=${LD_LIBRARY_PATH:-}
if [[ -f $here/environment.sh ]]; then
    # shellcheck source=/dev/null
    source "$here/environment.sh" # of a bundle: where its libraries lie, which Python must not load
    export GPU_CHECK_LIBRARY_PATH=$LD_LIBRARY_PATH LD_LIBRARY_PATH=$before
fi
exec python3 "$here/gpu_check.py" "$@"
