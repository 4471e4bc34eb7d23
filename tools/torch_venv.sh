#!/usr/bin/env bash
# Makes or completes the ignored virtual environment .venv-torch with PyTorch, numpy and h5py, and prints its
# interpreter as the last line. Only the golden file, the comparison with PyTorch and the tests that load exported
# weights with transformers and peft need it; Switchyard does not.
#   tools/torch_venv.sh [--with-transformers]
# The default wheel on Linux links the CUDA libraries even for CPU work (3 GB); PIP_INDEX_URL, where it names an index of
# CPU-only wheels, makes it small. PYTHON chooses the interpreter, SWITCHYARD_VENV another folder.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${SWITCHYARD_VENV:-$PWD/.venv-torch}"
python="${PYTHON:-python3}"
[[ "$venv" = /* ]] || venv="$PWD/$venv"
packages=(torch numpy h5py)
modules="torch, numpy, h5py"
case "${1:-}" in
    "") ;;
    --with-transformers)
        packages+=(transformers peft safetensors sentencepiece protobuf)
        modules+=", transformers, peft, safetensors, sentencepiece, google.protobuf" ;;
    *) echo "unknown argument '$1'; use: tools/torch_venv.sh [--with-transformers]" >&2; exit 2 ;;
esac

if ! "$venv/bin/python" -c "import $modules" 2>/dev/null; then
    if [[ ! -x "$venv/bin/pip" ]]; then
        "$python" -m venv "$venv" || {
            echo "python3 -m venv failed (no virtual environment, no PyTorch); on Debian: apt-get install python3-venv" >&2
            exit 1
        }
    fi
    free_kb=$(df -Pk "$venv" | awk 'NR == 2 { print $4 }')
    if (( free_kb < 9000000 )); then
        echo "only $((free_kb / 1000)) MB free at $venv (PyTorch with its libraries unpacks to about 6 GB);" \
             "set SWITCHYARD_VENV to a folder with more room" >&2
        exit 1
    fi
    echo "installing ${packages[*]} into $venv (several minutes on a slow network)" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir "${packages[@]}" >&2
    "$venv/bin/python" -c "import $modules" || {
        echo "the packages are installed but do not import; remove $venv and run again" >&2
        exit 1
    }
fi
echo "$venv/bin/python"
