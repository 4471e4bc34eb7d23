#!/usr/bin/env python3
"""Do two builds compute the same bits? Trains a small model with both and compares the log of every step.

    tools/compare_revisions.py OTHER_BUILD [THIS_BUILD] [--quick] [--resume]

Losses, gradient norms and what a method reports of 40 steps: every method of this build's table, f32, bf16 and f64, on
1x1, 2x1, 1x2 and 2x2 (dp x tp), rates set explicitly; then a few settings beside the defaults. --resume: the other build
makes the first 20 steps and its checkpoint, this one the rest. Prints a line for each run and exits 1 if one differs; a
difference in f64 is shown, so that a change of order made on purpose can be told from an error.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import bench_runs

METHODS = {
    "full": ["--method.name=full"],
    "lora": ["--method.name=lora", "--method.rank=12", "--method.alpha=12"],
    "dora": ["--method.name=dora", "--method.rank=12", "--method.alpha=12"],
    "sora": ["--method.name=sora", "--method.rank=12", "--method.alpha=12"],
    "galore": ["--method.name=galore", "--method.rank=12", "--method.update_interval=6"],
    "muon": ["--method.name=muon"],
    "apollo": ["--method.name=apollo", "--method.rank=12", "--method.update_interval=6"],
    "riemannian": ["--method.name=riemannian", "--method.rank=12", "--method.alpha=12"],
    "melora": ["--method.name=melora", "--method.rank=6", "--method.alpha=6"],
    "flatlora": ["--method.name=flatlora", "--method.rank=12", "--method.alpha=12"],
    "loft": ["--method.name=loft", "--method.rank=12"],
    "pclora": ["--method.name=pclora", "--method.rank=12", "--method.alpha=12"],
    "switchlora": ["--method.name=switchlora", "--method.rank=12", "--method.switch_interval=6", "--method.freeze_steps=3"],
    "relora": ["--method.name=relora", "--method.rank=12", "--method.alpha=12", "--method.merge_interval=15", "--method.restart_warmup=3"],
}
LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2)]
EXTRAS = {
    "switchlora random order, no rotation": METHODS["switchlora"] + ["--method.switch_order=random", "--parallel.rotate=false"],
    "switchlora shard_frozen, recompute": METHODS["switchlora"] + ["--parallel.shard_frozen=true", "--model.recompute=true"],
    "switchlora documents, bf16 gradients": METHODS["switchlora"]
    + ["--data.mask_documents=true", "--optim.gradient_dtype=bf16", "--data.micro_batch=3"],
    "full grouped heads, tied": ["--method.name=full", "--model.num_kv_heads=4", "--model.tie_embeddings=true"],
    "lora unmerged": METHODS["lora"] + ["--data.seq_len=2", "--optim.schedule=wsd"],
}
SETTINGS = [
    "--model.preset=nano", "--model.hidden_size=48", "--model.ffn_size=80", "--model.num_layers=2", "--data.seq_len=32",
    "--data.global_batch=12", "--data.micro_batch=1", "--optim.lr=0.003", "--optim.dense_lr=0.001", "--optim.warmup_steps=4",
    "--optim.weight_decay=0.1", "--optim.clip_norm=0.5", "--run.steps=40", "--run.save_interval=20",
]  # fmt: skip
COMPARED = ("loss", "objective", "grad_norm", "lr", "val_loss", "residual", "residual_of", "vectors_switched", "moments_reset",
            "kept")


def steps_of(run):
    """{step: {field: value}} of a run's log."""
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return {r["step"]: {k: r[k] for k in COMPARED if k in r} for r in records if "event" not in r}


def knows(build, key):
    shown = bench_runs.run([build / "switchyard", "--dump-config"], f"keys of {build}")
    return f"\n{key} = " in shown


