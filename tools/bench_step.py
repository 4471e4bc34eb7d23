#!/usr/bin/env python3
"""Compares Switchyard's full-rank training step with the same model in PyTorch, alternately on the same cores.

Started by tools/bench_step.sh, which finds both programs. Each round runs every program once, as its own process, one
after the other; a ratio is always taken within a round, so that a slow or busy machine affects both sides.
Prints a table of tokens/s, a table of ratios, and with --json a file of everything measured. --other=PROGRAM: against
another build of Switchyard instead of PyTorch (an earlier revision, to show that a change costs nothing); this needs no
PyTorch, so this script can be called directly.
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

from bench_runs import Failure, ROOT, make_tokens, on_ranks, run

VOCAB = {"60m": 32100}  # the preset that bench_torch.py builds


def measure_switchyard(options, program, tokens, dtype, ranks, folder):
    """Times of the measured steps of one run on `ranks` dp ranks, and its share of the bound where the log tells."""
    directory = folder / "run"
    shutil.rmtree(directory, ignore_errors=True)  # an existing run would be resumed
    threads = max(1, options.threads // ranks)
    command = [program, "train", "--model.preset=60m", f"--model.vocab_size={VOCAB['60m']}",
               f"--method.name={options.method}", f"--run.dtype={dtype}", f"--run.dir={directory}",
               f"--run.steps={options.warmup + options.steps}", "--run.eval_interval=0", "--run.save_interval=0",
               "--parallel.tp=1", f"--data.tokens={tokens}", f"--data.seq_len={options.seq_len}",
               f"--data.global_batch={options.batch}", f"--data.micro_batch={options.batch // ranks}",
               "--optim.lr=1e-3", "--optim.schedule=constant", "--optim.warmup_steps=0", "--optim.weight_decay=0",
               "--optim.clip_norm=1"]
    if ranks > 1:
        command = on_ranks(ranks, command)
    run(command, f"switchyard train ({dtype}, {ranks} ranks)", OMP_NUM_THREADS=str(threads))
    with open(directory / "log.jsonl") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    steps = [line for line in lines if "step_s" in line and "event" not in line]
    if len(steps) != options.warmup + options.steps:
        raise Failure(f"{directory}/log.jsonl has {len(steps)} steps, {options.warmup + options.steps} were asked for")
    losses = [line["loss"] for line in steps]
    if abs(losses[0] - math.log(VOCAB["60m"])) > 0.5 or losses[-1] >= losses[0]:
        raise Failure(f"switchyard did not train ({dtype}, {ranks} ranks): loss {losses[0]:.3f} to {losses[-1]:.3f}, "
                      f"expected to start at ln(vocabulary) = {math.log(VOCAB['60m']):.3f} and to fall")
    times = [line["step_s"] for line in steps[options.warmup:]]
    result = dict(program="switchyard", dtype=dtype, ranks=ranks, threads=threads, step_s=times, loss=losses)
    # A step's least time (design section 9), logged as bound_s with every step or once with an event.
    bounds = [line["bound_s"] for line in lines if line.get("bound_s")]
    if bounds:
        result["bound_share"] = bounds[-1] / statistics.median(times)
    return result


def measure_torch(options, dtype, mode):
    command = [options.python, ROOT / "tools/bench_torch.py", f"--dtype={mode}", f"--threads={options.threads}",
               f"--batch={options.batch}", f"--seq-len={options.seq_len}", f"--vocab={VOCAB['60m']}",
               f"--warmup={options.warmup}", f"--steps={options.steps}"]
    output = run(command, f"bench_torch.py ({mode})")
    result = json.loads(output.splitlines()[-1])
    if not result["valid"]:
        raise Failure(f"bench_torch.py did not train ({mode}): loss {result['loss']}")
    return dict(result, dtype=dtype, mode=mode, ranks=1)


def spread(values):
    """median (lowest to highest)"""
    digits = 2 if max(values) < 20 else 0
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def print_tables(rounds, options):
    """`rounds`: one dict per round, label -> result."""
    labels = list(rounds[0])
    rate = {label: [r[label]["tokens_per_s"] for r in rounds] for label in labels}
    print(f"\n60m, method {options.method}, {options.batch} sequences of {options.seq_len}, {options.threads} threads in all; "
          f"{len(rounds)} rounds, median step of {options.steps}; median over rounds (lowest to highest)\n")
    print(f"{'':34} {'tokens/s':>24}  of the bound")
    for label in labels:
        shares = [r[label]["bound_share"] for r in rounds if "bound_share" in r[label]]
        print(f"{label:34} {spread(rate[label]):>24}  {spread(shares) if shares else ''}")
    rival = "other" if options.other else "PyTorch"
    print(f"\n{'ratio of tokens/s, per round':34} {f'Switchyard / {rival}':>24}")
    failed = False
    for dtype in options.dtypes:
        torch_labels = [x for x in labels if x.startswith("PyTorch") and rounds[0][x]["dtype"] == dtype]
        for label in (x for x in labels if x.startswith("Switchyard") and rounds[0][x]["dtype"] == dtype):
            # Against the other build's same run, or PyTorch's fastest way in this round.
            rivals = [label.replace("Switchyard", "other")] if options.other else torch_labels
            ratios = [r[label]["tokens_per_s"] / max(r[x]["tokens_per_s"] for x in rivals) for r in rounds]
            print(f"{label:34} {spread(ratios):>24}")
            if rounds[0][label]["ranks"] == 1:
                failed |= statistics.median(ratios) < options.require
    return not failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchyard", type=pathlib.Path, default=ROOT / "build/release/switchyard")
    parser.add_argument("--other", type=pathlib.Path, help="another build's program, to compare with instead of PyTorch")
    parser.add_argument("--method", default="full", help="training method of Switchyard's runs")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has PyTorch")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="cores used, all ranks together")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="dp sizes to run")
    parser.add_argument("--dtypes", nargs="+", choices=("f32", "bf16"), default=["f32", "bf16"])
    parser.add_argument("--torch-bf16", nargs="+", choices=("bf16", "bf16-autocast"), default=["bf16", "bf16-autocast"],
                        help="how PyTorch computes in bf16: the ratio is to the fastest of these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--require", type=float, default=0.0, help="exit 1 where the 1-rank median ratio is below this")
    parser.add_argument("--json", type=pathlib.Path, help="file for everything measured")
    options = parser.parse_args()
    if min(options.rounds, options.warmup, options.steps, options.threads, *options.ranks) < 1:
        parser.error("--rounds, --warmup, --steps, --threads and --ranks must be at least 1")
    for ranks in options.ranks:
        if options.batch % ranks:
            parser.error(f"--batch={options.batch} sequences do not divide among {ranks} ranks; choose another --ranks")
    programs = {"Switchyard": options.switchyard.resolve()}
    if options.other:
        programs["other"] = options.other.resolve()
    for program in programs.values():
        if not os.access(program, os.X_OK):
            raise Failure(f"{program} is missing; build it: cmake --preset release && cmake --build build/release")

    modes = {"f32": ["f32"], "bf16": options.torch_bf16}
    rounds = []
    with tempfile.TemporaryDirectory(prefix="switchyard_bench_") as name:
        folder = pathlib.Path(name)
        # The model's vocabulary is larger than the file's: a step costs the same.
        sentences = max(2000, 2 * (options.warmup + options.steps) * options.batch * options.seq_len // 8)
        # An older program reads only its own formats, which a newer one reads too.
        tokens = make_tokens(programs.get("other", programs["Switchyard"]), folder, sentences)
        for number in range(1, options.rounds + 1):
            results = {}
            for dtype in options.dtypes:
                jobs = [(f"PyTorch {mode}", lambda mode=mode: measure_torch(options, dtype, mode))
                        for mode in ([] if options.other else modes[dtype])]  # fmt: skip
                for ranks in options.ranks:
                    for name, program in programs.items():
                        jobs.append((f"{name} {dtype}, {ranks} rank{'s' if ranks > 1 else ''}", lambda p=program, ranks=ranks:
                                     measure_switchyard(options, p, tokens, dtype, ranks, folder)))  # fmt: skip
                for label, job in jobs if number % 2 else reversed(jobs):  # so that each side runs first in turn
                    result = job()
                    result["tokens_per_s"] = options.batch * options.seq_len / statistics.median(result["step_s"])
                    results[label] = result
                    print(f"round {number}: {label:30} {result['tokens_per_s']:8.0f} tokens/s", file=sys.stderr, flush=True)
            rounds.append(results)
    # Rows in the order of the first round.
    rounds = [{label: r[label] for label in rounds[0]} for r in rounds]
    if options.json:
        options.json.write_text(json.dumps(dict(threads=options.threads, batch=options.batch, seq_len=options.seq_len,
                                                rounds=rounds), indent=1))
    if not print_tables(rounds, options):
        print(f"\nbelow the required ratio {options.require}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"bench_step: {failure}", file=sys.stderr)
        sys.exit(2)
