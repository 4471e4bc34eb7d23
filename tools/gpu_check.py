#!/usr/bin/env python3
"""What gpu_check.sh runs. Needs nothing but Python's own modules; PyTorch is compared where it can be imported.

Every check is a function that returns a line for the summary, or raises Failure. --programs=DIRECTORY and --suffix=NAME take
the programs of a build (tests: an emulated GPU); --make-references writes the CPU's numbers for a bundle.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TINY = {  # runs of tiny_state: 20 steps of each method and type
    f"{method} {dtype}": [f"--method.name={method}", f"--run.dtype={dtype}", *more]
    for method, more in (("full", []), ("lora", []), ("switchlora", ["--method.switch_interval=6", "--method.freeze_steps=3", "--method.switch_ratio=1"]))
    for dtype in ("f64", "f32")
}
TOLERANCE = {"f64": 1e-9, "f32": 1e-4}
TINY_STEPS = 20
MODEL_STEPS, MODEL_TOLERANCE = 20, 1e-3
BENCH_SEQUENCES = {512: 32, 2048: 8}  # per micro-batch: 16,384 tokens
BENCH_WARMUP, BENCH_STEPS = 3, 10


class Failure(Exception):
    pass


class Skipped(Exception):
    pass


class Machine:
    """The programs, and how they are started."""

    def __init__(self, arguments):
        self.folder, self.suffix, self.of_a_build = arguments.programs or HERE / "bin", arguments.suffix, bool(arguments.programs)
        self.references, self.tokens = arguments.references or HERE / "references.json", arguments.tokens or HERE / "tokens.h5"
        self.output, self.model = arguments.output, arguments.model
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="gpu_check."))
        self.end = time.monotonic() + arguments.limit

    def program(self, name):
        for folder in (self.folder, self.folder / "tests"):
            if (folder / (name + self.suffix)).exists():
                return folder / (name + self.suffix)
        raise Failure(f"{name}{self.suffix} is not in {self.folder} (the bundle is not whole); build it again with gpu_bundle.sh")

    def run(self, command, ranks=1, timeout=300, allowed=(0,), **environment):
        """Standard output, and error of a run that failed."""
        left = self.end - time.monotonic()
        if left < 5:
            raise Failure("no time is left (--limit)")
        if ranks > 1:
            flags = os.environ.get("GPU_CHECK_MPIRUN", "mpirun --oversubscribe --bind-to none --mca btl_vader_single_copy_mechanism none")
            command = [*flags.split(), "-n", ranks, *command]
        if "GPU_CHECK_LIBRARY_PATH" in os.environ:
            environment.setdefault("LD_LIBRARY_PATH", os.environ["GPU_CHECK_LIBRARY_PATH"])
        variables = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **environment}
        try:
            result = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace",
                                    timeout=min(timeout, left), env={**os.environ, **variables})  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failure(f"{command[0]} did not end within {min(timeout, left):.0f} s") from None
        if result.returncode not in allowed:
            tail = "\n".join((result.stdout + result.stderr).splitlines()[-12:])
            raise Failure(f"exit code {result.returncode}: {' '.join(map(str, command))}\n{tail}")
        return result.stdout

    def tiny(self, name, tp=1, ranks=1, start="-", steps=TINY_STEPS, end="-"):
        """[[step, loss, norm], ...]"""
        lines = self.run([self.program("tiny_state"), tp, start, steps, end, *TINY[name]], ranks).splitlines()
        return [[float(x) for x in line.split()] for line in lines]

    def train(self, name, **settings):
        """Lines of steps of a run's log. `name`: of the run directory, so that the same name resumes."""
        settings = {"run.dir": self.work / name, "data.tokens": self.tokens, "run.eval_interval": 0, "optim.warmup_steps": 0,
                    "optim.schedule": "constant", **settings}  # fmt: skip
        self.run([self.program("switchyard"), "train", *(f"--{key}={value}" for key, value in settings.items())])
        log = (self.work / name / "log.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, log) if "event" not in line]


def compare(ours, theirs, tolerance, what):
    """The largest relative difference; Failure beyond the tolerance or with other steps."""
    if len(ours) != len(theirs) or not ours:
        raise Failure(f"{what}: {len(ours)} numbers, the reference has {len(theirs)}")
    worst = max(abs(a - b) / max(abs(b), 1e-300) for a, b in zip(ours, theirs))
    if not worst <= tolerance:
        raise Failure(f"{what}: differs by {worst:.1e}, {tolerance:.0e} is allowed")
    return worst


def losses(steps):
    return [loss for _, loss, _ in steps]


# ---- correct ----

def check_device(machine):
    program = machine.program("switchyard")
    missing = [line.strip() for line in machine.run(["ldd", program]).splitlines() if "not found" in line]
    if missing:
        raise Failure(f"libraries are missing: {', '.join(missing)}")
    card = "emulated"
    if shutil.which("nvidia-smi"):
        card = machine.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]).strip()
    return f"{card}; {machine.run([program, '--version']).strip()}"


