#!/usr/bin/env python3
"""Sweep, seeds, rows, tables and plot of tools/compare_methods.sh.

Every method gets a sweep over its rates with seed 0, widened until the best setting has a worse one on each side; the best is then
repeated with the other seeds. What a run gave is one row of docs/study/methods.csv, under its settings and the program's revision:
a run whose row is there is not made again, on any clone; --again makes it anew. A run that was cut off resumes from its checkpoint
in runs/compare. --times measures steps, on a machine that does nothing else: rows of docs/study/step_times.csv. --plans prints what
each method needs at the sizes that people train.
"""
import argparse
import concurrent.futures
import hashlib
import math
import os
import pathlib
import sys
import threading

from python_modules import need

need("h5py", "matplotlib")
import method_plans  # noqa: E402
import method_plot  # noqa: E402
import method_rows  # noqa: E402
import method_runs  # noqa: E402
from method_runs import ROOT, Experiment  # noqa: E402

# optim.lr acts on the dense linears or the factors, optim.dense_lr on embedding, head and norms. --quick takes the last two.
# `loft` moves the whole weight as AdamW would: it has the rates of `full`.
RATES = {
    "full": [0.0003, 0.001, 0.003],
    "lora": [0.001, 0.003, 0.01],
    "switchlora": [0.003, 0.01, 0.03],
    "relora": [0.001, 0.003, 0.01],
    "dora": [0.001, 0.003, 0.01],
    "sora": [0.001, 0.003, 0.01],
    "galore": [0.003, 0.01, 0.03],
    "muon": [0.0003, 0.001, 0.003],
    "apollo": [0.001, 0.003, 0.01],
    "riemannian": [0.0003, 0.001, 0.003],
    "melora": [0.001, 0.003, 0.01],
    "flatlora": [0.001, 0.003, 0.01],
    "loft": [0.0003, 0.001, 0.003],
    "pclora": [0.001, 0.003, 0.01],
}
DENSE_RATES = [0.003, 0.01]
MOST_ROUNDS = 6  # of widening


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="250 steps, two rates, one dense_lr: about 25 minutes on two cores")
    parser.add_argument("--steps", type=int, help="default: 750; with --quick 250")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(RATES), help="a list with commas")
    parser.add_argument("--again", action="store_true", help="also runs whose rows are there")
    parser.add_argument("--times", action="store_true", help="measures steps in place of training: about 10 minutes on an idle machine")
    parser.add_argument("--plans", metavar="SIZE:RANKS", nargs="?", const=method_plans.SIZES, type=method_plans.sizes,
                        help=f"prints memory, bytes and operations of each method, planned for {method_plans.SIZES} or other sizes with commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, one thread each")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/switchyard")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/compare", help="runs, and tokens.h5")
    parser.add_argument("--rows", type=pathlib.Path, default=ROOT / "docs/study/methods.csv", help="step_times.csv lies beside it")
    parser.add_argument("--output", type=pathlib.Path, default=None, help="folder of tables, plot and configurations (default: --work)")
    args = parser.parse_args(words)
    args.methods = args.methods.split(",")
    for method in args.methods:
        if method not in RATES:
            parser.error(f"no rates are known for method '{method}' (each has its own range); choose from: {', '.join(RATES)}")
    args.steps = args.steps or (250 if args.quick else 750)
    return args


def next_rate(rate, up):
    """The next of 1, 3, 10, 30, ... times a power of ten."""
    mantissa = rate / 10 ** math.floor(math.log10(rate) + 1e-9)
    third = mantissa > 2
    factor = (10 / 3 if third else 3) if up else (1 / 3 if third else 3 / 10)
    return float(f"{rate * factor:.1g}")


def neighbours(lr, dense_lr):
    return [(next_rate(lr, up), dense_lr) for up in (False, True)] + [(lr, next_rate(dense_lr, up)) for up in (False, True)]


