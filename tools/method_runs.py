"""The runs of the comparison of methods: what one is started with, what it gave, and what its steps cost beside those of `full`."""
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess

import h5py
import method_rows

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = ROOT / "jobs/configs/compare.cfg"
PLANNED_RANKS = 8
# What happens every so many steps: key, how often in a run, and the shortest interval.
INTERVALS = {"switchlora": ("switch_interval", 75, 10), "relora": ("merge_interval", 5, 1), "galore": ("update_interval", 8, 2),
             "apollo": ("update_interval", 8, 1)}
# From scratch there is nothing that `pclora` could learn from a teacher.
FIXED = {"switchlora": {"method.switch_ratio": "0.15"}, "relora": {"method.restart_warmup": "10"}, "pclora": {"method.task_weight": "1"}}
YARDSTICK, TIMED_STEPS, TIMED_ROUNDS = "full", 64, 3


def run_program(program, *words, output=None):
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_hwloc_base_binding_policy="none")
    return subprocess.run([str(program), *map(str, words)], stdout=output or subprocess.PIPE, text=True, env=environment,
                          stderr=subprocess.STDOUT if output else subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)


def revision_of(program):
    """What `--version` has in brackets; "-dirty" says that the sources differ from it."""
    return run_program(program, "--version").stdout.split("(")[-1].strip(" )\n")


def fingerprint(path):
    """The token file's own, of all tokens and document boundaries: the same text, tokenized alike, gives the same wherever it lay."""
    with h5py.File(path) as file:
        return f"{int(file.attrs['fingerprint']):016x}"[:10]


def settings_of(method, steps):
    """What follows from the number of steps, and what the method needs in so short a run."""
    settings = {"optim.warmup_steps": str(max(1, steps // 15))} | FIXED.get(method, {})
    if method in INTERVALS:
        key, times, shortest = INTERVALS[method]
        settings[f"method.{key}"] = str(max(shortest, steps // times))
    return settings


def read_log(directory):
    """([(step, validation loss)], seconds of each step)."""
    losses, seconds = {}, []
    for line in (directory / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("val_loss") is not None:
            losses[entry["step"]] = entry["val_loss"]
        if "step_s" in entry:
            seconds.append(entry["step_s"])
    return sorted(losses.items()), seconds


def words(args, command, settings):
    return [command, CONFIG, *(f"--{key}={value}" for key, value in settings.items()), f"--data.tokens={args.work / 'tokens.h5'}"]


class Experiment:
    """One run. args: program, work, config and tokens (fingerprints), revision."""

    def __init__(self, args, method, lr, dense_lr, seed):
        self.args, self.method, self.rates = args, method, (lr, dense_lr)
        extra = settings_of(method, args.steps)
        self.settings = {"method.name": method, "optim.lr": f"{lr:g}", "optim.dense_lr": f"{dense_lr:g}",
                         "run.seed": str(seed), "run.steps": str(args.steps), "run.eval_interval": str(max(1, args.steps // 10))} | extra
        named = "_".join(f"{key.split('.')[1]}{value}" for key, value in self.settings.items() if key not in ("method.name", "run.eval_interval"))
        self.dir = args.work / f"{method}_{named}_{args.config}_{args.tokens}_{args.revision}"
        self.key = {"method": method, "lr": f"{lr:g}", "dense_lr": f"{dense_lr:g}", "seed": str(seed), "steps": str(args.steps),
                    "settings": " ".join(f"{key}={value}" for key, value in extra.items()), "config": args.config, "tokens": args.tokens}

    def status(self):
        try:
            return json.loads((self.dir / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    def make(self):
        """Its row, with a loss of inf where the run diverged; what went wrong where it ended otherwise."""
        if self.args.again or self.args.revision.endswith("-dirty"):  # which may be another program than the one that began
            shutil.rmtree(self.dir, ignore_errors=True)
        if self.status().get("outcome") != "finished":
            self.dir.mkdir(parents=True, exist_ok=True)
            with open(self.dir / "output.txt", "a", encoding="utf-8") as output:
                code = run_program(self.args.program, *words(self.args, "train", self.settings), f"--run.dir={self.dir}", output=output).returncode
        status = self.status()
        diverged = status.get("outcome") == "failed" and "not finite" in status.get("reason", "")
        if status.get("outcome") != "finished" and not diverged:
            tail = (self.dir / "output.txt").read_text(encoding="utf-8").strip().split("\n")[-3:]
            return f"exit code {code}: {' / '.join(tail)}"
        losses = read_log(self.dir)[0]
        plan = json.loads(run_program(self.args.program, *words(self.args, "plan", self.settings), "--json", f"--ranks={PLANNED_RANKS}",
                                      f"--steps={self.args.steps}", "--data.micro_batch=2").stdout)
        return self.key | {
            "revision": self.args.revision,
            "val_loss": "inf" if diverged else f"{losses[-1][1]:.4f}",
            "trainable": str(plan["parameters"]["trainable"]),
            "sent": f"{sum(plan['bytes_mean'].values()):.0f}",
            **{f"memory_{name}": f"{plan['largest_memory'][name]:.0f}" for name in method_rows.MEMORY},
            "curve": " ".join(f"{step}:{loss:.4f}" for step, loss in losses),
        }


def processor():
    found = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    return found[1] if found else "unknown"


def timed(args, method, lr, dense_lr):
    """The row of what a step of `method` takes, in steps of `full`, which runs before each round on the same core."""

    steps = min(TIMED_STEPS, args.steps)

    def seconds(name, directory):
        shutil.rmtree(directory, ignore_errors=True)
        settings = {"method.name": name, "optim.lr": f"{lr:g}", "optim.dense_lr": f"{dense_lr:g}", "run.steps": str(steps),
                    "run.eval_interval": "0", "run.log_interval": "1"} | settings_of(name, steps)
        result = run_program(args.program, *words(args, "train", settings), f"--run.dir={directory}")
        if result.returncode:
            raise SystemExit(f"{name}: {steps} steps ended with exit code {result.returncode}: {result.stderr.strip()[-300:]}")
        return statistics.mean(read_log(directory)[1][steps // 16:])  # refreshes and switches included, first steps not

    pairs = []
    for turn in range(TIMED_ROUNDS):  # which of the two comes first changes
        both = [(YARDSTICK, "timed_yardstick"), (method, "timed")]
        found = {folder: seconds(name, args.work / folder) for name, folder in (both if turn % 2 == 0 else both[::-1])}
        pairs.append((found["timed_yardstick"], found["timed"]))
    ratios = sorted(own / yardstick for yardstick, own in pairs)
    settings = " ".join(f"{key}={value}" for key, value in settings_of(method, steps).items())
    return {"method": method, "settings": settings, "config": args.config, "processor": processor(), "revision": args.revision,
            "step_ratio": f"{statistics.median(ratios):.3f}", "lowest": f"{ratios[0]:.3f}", "highest": f"{ratios[-1]:.3f}",
            "yardstick_ms": f"{1000 * statistics.median(pair[0] for pair in pairs):.1f}"}
