"""Small runs of the program for tests: tokens, settings, launches, and what a run directory says afterwards.

A test script takes --build=DIRECTORY (where the program is), --program=NAME (of another back end) and unittest's arguments.
"""
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import weakref

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 120  # for what a busy machine may delay; nothing is measured against it
MPIRUN = [os.environ.get("SWITCHYARD_MPIRUN", "mpirun")]  # CTest names that of the build's MPI library
VERSION = subprocess.run([*MPIRUN, "--version"], capture_output=True, text=True).stdout if shutil.which(MPIRUN[0]) else ""
HYDRA = "HYDRA" in VERSION  # of MPICH
if re.search("Open MPI|OpenRTE", VERSION):
    MPIRUN += ["--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
    MPIRUN += ["--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "pml", "ob1"]  # named: no search of 0.2 s
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "CUDA_EMULATION_OPEN": "5000",
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"
}  # fmt: skip



def option(name, default):
    """Takes --name=value off the command line."""
    for argument in sys.argv[1:]:
        if argument.startswith(f"--{name}="):
            sys.argv.remove(argument)
            return argument.split("=", 1)[1]
    return default


BUILD = pathlib.Path(option("build", ROOT / "build" / "release"))
TRAINER = option("program", "switchyard")  # that trains; commands are always those of `switchyard`
MODEL = {"hidden_size": 24, "num_heads": 12, "num_kv_heads": 12, "num_layers": 2, "ffn_size": 37}
TINY = {
    **{f"model.{key}": value for key, value in MODEL.items()},
    "data.seq_len": 8, "data.global_batch": 12, "data.micro_batch": 1,
    "optim.lr": 0.01, "optim.dense_lr": 0, "optim.warmup_steps": 4, "optim.weight_decay": 0.1, "optim.clip_norm": 0.5,
    "run.steps": 100000, "run.dtype": "f32", "run.peak_flops": 1e9,  # measured at every start otherwise, for 0.1 s
}  # fmt: skip
# About half of the slots are frozen on one side at any step.
SWITCHING = {"method.name": "switchlora", "method.rank": 6, "method.switch_interval": 6, "method.freeze_steps": 3}
METHODS = {"full": {"method.name": "full"}, "lora": {"method.name": "lora", "method.rank": 6}, "switchlora": SWITCHING,
           "galore": {"method.name": "galore", "method.rank": 6, "method.update_interval": 4, "optim.eps": 1e-4}}  # fmt: skip
# Where METHODS is too few: something happens every fourth step where something happens at all.
EVERY_METHOD = {
    **METHODS,
    "relora": {"method.name": "relora", "method.rank": 6, "method.merge_interval": 4, "method.restart_warmup": 1},
    "dora": {"method.name": "dora", "method.rank": 6},
    "sora": {"method.name": "sora", "method.rank": 6, "method.threshold": 9},
    "muon": {"method.name": "muon"},
    "apollo": {"method.name": "apollo", "method.rank": 6, "method.update_interval": 4, "optim.eps": 1e-4},
    "riemannian": {"method.name": "riemannian", "method.rank": 6},
    "melora": {"method.name": "melora", "method.rank": 3},
    "flatlora": {"method.name": "flatlora", "method.rank": 6, "method.noise": 0.5},
    "loft": {"method.name": "loft", "method.rank": 6},
    "pclora": {"method.name": "pclora", "method.rank": 6, "method.decay_steps": 20},
}  # fmt: skip


def method_names():
    """Of the registry, in its order."""
    return re.findall(r"^    X\((\w+)\)", (ROOT / "src/methods/registry.cpp").read_text(), re.M)


def arguments(settings):
    return [f"--{key}={value}" for key, value in settings.items()]


def switchyard(*words, **options):
    """Runs the program on one process to its end."""
    options = {"env": ENVIRONMENT, "timeout": PATIENCE_S, "capture_output": True, "text": True, **options}
    return subprocess.run([BUILD / "switchyard", *map(str, words)], **options)


def make_tokens(folder, seed=1, vocab_size=300, documents=200, tokenizer=None, validation=0.05):
    """A token file of made-up words."""
    draw = random.Random(seed)
    syllables = "ka lo mi ten sur ran vel do pi shu gar eth".split()

    def line():
        return " ".join("".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(draw.randint(3, 11))) + "."

    text = "\n\n".join("\n".join(line() for _ in range(draw.randint(1, 4))) for _ in range(documents))
    (folder / f"text{seed}.txt").write_text(text + "\n")
    path = folder / f"tokens{seed}.h5"
    source = f"--tokenizer={tokenizer}" if tokenizer else f"--vocab_size={vocab_size}"
    result = switchyard("tokenize", folder / f"text{seed}.txt", f"--output={path}", source,
                        f"--validation={validation}", "--quiet")  # fmt: skip
    assert result.returncode == 0, result.stderr
    return path


def started_by(launcher):
    """{process id: its rank, or None} of what a launcher started, up to the ranks: under Hydra a proxy stands between."""
    found = {}
    for child in map(int, pathlib.Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()):
        environment = pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [int(v.split(b"=")[1]) for v in environment if v.startswith((b"OMPI_COMM_WORLD_RANK=", b"PMI_RANK="))]
        found[child] = ranks[0] if ranks else None
        if not ranks:
            found |= started_by(child)
    return found


class Launch:
    """A training process (or mpirun) under way; its output is in `output()` at any time."""

    started = []  # by the test that is running
    signalled = False

    def __init__(self, command):
        Launch.started.append(self)
        self.stream = tempfile.TemporaryFile("w+")
        weakref.finalize(self, self.stream.close)
        self.process = subprocess.Popen(
            list(map(str, command)), env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=self.stream, stderr=subprocess.STDOUT,
            start_new_session=True
        )  # fmt: skip

    def output(self):
        self.stream.flush()
        return os.pread(self.stream.fileno(), 1 << 20, 0).decode(errors="replace")

    def running(self):
        return self.process.poll() is None

    def wait(self):
        """The exit code; a process that does not end is killed and fails the test."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {PATIENCE_S} s:\n{self.output()}") from None

    def signal(self, number):
        self.signalled = True
        self.process.send_signal(number)

    def ranks(self):
        """Process ids in rank order."""
        if self.process.args[0] != MPIRUN[0]:
            return [self.process.pid]
        return [pid for _, pid in sorted((rank, pid) for pid, rank in started_by(self.process.pid).items() if rank is not None)]

    def kill(self):
        """kill -9 of mpirun and its ranks, which have sessions of their own."""
        victims = [self.process.pid]
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            victims = [*started_by(self.process.pid), *victims]
        for victim in map(Process, victims):
            victim.signal(signal.SIGKILL)
        self.process.wait()


class Process:
    """A process that can be sent signals and never mistaken for a later one with its number."""

    def __init__(self, pid):
        self.handle = os.pidfd_open(pid)
        weakref.finalize(self, os.close, self.handle)

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)


class Run:
    """A run directory."""

    def __init__(self, path, tokens, **settings):
        self.path = pathlib.Path(path)
        self.settings = {**TINY, "data.tokens": tokens, "run.dir": self.path, **settings}
        self.environment = {}  # of the ranks, on top of ENVIRONMENT

    def start(self, ranks=1, **changes):
        """Keys as section__key. Returns a Launch."""
        settings = {**self.settings, **{key.replace("__", "."): value for key, value in changes.items()}}
        launcher = [*MPIRUN, "-n", ranks] if ranks > 1 else []
        variables = [f"{key}={value}" for key, value in self.environment.items()]
        return Launch([*launcher, "env", *variables, BUILD / TRAINER, "train", *arguments(settings)])

    def train(self, ranks=1, **changes):
        """Trains to the end: (exit code, output)."""
        launch = self.start(ranks, **changes)
        return launch.wait(), launch.output()

    def log(self, name="log.jsonl"):
        """Lines of the log as objects, without a line that is being written."""
        path = self.path / name
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def steps(self, *keys):
        """{step: values of `keys`} of the lines of steps; a step that comes twice fails."""
        found = {}
        for entry in self.log():
            if "event" not in entry:
                assert entry["step"] not in found, f"step {entry['step']} twice in the log"
                found[entry["step"]] = tuple(entry.get(key) for key in keys)
        return found

    def events(self, name):
        return [entry for entry in self.log() if entry.get("event") == name]

    def last_step(self):
        return max((entry["step"] for entry in self.log() if "event" not in entry), default=0)

    def status(self):
        return json.loads((self.path / "status.json").read_text())

    def checkpoints(self):
        """Steps of the complete checkpoints."""
        return sorted(int(p.stem.split("_")[1]) for p in (self.path / "checkpoints").glob("step_*.h5"))

    def checkpoint(self, step=None):
        return self.path / "checkpoints" / f"step_{self.checkpoints()[-1] if step is None else step:08d}.h5"

    def files(self):
        return sorted(p.name for p in (self.path / "checkpoints").iterdir())


def frozen_slots(path):
    """Freeze counters that are not zero: tables hold two pointers, then candidates and counters of A and of B."""
    frozen = 0
    with h5py.File(path) as file:
        for matrix in file["method"].values() if "method" in file else ():
            if not isinstance(matrix, h5py.Group) or "switch" not in matrix:
                continue  # of another method
            table = matrix["switch"][:]
            slots = (len(table) - 2) // 4
            frozen += np.count_nonzero(table[2 + slots : 2 + 2 * slots]) + np.count_nonzero(table[2 + 3 * slots :])
    return frozen


class Test(unittest.TestCase):
    """A folder for each test, tokens for each class."""

    @classmethod
    def setUpClass(cls):
        cls._class_folder = tempfile.TemporaryDirectory(prefix="switchyard_test.")
        cls.addClassCleanup(cls._class_folder.cleanup)
        cls.tokens = make_tokens(pathlib.Path(cls._class_folder.name))

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="switchyard_test.")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.maxDiff = 4000

    def tearDown(self):
        for launch in Launch.started:
            if launch.running():
                launch.kill()
        Launch.started.clear()

    def run_of(self, name="run", **settings):
        return Run(self.folder / name, self.tokens, **settings)

    def wait_until(self, launch, condition):
        """Waits until the condition holds; the process must still be running then."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if not launch.running():
                self.fail(f"ended with code {launch.wait()} too early:\n{launch.output()}")
            if time.monotonic() > end:
                launch.kill()
                self.fail(f"waited {PATIENCE_S} s in vain:\n{launch.output()}")
            time.sleep(0.002)

    def assert_ends(self, launch, code):
        """Hydra may return 0 once a signal went through it (4.0: one time in four), whatever the ranks return."""
        lost = HYDRA and launch.signalled and launch.process.args[0] == MPIRUN[0]
        self.assertIn(launch.wait(), (code, 0) if lost else (code,), launch.output())

    def assert_trains(self, run, code=0, ranks=1, **changes):
        """Returns the output."""
        result, output = run.train(ranks, **changes)
        self.assertEqual(result, code, output)
        return output

    def assert_verifies(self, *paths):
        result = switchyard("verify", *paths)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def assert_identical(self, a, b, recomputed=None):
        """`recomputed`: datasets whose names end so are computed from others when a file is read, and may differ by rounding."""
        result = switchyard("diff", a, b)
        lines = [line for line in result.stdout.splitlines() if not (recomputed and line.split(":")[0].endswith(recomputed))]
        self.assertIn(lines, ([], ["identical"]), result.stderr)
        self.assertIn(result.returncode, (0, 1) if recomputed else (0,), result.stderr)

    def assert_status(self, run, outcome, reason=None, step=None):
        status = run.status()
        self.assertEqual(set(status), {"outcome", "reason", "step", "time"})
        self.assertEqual(status["outcome"], outcome, status)
        if reason is not None:
            self.assertIn(reason, status["reason"])
        if step is not None:
            self.assertEqual(status["step"], step, status)