class Study:
    def __init__(self, args):
        self.args, self.rows = args, method_rows.Rows(args.rows, method_rows.FIELDS, method_rows.SETTINGS)
        self.swept = {method: {} for method in args.methods}  # (lr, dense_lr): row, None where there is none

    def make(self, experiments):
        """The row of each experiment, None where it did not end as it should; new ones are in the file as soon as they are known."""
        lock, done = threading.Lock(), [0]

        def one(experiment):
            row = None if self.args.again else self.rows.find(experiment.key)
            how = f"known from {row['revision']}" if row else "made"
            if row is None:
                row = experiment.make()
            with lock:
                done[0] += 1
                what = f"[{done[0]}/{len(experiments)}] {experiment.dir.name}"
                if isinstance(row, str):
                    print(f"{what}: {row}", flush=True)
                    return None
                if how == "made":
                    self.rows.add(row)
                print(f"{what}: validation loss {row['val_loss']} ({how})", flush=True)
            return row

        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            return list(pool.map(one, experiments))

    def best(self, method):
        """((lr, dense_lr), row) of the lowest loss so far."""
        finite = [(rates, row) for rates, row in self.swept[method].items() if row and math.isfinite(float(row["val_loss"]))]
        if not finite:
            sys.exit(f"{method}: no run of the sweep finished (messages above); nothing to compare")
        return min(finite, key=lambda found: float(found[1]["val_loss"]))

    def sweep(self):
        quick = self.args.quick
        wanted = [(m, (lr, dense)) for m in self.args.methods for lr in RATES[m][1 if quick else 0:] for dense in DENSE_RATES[1 if quick else 0:]]
        for _ in range(1 if quick else MOST_ROUNDS + 1):
            for (method, rates), row in zip(wanted, self.make([Experiment(self.args, m, *rates, 0) for m, rates in wanted])):
                self.swept[method][rates] = row
            wanted = [(m, rates) for m in self.args.methods for rates in neighbours(*self.best(m)[0]) if rates not in self.swept[m]]
            if not wanted:
                break
        for method in self.args.methods if not quick else ():
            unknown = [f"{lr:g}/{dense:g}" for lr, dense in neighbours(*self.best(method)[0]) if not self.swept[method].get((lr, dense))]
            if unknown:
                print(f"{method}: its best lies beside lr/dense_lr that were not tried or failed: {', '.join(unknown)}", flush=True)

    def repeated(self):
        """The rows of the best setting of each method, one a seed."""
        repeats = [Experiment(self.args, m, *self.best(m)[0], seed) for m in self.args.methods for seed in range(1, self.args.seeds)]
        made = self.make(repeats)
        return {m: [self.best(m)[1]] + [row for e, row in zip(repeats, made) if e.method == m and row] for m in self.args.methods}


def write_configurations(best, folder):
    """NAME.cfg for each method: the configuration of the comparison with the best setting in it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = method_runs.CONFIG.read_text(encoding="utf-8").split("\n", 1)[1]
    for method, rows in best.items():
        row = rows[0]
        (folder / f"{method}.cfg").write_text(method_rows.configuration(text, row), encoding="utf-8")


def main():
    args = arguments()
    if args.plans:
        print(method_plans.tables(args.program, args.methods, args.plans))
        return
    args.revision, args.tokens = method_runs.revision_of(args.program), method_runs.fingerprint(args.work / "tokens.h5")
    args.config = hashlib.sha256(method_runs.CONFIG.read_bytes()).hexdigest()[:10]
    times = method_rows.Rows(args.rows.with_name("step_times.csv"), method_rows.TIMES, method_rows.TIMES[:5])
    if args.times:
        for method in args.methods:
            row = method_runs.timed(args, method, RATES[method][0], DENSE_RATES[0])
            times.add(row)
            print(f"{method}: {row['step_ratio']} of a step of {method_runs.YARDSTICK} ({row['lowest']} to {row['highest']})", flush=True)
        return
    study = Study(args)
    study.sweep()
    best = study.repeated()
    output = args.output or args.work
    output.mkdir(parents=True, exist_ok=True)
    swept = [row for rows in study.swept.values() for _, row in sorted(rows.items()) if row]
    text = method_rows.tables(best, swept, {row["method"]: row for row in times.rows if row["config"] == args.config}, method_runs.PLANNED_RANKS)
    print("\n" + text)
    (output / "compare_methods_table.md").write_text(text, encoding="utf-8")
    method_plot.plot(best, output / "compare_methods.png")
    write_configurations(best, output / "methods")
    print(f"rows {args.rows}, tables {output / 'compare_methods_table.md'}, plot {output / 'compare_methods.png'}, configurations {output / 'methods'}")


if __name__ == "__main__":
    main()
