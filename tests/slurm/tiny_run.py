"""A model that trains in a second, for tests of scripts: its text, tokens and configuration, and how to look at a run."""
import json
import os
import pathlib
import random
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STEPS = 40

CONFIG = """[model]
preset = nano
hidden_size = 24
num_layers = 2
num_heads = 4
num_kv_heads = 4
ffn_size = 48

[method]
name = switchlora
rank = 6
switch_interval = 4
freeze_steps = 1

[data]
tokens = {tokens}
seq_len = 32
micro_batch = 2
global_batch = 8

[optim]
warmup_steps = 4

[run]
dir = {folder}/unnamed   # overridden by each test
steps = {steps}
dtype = f32
peak_flops = 1e9   # not measured at every start
log_interval = 10
save_interval = 10
async_save = false   # a rank that is killed two steps later finds the file; test_background_kills.py has the other case
"""

# One thread, so that runs agree to the bit; ranks that wait give up the core; root is welcome.
MPI_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}


def make(program, folder):
    """Token file and configuration in `folder`; returns the configuration's path."""
    draw = random.Random(1)
    syllables = ["ka", "lo", "mi", "ten", "sur", "ran", "vel", "do"]
    words = lambda: " ".join("".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(60))
    text = folder / "text.txt"
    text.write_text("\n\n".join(words() for _ in range(150)))
    subprocess.run([program, "tokenize", text, f"--output={folder}/tokens.h5", "--vocab_size=300", "--validation=0.1"],
                   check=True, capture_output=True, env={**os.environ, **MPI_ENVIRONMENT})
    config = folder / "tiny.cfg"
    config.write_text(CONFIG.format(tokens=folder / "tokens.h5", folder=folder, steps=STEPS))
    return config


class Run:
    """A run directory."""

    def __init__(self, program, path):
        self.program, self.path = program, pathlib.Path(path)

    def status(self):
        try:
            return json.loads((self.path / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    def log(self):
        try:
            lines = (self.path / "log.jsonl").read_text().splitlines()
        except OSError:
            return []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                pass  # being written
        return records

    def events(self, name):
        return [r for r in self.log() if r.get("event") == name]

    def last_step(self):
        return max([r["step"] for r in self.log() if "step" in r], default=-1)

    def checkpoints(self):
        files = (self.path / "checkpoints").glob("step_*.h5")
        return sorted(files, key=lambda f: int(re.findall(r"\d+", f.name)[0]))

    def call(self, *words):
        return subprocess.run([self.program, *map(str, words)], capture_output=True, text=True,
                              env={**os.environ, **MPI_ENVIRONMENT})

    def verify_newest(self):
        return self.call("verify", self.checkpoints()[-1])

    def diff(self, other):
        return self.call("diff", self.checkpoints()[-1], other.checkpoints()[-1])