def check_kernels(machine):
    try:
        program = machine.program("device_tests")
    except Failure:
        if not machine.of_a_build:
            raise
        raise Skipped("no device_tests in this build: its tests are programs of their own") from None
    last = machine.run([program, "--gtest_brief=1"]).strip().splitlines()[-3:]
    return " ".join(last)


def check_selftest(machine):
    out = machine.run([machine.program("switchyard"), "selftest", "--model.preset=" + machine.model, "--run.dir=" + str(machine.work / "selftest")])
    print(out)
    return f"{sum('FAILED' in line for line in out.splitlines())} lines failed"


def check_tiny_runs(machine):
    references = json.loads(machine.references.read_text())["tiny"]
    worst = {}
    for name in TINY:
        dtype = name.split()[1]
        found = compare(losses(machine.tiny(name)), losses(references[name]), TOLERANCE[dtype], name)
        worst[dtype] = max(worst.get(dtype, 0), found)
    return "against the CPU, largest difference: " + ", ".join(f"{dtype} {x:.1e}" for dtype, x in worst.items())


def check_ranks(machine):
    """Two ranks on one GPU: their collectives go through host memory."""
    name, worst = "switchlora f64", 0
    alone = losses(machine.tiny(name))
    for tp in (1, 2):
        worst = max(worst, compare(losses(machine.tiny(name, tp, ranks=2)), alone, TOLERANCE["f64"], f"2 ranks, tp {tp}"))
    return f"2 ranks, tp 1 and 2, against 1: {worst:.1e}"


def check_restart(machine):
    """Bits: a run that is interrupted and goes on against one that is not."""
    name, folder = "switchlora f32", machine.work
    machine.tiny(name, steps=9, end=folder / "begun.h5")
    rest = machine.tiny(name, start=folder / "begun.h5", steps=11, end=folder / "resumed.h5")
    whole = machine.tiny(name, end=folder / "whole.h5")
    if rest != whole[9:]:
        raise Failure("the resumed run has other numbers than the uninterrupted one")
    machine.run([machine.program("switchyard"), "diff", folder / "whole.h5", folder / "resumed.h5"])
    return "resumed and uninterrupted runs have the same bits"


def check_model(machine):
    reference = json.loads(machine.references.read_text())["model"]
    settings = reference["settings"]
    steps = machine.train("model", **settings)
    worst = compare([s["loss"] for s in steps], reference["loss"], MODEL_TOLERANCE, settings["model.preset"])
    return f"{settings['model.preset']} in f32, {len(steps)} steps against the CPU: {worst:.1e}"


# ---- bench ----

def bench_settings(preset, length, method, machine):
    sequences = BENCH_SEQUENCES.get(length, 2)
    settings = {"model.preset": preset, "data.seq_len": length, "data.micro_batch": sequences, "data.global_batch": sequences,
                "method.name": "full" if method == "full" else "switchlora", "run.dtype": "bf16",
                "run.steps": BENCH_WARMUP + BENCH_STEPS, "run.save_interval": 0, "run.keep_last": 1}  # fmt: skip
    if method != "full":
        settings["method.rank"] = {"nano": 96, "130m": 768, "350m": 1024, "1b": 2048}[preset] // int(method.split("/")[1])
    return settings


