#!/usr/bin/env bash
# Training step of 60m in Switchyard (1 rank with all cores, and 2 ranks) against PyTorch on the same cores in the same
# call: tokens/s, ratios with their spread, share of the bound. About 12 minutes on 2 cores; nothing else should run.
#   tools/bench_step.sh [--rounds=3] [--threads=N] [--dtypes f32 bf16] [--ranks 1 2] [--require=1.0] [--json=FILE] [--help]
set -euo pipefail
tools=$(cd "$(dirname "$0")" && pwd)
python=$("$tools/torch_venv.sh" | tail -n 1)
exec "$python" "$tools/bench_step.py" "$@"
