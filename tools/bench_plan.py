#!/usr/bin/env python3
"""Compares the predictions of `plan` with runs, in three parts; each part fails if its check does not hold.

runs      small runs on 2 and 4 ranks: bytes sent by group in every step and memory by class equal `plan` exactly
1b        preset 1b, low rank 512, 8 data-parallel ranks: switchlora's bytes and memory against full's, nothing runs
process   60m, 4 sequences of 512, full and switchlora, f32 and bf16: the process's peak less its start-up against `plan`

The last one is slower and done when asked for: --process. --only=runs, --only=1b or --only=process leaves out the others.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from bench_runs import Failure, ROOT, make_tokens, on_ranks, run

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
MIB = 1 << 20

STEPS = 12
TINY = {"model.preset": "nano", "data.seq_len": 32, "data.micro_batch": 2, "data.global_batch": 8, "run.steps": 1000,
        "run.stop_step": STEPS, "run.dtype": "bf16", "optim.warmup_steps": 2}
LAYOUTS = {  # ranks and keys
    "dp 2": (2, {}),
    "tp 2": (2, {"parallel.tp": 2}),
    "dp 2, shard_frozen": (2, {"parallel.shard_frozen": "true"}),
    "dp 2 x tp 2": (4, {"parallel.tp": 2}),
}
METHODS = {
    "full": {"method.name": "full"},
    "lora": {"method.name": "lora", "method.rank": 24},
    "switchlora, interval 40": {"method.name": "switchlora", "method.rank": 24, "method.switch_interval": 40},
    "switchlora, interval 10": {"method.name": "switchlora", "method.rank": 24, "method.switch_interval": 10},
}

LARGE = {"model.preset": "1b", "data.micro_batch": 4, "data.global_batch": 128, "run.steps": 40000, "run.dtype": "bf16"}
LARGE_SWITCHLORA = {"method.name": "switchlora", "method.rank": 512, "method.switch_interval": 40}
STATE = ("frozen", "copies", "bank", "trainable", "gradients", "moments")  # classes of weights, states and gradients

FULL_SIZE = {"model.preset": "60m", "model.vocab_size": 32100, "data.seq_len": 512, "data.micro_batch": 4,
             "data.global_batch": 4, "run.steps": 1000, "run.stop_step": 3, "optim.warmup_steps": 2}


def words_of(settings):
    return [f"--{key}={value}" for key, value in settings.items()]


def plan_of(program, settings, ranks, steps=100):
    command = [program, "plan", *words_of(settings), f"--ranks={ranks}", f"--steps={steps}", "--json"]
    return json.loads(run(command, "switchyard plan", **ENVIRONMENT))


def log_of(directory):
    """{step: its line}, and the finish event."""
    with open(directory / "log.jsonl") as file:
        lines = [json.loads(line) for line in file]
    finish = [line for line in lines if line.get("event") == "finish"]
    if len(finish) != 1:
        raise Failure(f"{directory}/log.jsonl has {len(finish)} finish events, expected one")
    return {line["step"]: line for line in lines if "event" not in line}, finish[0]


def differences(planned, measured, what):
    """A line for each difference between two {name: bytes}."""
    for name in sorted({*planned, *measured}):
        if planned.get(name, 0) != measured.get(name, 0):
            yield f"{what}, {name}: planned {planned.get(name, 0)}, measured {measured.get(name, 0)}"


def compare_run(options, folder, tokens, name, ranks, settings):
    """One run against its plan: prints a line, returns what differs."""
    settings = {**TINY, **settings, "data.tokens": tokens}
    plan = plan_of(options.switchyard, settings, ranks, STEPS)
    directory = folder / name.replace(" ", "_").replace(",", "")
    run(on_ranks(ranks, [options.switchyard, "train", *words_of(settings), f"--run.dir={directory}"]),
        f"switchyard train ({name})", **ENVIRONMENT)
    steps, finish = log_of(directory)
    if sorted(steps) != list(range(1, STEPS + 1)) or len(plan["bytes_by_step"]) != STEPS:
        raise Failure(f"{name}: steps {sorted(steps)} in the log and {len(plan['bytes_by_step'])} planned, expected {STEPS}")
    problems = []
    for step, planned in enumerate(plan["bytes_by_step"], 1):
        problems += differences(planned, steps[step]["bytes"], f"{name}, step {step}")
    problems += differences(plan["memory"], finish["memory"]["arena"], f"{name}, memory")
    sent = {}
    for line in steps.values():
        for group, count in line["bytes"].items():
            sent[group] = sent.get(group, 0) + count
    switched = sum(line["vectors_switched"] for line in steps.values())
    if "switchlora" in name and not (switched > 0 and sent.get("candidates", 0) > 0):
        problems.append(f"{name}: {switched} vectors switched, {sent.get('candidates', 0)} bytes of candidates: it shows nothing")
    if "shard_frozen" in name and "full" not in name and not sent.get("frozen"):
        problems.append(f"{name}: no frozen weight was gathered: it shows nothing")
    share = ", ".join(f"{group} {count / STEPS:.0f}" for group, count in sent.items())
    print(f"  {name:44} {'DIFFERS' if problems else 'equal':8} arena {finish['memory']['arena']['total']}; {share}", flush=True)
    return problems


def check_runs(options):
    print(f"\nsmall runs of {STEPS} steps, {TINY['run.dtype']}: memory of rank 0 and bytes it sent a step, by group, against plan")
    problems = []
    with tempfile.TemporaryDirectory(prefix="switchyard_bench_") as name:
        folder = pathlib.Path(name)
        tokens = make_tokens(options.switchyard, folder, 6000)
        for layout, (ranks, parallel) in LAYOUTS.items():
            for method, keys in METHODS.items():
                problems += compare_run(options, folder, tokens, f"{layout}, {method}", ranks, {**parallel, **keys})
    return problems


def print_large(plans):
    print(f"\n1b, low rank 512, interval 40, dp 8, {LARGE['run.dtype']}; MiB of a rank, / full's")
    print(f"  {'':30}" + "".join(f"{name:>27}" for name in plans))
    full = plans["full"]

    def row(name, value):
        base = value(full)
        cells = [(value(p) / MIB, f"{value(p) / base:.3f}" if base else "") for p in plans.values()]
        print(f"  {name:30}" + "".join(f"{mib:18.1f} {ratio:>8}" for mib, ratio in cells))

    for group in ("gradients", "values", "candidates", "moves", "frozen"):
        row(f"sent a step, {group}", lambda p, group=group: p["bytes_mean"].get(group, 0))
    row("sent a step, all", lambda p: sum(p["bytes_mean"].values()))
    for part in (*STATE, "activations", "workspace"):
        row(f"memory, {part}", lambda p, part=part: p["largest_memory"][part])
    row("weights, states, gradients", state_bytes)
    row("memory, all", lambda p: p["largest_memory"]["total"])


def state_bytes(plan):
    return sum(plan["largest_memory"][part] for part in STATE)


def check_1b(options):
    plan = lambda keys: plan_of(options.switchyard, {**LARGE, **keys}, 8)  # noqa: E731
    plans = {"full": plan({"method.name": "full"}), "switchlora": plan(LARGE_SWITCHLORA),
             "switchlora, shard_frozen": plan({**LARGE_SWITCHLORA, "parallel.shard_frozen": "true"})}
    print_large(plans)
    full, kept, sharded = plans.values()
    share = kept["parameters"]["trainable"] / full["parameters"]["trainable"]
    dense = lambda p: p["bytes_mean"]["gradients"] + p["bytes_mean"]["values"]  # noqa: E731
    extra = (kept["bytes_mean"]["candidates"] + kept["bytes_mean"]["moves"]) / dense(kept)
    memory = state_bytes(sharded) / state_bytes(full)
    print(f"  trainable / all parameters {share:.4f}; gradients and values sent {dense(kept) / dense(full):.4f} of full's; "
          f"switching {100 * extra:.2f} % more;\n  weights, states and gradients {memory:.3f} of full's with shard_frozen, "
          f"{state_bytes(kept) / state_bytes(full):.3f} without")
    problems = []
    if abs(share - 0.455) > 0.001:
        problems.append(f"1b: {share:.4f} of the parameters are trained, expected 0.455")
    # Switches move vectors between owners, so the bytes of a rank are near the mean, not equal to it.
    if abs(dense(kept) / dense(full) - share) > 0.001:
        problems.append(f"1b: {dense(kept) / dense(full):.4f} of full's gradients and values, expected {share:.4f}")
    if not 0 < extra < 0.1:
        problems.append(f"1b: switching sends {extra:.4f} of gradients and values, expected less than 0.1 and not nothing")
    if memory > 0.65:
        problems.append(f"1b: weights, states and gradients are {memory:.3f} of full's, at most 0.65 expected")
    return problems


def watched_run(command, directory):
    """Runs `command`; its peak at the end and, as far as it was seen, before its save, in bytes."""
    with open(directory.parent / "output.txt", "w+") as output:
        process = subprocess.Popen([str(c) for c in command], stdout=output, stderr=output, env={**os.environ, **ENVIRONMENT})
        before_save, status = 0, pathlib.Path(f"/proc/{process.pid}/status")
        while True:
            pid, code, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            high = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            # No file of the save existed when the peak was read, so it is the peak before the save.
            if high and not any((directory / "checkpoints").glob("step_*")):
                before_save = 1024 * int(high[0].split()[1])
            time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode != 0:
            output.seek(0)
            raise Failure(f"{' '.join(map(str, command))} failed with {process.returncode}:\n{output.read()[-2000:]}")
    return 1024 * usage.ru_maxrss, before_save


def check_process(options):
    print("\n60m, 4 x 512, 3 steps and a save: peak of the process less its start-up, over the arena that plan says; MiB")
    print(f"  {'':20} {'plan':>10} {'at the end':>10} {'excess':>8} {'before the save':>16} {'excess':>8}")
    problems = []
    with tempfile.TemporaryDirectory(prefix="switchyard_bench_") as name:
        folder = pathlib.Path(name)
        tokens = make_tokens(options.switchyard, folder, 6000)
        for dtype in ("bf16", "f32"):
            for method, keys in {"full": {"method.name": "full"},
                                 "switchlora": {"method.name": "switchlora", "method.rank": 128}}.items():
                directory = folder / f"{method}_{dtype}"
                settings = {**FULL_SIZE, **keys, "run.dtype": dtype, "data.tokens": tokens, "run.dir": directory}
                peak, before_save = watched_run([options.switchyard, "train", *words_of(settings)], directory)
                memory = log_of(directory)[1]["memory"]
                planned, grown = memory["planned"]["total"], memory["process"]
                if grown < planned:
                    problems.append(f"{method} {dtype}: the process grew by {grown} bytes, less than its arena of {planned}")
                problems += differences(memory["planned"], memory["arena"], f"{method} {dtype}, memory")
                excess, early = grown / planned - 1, (before_save - (peak - grown)) / planned - 1
                print(f"  {method + ', ' + dtype:20} {planned / MIB:10.1f} {grown / MIB:10.1f} {100 * excess:6.1f} % "
                      f"{(before_save - (peak - grown)) / MIB:16.1f} {100 * early:6.1f} %", flush=True)
                if excess > options.excess:
                    problems.append(f"{method} {dtype}: the process takes {100 * excess:.1f} % more than plan says, at most "
                                    f"{100 * options.excess:.0f} % expected")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release", help="where the program is")
    parser.add_argument("--only", choices=("runs", "1b", "process"), help="this part alone")
    parser.add_argument("--process", action="store_true", help="also the runs of 60m (minutes)")
    parser.add_argument("--excess", type=float, default=0.1, help="of the process over plan that is accepted")
    options = parser.parse_args()
    options.switchyard = options.build.resolve() / "switchyard"
    if not os.access(options.switchyard, os.X_OK):
        raise Failure(f"{options.switchyard} is missing; build it: cmake --preset release && cmake --build build/release")
    parts = [options.only] if options.only else ["runs", "1b"] + ["process"] * options.process
    checks = {"runs": check_runs, "1b": check_1b, "process": check_process}
    problems = [problem for part in parts for problem in checks[part](options)]
    for problem in problems:
        print(f"bench_plan: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"bench_plan: {failure}", file=sys.stderr)
        sys.exit(2)