def bench(machine, preset, length, method):
    settings = bench_settings(preset, length, method, machine)
    name = f"{preset}_{length}_{method.replace('/', '_')}"
    steps = machine.train(name, **settings)[BENCH_WARMUP:]
    shutil.rmtree(machine.work / name)
    tokens = settings["data.global_batch"] * length
    step_s = statistics.median([s["step_s"] for s in steps])
    phases = {key: statistics.median([s["phases"][key] for s in steps]) for key in steps[0]["phases"]}
    return {"model": preset, "seq_len": length, "method": method, "tokens_per_s": tokens / step_s, "step_s": step_s,
            "mfu": statistics.median([s.get("mfu", 0) or 0 for s in steps]), "phase_s": phases}  # fmt: skip


def bench_torch(machine, preset, length):
    script = HERE / "bench_torch.py"
    command = [sys.executable, script, "--device=cuda", f"--preset={preset}", f"--seq-len={length}", "--dtype=bf16-autocast",
               f"--batch={BENCH_SEQUENCES[length]}", f"--warmup={BENCH_WARMUP}", f"--steps={BENCH_STEPS}"]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=max(5, machine.end - time.monotonic()))
    if result.returncode != 0:
        raise Failure("PyTorch: " + (result.stderr.strip().splitlines() or ["failed"])[-1])
    return json.loads(result.stdout.splitlines()[-1])


def run_bench(machine, sizes, with_torch):
    """Prints a row as soon as it is measured, and returns all of them."""
    rows = []
    print(f"{'model':<8}{'length':>7}  {'program':<16}{'tokens/s':>12}{'ms a step':>11}{'MFU':>7}  phases, ms")
    for preset in sizes:
        for length in BENCH_SEQUENCES if preset != "nano" else (32,):
            for method in ("full", "switchlora/8", "switchlora/4"):
                try:
                    row = bench(machine, preset, length, method)
                except Failure as failure:
                    row = {"model": preset, "seq_len": length, "method": method, "failed": str(failure)}
                rows.append(row)
                print_row(row)
            if with_torch and preset != "nano":
                try:
                    found = bench_torch(machine, preset, length)
                    row = {"model": preset, "seq_len": length, "method": "PyTorch", "tokens_per_s": found["tokens_per_s"],
                           "step_s": statistics.median(found["step_s"]), "mfu": 0, "phase_s": {}}  # fmt: skip
                except (Failure, subprocess.TimeoutExpired) as failure:
                    row = {"model": preset, "seq_len": length, "method": "PyTorch", "failed": str(failure)}
                rows.append(row)
                print_row(row)
    return rows


def print_row(row):
    head = f"{row['model']:<8}{row['seq_len']:>7}  {row['method']:<16}"
    if "failed" in row:
        print(head + "FAILED: " + row["failed"], flush=True)
        return
    phases = ", ".join(f"{key} {1e3 * s:.1f}" for key, s in row["phase_s"].items() if s > 0)
    print(f"{head}{row['tokens_per_s']:>12,.0f}{1e3 * row['step_s']:>11.2f}{row['mfu']:>7.2f}  {phases}", flush=True)


def check_bench(machine, sizes, with_torch):
    rows = run_bench(machine, sizes, with_torch)
    failed = [row for row in rows if "failed" in row]
    (machine.output / "bench.json").write_text(json.dumps(rows, indent=1))
    if failed:
        raise Failure(f"{len(failed)} of {len(rows)} rows failed")
    return f"{len(rows)} rows, in bench.json"


# ---- more ----

def check_sanitizer(machine, tool):
    if not shutil.which("compute-sanitizer"):
        raise Skipped("compute-sanitizer is not installed here")
    chosen = "--gtest_filter=*Attention*:*Rows*:*Matmul*:*Norm*:*CrossEntropy*:-*Large*"
    out = machine.run(["compute-sanitizer", f"--tool={tool}", "--error-exitcode=9", machine.program("device_tests"), chosen])
    return (out.strip().splitlines() or ["clean"])[-1]