def has_method_of(build, settings):
    name = next(s.removeprefix("--method.name=") for s in settings if s.startswith("--method.name="))
    return f"\n# {name}: " in bench_runs.run([build / "switchyard", "--dump-config"], f"methods of {build}")


def settings_for(build, other):
    """Settings with which this build computes what an older one without their keys does (it decays the gains of norms too)."""
    return ["--optim.decay_norms=true"] if knows(build, "decay_norms") and not knows(other, "decay_norms") else []


def train(build, run, dp, tp, settings):
    ranks = dp * tp
    command = [build / "switchyard", "train", f"--run.dir={run}", f"--parallel.tp={tp}", *settings]
    flags = {"OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}
    bench_runs.run(bench_runs.on_ranks(ranks, command) if ranks > 1 else command, f"{build} on {dp}x{tp}", **flags)
    return steps_of(run)


def difference(ours, theirs):
    """(first step that differs, largest relative difference of losses and norms), or None."""
    steps = sorted(set(ours) | set(theirs))
    differing = [s for s in steps if ours.get(s) != theirs.get(s)]
    if not differing:
        return None
    largest = 0.0
    for step in steps:
        for key in ("loss", "grad_norm"):
            a, b = ours.get(step, {}).get(key), theirs.get(step, {}).get(key)
            largest = max(largest, abs(a - b) / abs(b) if a is not None and b else float("inf"))
    return differing[0], largest


def cases(quick):
    for name, method in METHODS.items():
        for dtype in ["bf16"] if quick else ["f32", "bf16", "f64"]:
            for dp, tp in [(1, 1), (2, 2)] if quick else LAYOUTS:
                yield f"{name} {dtype} {dp}x{tp}", dp, tp, method + [f"--run.dtype={dtype}"]
    for name, settings in {} if quick else EXTRAS.items():
        for dtype in ("bf16", "f64"):
            if dtype == "f64" and any("gradient_dtype" in s for s in settings):
                settings = [s for s in settings if "gradient_dtype" not in s]
            yield f"{name} {dtype} 2x2", 2, 2, settings + [f"--run.dtype={dtype}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=pathlib.Path, help="build directory of the revision to compare with")
    parser.add_argument("this", type=pathlib.Path, nargs="?", default=bench_runs.ROOT / "build/release")
    parser.add_argument("--quick", action="store_true", help="bf16 on 1x1 and 2x2 only")
    parser.add_argument("--resume", action="store_true", help="this build resumes what the other one began")
    arguments = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tokens = bench_runs.make_tokens(arguments.other / "switchyard", folder, 2000)
        chosen = [c for c in cases(arguments.quick) if has_method_of(arguments.other, c[3])]
        if not chosen:
            sys.exit(f"{arguments.other} knows none of the methods compared (nothing would be); give the build directory of another revision")
        # A resumed run keeps its settings by itself.
        ours_only, theirs_only = [] if arguments.resume else settings_for(arguments.this, arguments.other), settings_for(arguments.other, arguments.this)
        for number, (case, dp, tp, settings) in enumerate(chosen):
            settings = SETTINGS + [f"--data.tokens={tokens}", *settings]
            theirs = train(arguments.other, folder / f"a{number}", dp, tp, settings + theirs_only)
            run = folder / f"b{number}"
            if arguments.resume:
                train(arguments.other, run, dp, tp, settings + theirs_only + ["--run.stop_step=20"])
            ours = train(arguments.this, run, dp, tp, settings + ours_only)
            if arguments.resume:
                ours[20].pop("val_loss", None)  # evaluated where the first part stopped
            found = difference(ours, theirs)
            different += found is not None
            verdict = f"differs from step {found[0]} on, by at most {found[1]:.1e}" if found else f"{len(theirs)} steps equal"
            print(f"{case:<45} {verdict}", flush=True)
    print(f"{len(chosen) - different} of {len(chosen)} runs equal to the bit")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    try:
        main()
    except bench_runs.Failure as failure:
        sys.exit(str(failure))
