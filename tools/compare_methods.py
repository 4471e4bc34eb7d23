#!/usr/bin/env python3
"""Sweep, seeds, rows, tables and plot of tools/compare_methods.sh.

Every method gets a sweep over its rates with seed 0; the best setting is then repeated with the other seeds. What a run gave
is one row of docs/study/methods.csv, under its settings and the program's revision: a run whose row is there is not made
again, on any clone; --again makes it anew. A run that was cut off resumes from its checkpoint in runs/compare.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading

import h5py
import method_rows

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = ROOT / "jobs/configs/compare.cfg"
YARDSTICK, YARDSTICK_STEPS, PLANNED_RANKS = "full", 30, 8

# optim.lr acts on the dense linears or the factors, optim.dense_lr on embedding, head and norms.
RATES = {
    "full": [0.001, 0.003],
    "lora": [0.003, 0.01],
    "switchlora": [0.01, 0.02],
    "relora": [0.003, 0.01],
    "dora": [0.003, 0.01],
    "sora": [0.003, 0.01],
    "galore": [0.01, 0.03],
    "muon": [0.001, 0.003],
    "apollo": [0.003, 0.01],
    "riemannian": [0.001, 0.003],
    "melora": [0.001, 0.003],
    "flatlora": [0.001, 0.003],
    "pclora": [0.003, 0.01],
}
DENSE_RATES = [0.003, 0.01]
# What happens every so many steps: key, how often in a run, and the shortest interval.
INTERVALS = {"switchlora": ("switch_interval", 75, 10), "relora": ("merge_interval", 5, 1), "galore": ("update_interval", 8, 2),
             "apollo": ("update_interval", 8, 1)}
FIXED = {"switchlora": {"method.switch_ratio": "0.15"}, "relora": {"method.restart_warmup": "10"}}


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="250 steps, one dense_lr: about 20 minutes on two cores")
    parser.add_argument("--steps", type=int, help="default: 1500; with --quick 250")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(RATES), help="a list with commas")
    parser.add_argument("--again", action="store_true", help="also runs whose rows are there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, one thread each")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/switchyard")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/compare", help="runs, and tokens.h5")
    parser.add_argument("--rows", type=pathlib.Path, default=ROOT / "docs/study/methods.csv")
    parser.add_argument("--output", type=pathlib.Path, default=None, help="folder of tables and plot (default: --work)")
    args = parser.parse_args(words)
    args.methods = args.methods.split(",")
    for method in args.methods:
        if method not in RATES:
            parser.error(f"no rates are known for method '{method}' (each has its own range); choose from: {', '.join(RATES)}")
    args.steps = args.steps or (250 if args.quick else 1500)
    args.dense_rates = DENSE_RATES[-1:] if args.quick else DENSE_RATES
    return args


def run_program(program, *words, output=None):
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_hwloc_base_binding_policy="none")
    return subprocess.run([str(program), *map(str, words)], stdout=output or subprocess.PIPE, text=True, env=environment,
                          stderr=subprocess.STDOUT if output else subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)


def revision_of(program):
    """What `--version` has in brackets; "-dirty" says that the sources differ from it."""
    return run_program(program, "--version").stdout.split("(")[-1].strip(" )\n")


def fingerprint(path):
    """Of the tokens: the same text, tokenized alike, gives the same."""
    with h5py.File(path) as file:
        digest = hashlib.sha256()
        for name in sorted(file):
            if isinstance(file[name], h5py.Dataset):
                digest.update(name.encode() + file[name][()].tobytes())
    return digest.hexdigest()[:10]


class Experiment:
    def __init__(self, args, method, lr, dense_lr, seed):
        self.args, self.method = args, method
        extra = {"optim.warmup_steps": str(max(1, args.steps // 15))} | FIXED.get(method, {})
        if method in INTERVALS:
            key, times, shortest = INTERVALS[method]
            extra[f"method.{key}"] = str(max(shortest, args.steps // times))
        self.settings = {"method.name": method, "optim.lr": f"{lr:g}", "optim.dense_lr": f"{dense_lr:g}",
                         "run.seed": str(seed), "run.steps": str(args.steps), "run.eval_interval": str(max(1, args.steps // 10))} | extra
        named = "_".join(f"{key.split('.')[1]}{value}" for key, value in self.settings.items() if key not in ("method.name", "run.eval_interval"))
        self.dir = args.work / f"{method}_{named}"
        self.key = {"method": method, "lr": f"{lr:g}", "dense_lr": f"{dense_lr:g}", "seed": str(seed), "steps": str(args.steps),
                    "settings": " ".join(f"{key}={value}" for key, value in extra.items()), "config": args.config, "tokens": args.tokens}

    def words(self, settings, directory):
        return ["train", CONFIG, *(f"--{key}={value}" for key, value in settings.items()), f"--run.dir={directory}",
                f"--data.tokens={self.args.work / 'tokens.h5'}"]

    def finished(self):
        try:
            return json.loads((self.dir / "status.json").read_text())["outcome"] == "finished"
        except (OSError, ValueError, KeyError):
            return False

    def make(self):
        """Its row, or what went wrong where it did not finish."""
        slow = self.dir.with_name(f"{self.dir.name}_beside")
        if not self.finished():
            self.dir.mkdir(parents=True, exist_ok=True)
            # The yardstick of step time: some steps of `full` just before, on the same core under the same load.
            beside = {"method.name": YARDSTICK, "run.steps": str(min(YARDSTICK_STEPS, self.args.steps)), "optim.warmup_steps": "1", "run.eval_interval": "0"}
            shutil.rmtree(slow, ignore_errors=True)
            run_program(self.args.program, *self.words(beside, slow))
            with open(self.dir / "output.txt", "a", encoding="utf-8") as output:
                code = run_program(self.args.program, *self.words(self.settings, self.dir), output=output).returncode
            if not self.finished():
                tail = (self.dir / "output.txt").read_text(encoding="utf-8").strip().split("\n")[-3:]
                return f"exit code {code}: {' / '.join(tail)}"
        losses, step_s = read_log(self.dir)
        planned = ["plan", CONFIG, "--json", f"--ranks={PLANNED_RANKS}", "--data.micro_batch=2",
                   f"--data.tokens={self.args.work / 'tokens.h5'}", *(f"--{key}={value}" for key, value in self.settings.items())]
        plan = json.loads(run_program(self.args.program, *planned).stdout)
        return self.key | {
            "revision": self.args.revision,
            "val_loss": f"{losses[-1][1]:.4f}",
            "step_ratio": f"{step_s / read_log(slow)[1]:.3f}" if (slow / "log.jsonl").exists() else "",
            "trainable": str(plan["parameters"]["trainable"]),
            "sent": f"{sum(plan['bytes_mean'].values()):.0f}",
            **{f"memory_{name}": f"{plan['largest_memory'][name]:.0f}" for name in method_rows.MEMORY},
            "curve": " ".join(f"{step}:{loss:.4f}" for step, loss in losses),
        }


def read_log(directory):
    """([(step, validation loss)], median seconds of a step)."""
    losses, seconds = {}, []
    for line in (directory / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("val_loss") is not None:
            losses[entry["step"]] = entry["val_loss"]
        if "step_s" in entry:
            seconds.append(entry["step_s"])
    return sorted(losses.items()), statistics.median(seconds)


def rows_of(experiments, args, rows):
    """The row of each experiment, None where it did not finish; new ones are in the file as soon as they are known."""
    lock, done = threading.Lock(), [0]

    def one(experiment):
        row = None if args.again else rows.find(experiment.key)
        how = f"known from {row['revision']}" if row else "made"
        if row is None:
            row = experiment.make()
        with lock:
            done[0] += 1
            if isinstance(row, str):
                print(f"[{done[0]}/{len(experiments)}] {experiment.dir.name}: {row}", flush=True)
                return None
            if how == "made":
                rows.add(row)
            print(f"[{done[0]}/{len(experiments)}] {experiment.dir.name}: validation loss {row['val_loss']} ({how})", flush=True)
        return row

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        return list(pool.map(one, experiments))


def main():
    args = arguments()
    args.revision, args.tokens = revision_of(args.program), fingerprint(args.work / "tokens.h5")
    args.config = hashlib.sha256(CONFIG.read_bytes()).hexdigest()[:10]
    rows = method_rows.Rows(args.rows)
    sweep = [(m, lr, dense) for m in args.methods for lr in RATES[m] for dense in args.dense_rates]
    swept = rows_of([Experiment(args, m, lr, dense, 0) for m, lr, dense in sweep], args, rows)
    chosen = {}
    for method in args.methods:
        finished = [(rates, row) for (m, *rates), row in zip(sweep, swept) if m == method and row and float(row["val_loss"]) < float("inf")]
        if not finished:
            sys.exit(f"{method}: no run of the sweep finished (messages above); nothing to compare")
        chosen[method] = min(finished, key=lambda found: float(found[1]["val_loss"]))
    repeats = [Experiment(args, m, *chosen[m][0], seed) for m in args.methods for seed in range(1, args.seeds)]
    repeated = rows_of(repeats, args, rows)
    best = {m: [chosen[m][1]] + [row for e, row in zip(repeats, repeated) if e.method == m and row] for m in args.methods}

    output = args.output or args.work
    output.mkdir(parents=True, exist_ok=True)
    text = method_rows.tables(best, [row for row in swept if row], PLANNED_RANKS)
    print("\n" + text)
    (output / "compare_methods_table.md").write_text(text, encoding="utf-8")
    method_rows.plot(best, output / "compare_methods.png")
    print(f"rows {args.rows}, tables {output / 'compare_methods_table.md'}, plot {output / 'compare_methods.png'}")


if __name__ == "__main__":
    main()
