#!/usr/bin/env python3
"""Sweep, seeds, table and plot of tools/compare_methods.sh.

Every method gets a 2 x 2 sweep over lr and dense_lr with seed 0; the best setting is then repeated with the other seeds,
and the table shows mean and spread of the final validation loss over seeds. Runs are in runs/compare/<name>. A finished
run is not run again; one that was cut off resumes from its checkpoint.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build/release/switchyard"
CONFIG = ROOT / "jobs/configs/compare.cfg"

# lr acts on the dense linears or the factors, dense_lr on embedding, head and norms.
SWEEP = {
    "full": {"lr": [0.001, 0.003], "dense_lr": [0.003, 0.01]},
    "lora": {"lr": [0.003, 0.01], "dense_lr": [0.003, 0.01]},
    "switchlora": {"lr": [0.01, 0.02], "dense_lr": [0.003, 0.01]},
}
EXTRA = {  # the bank is visited in about 1500 steps
    "switchlora": {"method.switch_interval": "20", "method.switch_ratio": "0.15"},
    "lora": {"method.init": "plain"},
    "full": {},
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, one thread each")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/compare")
    parser.add_argument("--output", type=pathlib.Path, default=None, help="folder of table and plot (default: --work)")
    return parser.parse_args()


class Experiment:
    def __init__(self, args, method, lr, dense_lr, seed):
        self.method, self.lr, self.dense_lr, self.seed = method, lr, dense_lr, seed
        self.dir = args.work / f"{method}_lr{lr:g}_dense{dense_lr:g}_seed{seed}_steps{args.steps}"
        self.command = [str(PROGRAM), "train", str(CONFIG), f"--method.name={method}", f"--optim.lr={lr:g}",
                        f"--optim.dense_lr={dense_lr:g}", f"--run.seed={seed}", f"--run.steps={args.steps}",
                        f"--run.dir={self.dir}", f"--data.tokens={args.work / 'tokens.h5'}"]
        self.command += [f"--{key}={value}" for key, value in EXTRA[method].items()]

    def finished(self):
        try:
            return json.loads((self.dir / "status.json").read_text())["outcome"] == "finished"
        except (OSError, ValueError, KeyError):
            return False

    def run(self, say):
        if not self.finished():
            environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1",
                               OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_hwloc_base_binding_policy="none")
            self.dir.mkdir(parents=True, exist_ok=True)
            with open(self.dir / "output.txt", "a", encoding="utf-8") as output:
                code = subprocess.run(self.command, stdout=output, stderr=subprocess.STDOUT, env=environment,
                                      stdin=subprocess.DEVNULL, check=False).returncode
            if not self.finished():
                tail = (self.dir / "output.txt").read_text(encoding="utf-8").strip().split("\n")[-3:]
                say(f"{self.dir.name}: exit code {code}: {' / '.join(tail)}")
                return None
        curve = self.curve()
        say(f"{self.dir.name}: validation loss {curve[-1][1]:.4f}")
        return curve[-1][1]

    def curve(self):
        """(step, validation loss) in order."""
        points = {}
        for line in (self.dir / "log.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry.get("val_loss") is not None:
                points[entry["step"]] = entry["val_loss"]
        return sorted(points.items())


def run_all(experiments, jobs):
    lock, done = threading.Lock(), [0]

    def say(text):
        with lock:
            done[0] += 1
            print(f"[{done[0]}/{len(experiments)}] {text}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda experiment: experiment.run(say), experiments))


def sweep_table(sweeps):
    lines = ["| method | lr | dense_lr | validation loss |", "|---|---|---|---|"]
    for experiments, losses in sweeps.values():
        for e, loss in zip(experiments, losses):
            shown = "did not finish (see output.txt of the run)" if loss is None else f"{loss:.4f}"
            lines.append(f"| {e.method} | {e.lr:g} | {e.dense_lr:g} | {shown} |")
    return lines


def final_table(best):
    lines = ["| method | lr | dense_lr | seeds | mean | lowest | highest | standard deviation |",
             "|---|---|---|---|---|---|---|---|"]
    for experiments, losses in best.values():
        e, good = experiments[0], [loss for loss in losses if loss is not None]
        spread = statistics.stdev(good) if len(good) > 1 else 0.0
        lines.append(f"| {e.method} | {e.lr:g} | {e.dense_lr:g} | {len(good)} | {statistics.mean(good):.4f} | "
                     f"{min(good):.4f} | {max(good):.4f} | {spread:.4f} |")
    return lines


def plot(best, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(figsize=(7.5, 4.8), constrained_layout=True)
    for number, (method, (experiments, losses)) in enumerate(best.items()):
        curves = [dict(e.curve()) for e, loss in zip(experiments, losses) if loss is not None]
        steps = sorted(set.intersection(*(set(c) for c in curves)))
        low = [min(c[s] for c in curves) for s in steps]
        high = [max(c[s] for c in curves) for s in steps]
        mean = [statistics.mean(c[s] for c in curves) for s in steps]
        label = f"{method} (lr {experiments[0].lr:g}, dense_lr {experiments[0].dense_lr:g})"
        axes.plot(steps, mean, color=f"C{number}", label=label)
        axes.fill_between(steps, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
    axes.set(xlabel="step", ylabel="validation loss (nats per token)", title="Mean and range over seeds, best setting of each sweep")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def main():
    args = arguments()
    sweeps, flat = {}, []
    for method, grid in SWEEP.items():
        experiments = [Experiment(args, method, lr, dense_lr, 0) for lr in grid["lr"] for dense_lr in grid["dense_lr"]]
        sweeps[method] = (experiments, [])
        flat += experiments
    results = dict(zip(flat, run_all(flat, args.jobs)))
    best, repeats = {}, []
    for method, (experiments, losses) in sweeps.items():
        losses += [results[e] for e in experiments]
        finished = [(loss, i) for i, loss in enumerate(losses) if loss is not None]
        if not finished:
            sys.exit(f"{method}: no run of the sweep finished (messages above); nothing to compare")
        chosen = experiments[min(finished)[1]]
        best[method] = ([chosen] + [Experiment(args, method, chosen.lr, chosen.dense_lr, seed)
                                    for seed in range(1, args.seeds)], [min(finished)[0]])
        repeats += best[method][0][1:]
    results = dict(zip(repeats, run_all(repeats, args.jobs)))
    for experiments, losses in best.values():
        losses += [results[e] for e in experiments[1:]]

    output = args.output or args.work
    output.mkdir(parents=True, exist_ok=True)
    text = "\n".join(["Final validation loss, best setting of each method:", "", *final_table(best), "",
                      f"Sweep (seed 0, {args.steps} steps):", "", *sweep_table(sweeps), ""])
    print("\n" + text)
    (output / "compare_methods_table.md").write_text(text, encoding="utf-8")
    plot(best, output / "compare_methods.png")
    print(f"table {output / 'compare_methods_table.md'}, plot {output / 'compare_methods.png'}")


if __name__ == "__main__":
    main()