def check_profile(machine):
    if not shutil.which("nsys"):
        raise Skipped("nsys is not installed here")
    report = machine.output / "step"
    settings = bench_settings(machine.model, 512, "full", machine)
    settings.update({"run.dir": machine.work / "profile", "data.tokens": machine.tokens, "run.trace_steps": "5:6", "run.steps": 7,
                     "optim.warmup_steps": 0})  # fmt: skip
    machine.run(["nsys", "profile", "--capture-range=cudaProfilerApi", "-t", "cuda,nvtx", "-f", "true", "-o", report,
                 machine.program("switchyard"), "train", *(f"--{k}={v}" for k, v in settings.items())])  # fmt: skip
    print(machine.run(["nsys", "stats", "-r", "cuda_gpu_kern_sum,nvtx_sum", f"{report}.nsys-rep"]))
    return "kernels of two steps, above"


# ---- the script ----

def make_references(machine, path):
    """The CPU's numbers, by the programs of a CPU build."""
    settings = {"model.preset": machine.model, "data.seq_len": 32 if machine.model == "nano" else 128, "data.micro_batch": 2,
                "data.global_batch": 4, "method.name": "full", "run.dtype": "f32", "run.steps": MODEL_STEPS, "run.save_interval": 0}  # fmt: skip
    references = {"tiny": {name: machine.tiny(name) for name in TINY},
                  "model": {"settings": settings, "loss": [s["loss"] for s in machine.train("model", **settings)]}}  # fmt: skip
    path.write_text(json.dumps(references, indent=1))


def run_checks(checks):
    """Prints each result as it comes, then all; returns the number of failures."""
    lines, verdicts = [], []
    for name, check in checks:
        begin = time.monotonic()
        try:
            verdict, text = "ok", check()
        except Skipped as reason:
            verdict, text = "skipped", str(reason)
        except Failure as failure:
            verdict, text = "FAILED", str(failure)
        except Exception as error:  # of this script: the others are still made, and summed up
            verdict, text = "FAILED", f"{type(error).__name__}: {error}"
        verdicts.append(verdict)
        lines.append(f"{verdict:<8}{name:<14}{time.monotonic() - begin:>6.1f} s  {text}")
        print(lines[-1], flush=True)
    print("\nsummary\n" + "\n".join(line.splitlines()[0] for line in lines))
    skipped = verdicts.count("skipped")
    print(f"{verdicts.count('ok')} passed, {verdicts.count('FAILED')} failed" + (f", {skipped} skipped" if skipped else ""))
    return verdicts.count("FAILED")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in ("correct", "bench", "more"):
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--only", metavar="NAMES", help="of the checks chosen those, with commas, by the names in the summary")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("gpu_check"))
    parser.add_argument("--sizes", default="130m,350m,1b", help="models of --bench, with commas")
    parser.add_argument("--model", default="60m", help="model of the run against the CPU's numbers")
    parser.add_argument("--limit", type=float, default=540, help="seconds after which no check begins")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--programs", type=pathlib.Path)
    parser.add_argument("--suffix", default="")
    parser.add_argument("--references", type=pathlib.Path)
    parser.add_argument("--tokens", type=pathlib.Path)
    parser.add_argument("--make-references", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    machine = Machine(arguments)
    try:
        if arguments.make_references:
            make_references(machine, arguments.make_references)
            return 0
        arguments.output.mkdir(parents=True, exist_ok=True)
        checks = []
        if arguments.correct:
            checks += [("device", check_device), ("kernels", check_kernels), ("small runs", check_tiny_runs), ("ranks", check_ranks),
                       ("restart", check_restart), ("model", check_model), ("selftest", check_selftest)]  # fmt: skip
        if arguments.bench:
            checks.append(("bench", lambda m: check_bench(m, arguments.sizes.split(","), not arguments.no_torch)))
        if arguments.more:
            checks += [(tool, lambda m, tool=tool: check_sanitizer(m, tool)) for tool in ("memcheck", "racecheck", "synccheck")]
            checks.append(("profile", check_profile))
        if not checks:
            parser.error("nothing to do; give --correct, --bench or --more")
        if arguments.only:
            names = arguments.only.split(",")
            unknown = [name for name in names if name not in dict(checks)]
            if unknown:
                parser.error(f"--only names no check of those chosen: {', '.join(unknown)}; there are: {', '.join(dict(checks))}")
            checks = [(name, check) for name, check in checks if name in names]
        return 1 if run_checks([(name, lambda c=check: c(machine)) for name, check in checks]) else 0
    finally:
        shutil.rmtree(machine.work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
