#!/usr/bin/env python3
"""Makes the files of a released format that later programs must still read: tests/golden/format_N.

    tools/make_old_files.py BUILD tests/golden/format_2      # with a build of the revision that writes that format

For every method a checkpoint of a tiny run in f64 after 10 steps, and what the uninterrupted run logged until step 20;
one token file for all, whose format_version names the folder. tests/regression/test_old_files.py resumes them.
"""
import argparse
import contextlib
import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import bench_runs

TEXT = "The frozen weights stay where they are. Small shards of them are trained, switched and sent on.\n\n"
RUNS = {
    "full": ["--method.name=full"],  # no rates are given: a later default must not change them
    "lora": ["--method.name=lora", "--method.rank=4", "--optim.lr=0.003", "--optim.dense_lr=0.001"],
    "switchlora": ["--method.name=switchlora", "--method.rank=4", "--method.switch_interval=4", "--method.freeze_steps=2",
                   "--optim.lr=0.003", "--optim.weight_decay=0.1"],
}  # fmt: skip
SETTINGS = [
    "--model.preset=nano", "--model.hidden_size=12", "--model.num_heads=2", "--model.num_kv_heads=2", "--model.num_layers=2",
    "--model.ffn_size=20", "--model.tie_embeddings=true", "--data.seq_len=16", "--data.micro_batch=2",
    "--data.global_batch=4", "--optim.warmup_steps=4", "--run.steps=20", "--run.dtype=f64",
]  # fmt: skip


def train(program, name, settings):
    """Runs in the working directory, so that the file's configuration has no other path."""
    settings = ["--data.tokens=tokens.h5", *SETTINGS, *settings]
    bench_runs.run([program, "train", f"--run.dir={name}", *settings], f"the run {name}", OMP_NUM_THREADS="1")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    program, target = arguments.build.resolve() / "switchyard", arguments.folder.resolve()
    target.mkdir(parents=True, exist_ok=True)
    revision = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    expected = {"made_by": revision, "settings": SETTINGS, "runs": {}}
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        work = pathlib.Path(name)
        (work / "text.txt").write_text(TEXT * 20)
        # Without bytes and normalisation tables the tokenizer takes 2 kB instead of 240.
        bench_runs.run(["spm_train", "--input=text.txt", "--model_prefix=small", "--vocab_size=36",
                        "--normalization_rule_name=identity"], "spm_train")  # fmt: skip
        bench_runs.run([program, "tokenize", "text.txt", "--output=tokens.h5", "--tokenizer=small.model", "--quiet"], "tokenize")
        # Its chunks are half empty and compress well.
        (target / "tokens.h5.gz").write_bytes(gzip.compress(pathlib.Path("tokens.h5").read_bytes(), mtime=0))
        for method, settings in RUNS.items():
            train(program, f"{method}_whole", settings)
            train(program, method, [*settings, "--run.stop_step=10"])
            shutil.copy(work / method / "checkpoints/step_00000010.h5", target / f"{method}.h5")
            records = map(json.loads, (work / f"{method}_whole/log.jsonl").read_text().splitlines())
            steps = [{k: r[k] for k in ("step", "loss", "grad_norm", "lr")} for r in records if "event" not in r]
            expected["runs"][method] = {"settings": settings, "steps": [r for r in steps if r["step"] > 10]}
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    for file in sorted(target.iterdir()):
        print(f"{file.stat().st_size:8} {file}")


if __name__ == "__main__":
    try:
        main()
    except bench_runs.Failure as failure:
        sys.exit(str(failure))
