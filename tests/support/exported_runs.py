"""Small trained checkpoints of several kinds, for the tests of export and import. Needs the system's Python alone."""
import pathlib
import random
import subprocess

import numpy as np

from program import ENVIRONMENT, MPIRUN

VOCABULARY = 400

SIZES = ["--model.preset=nano", "--data.seq_len=48", "--data.global_batch=4", "--data.micro_batch=4", "--run.steps=12",
         "--optim.warmup_steps=2", "--run.hang_timeout=0", "--run.log_interval=100"]  # fmt: skip
GQA = ["--model.num_kv_heads=4", "--model.rope_theta=5000", "--model.norm_eps=1e-5"]
SWITCHING = ["--method.name=switchlora", "--method.rank=8", "--method.switch_interval=2", "--method.freeze_steps=1",
             "--method.switch_ratio=1", "--optim.lr=0.02", "--optim.dense_lr=0.005"]  # fmt: skip
KINDS = {
    "full": ["--method.name=full", "--optim.lr=0.005", *GQA, "--run.dtype=f32"],
    "full_tied": ["--method.name=full", "--optim.lr=0.005", "--model.tie_embeddings=true", "--run.dtype=f32"],
    "switch": [*SWITCHING, *GQA, "--run.dtype=f32", "--data.mask_documents=true"],
    "switch_tied": [*SWITCHING, "--model.tie_embeddings=true", "--run.dtype=f32"],
    # alpha / rank = 32 / 12 is not a finite binary fraction
    "lora": ["--method.name=lora", "--method.rank=12", "--optim.lr=0.005", "--run.dtype=f32"],
    "relora": ["--method.name=relora", "--method.rank=12", "--optim.lr=0.005", "--method.merge_interval=5", "--method.restart_warmup=1",
               "--run.dtype=f32"],
    "galore": ["--method.name=galore", "--method.rank=12", "--method.update_interval=4", *GQA, "--run.dtype=bf16"],
    "muon": ["--method.name=muon", *GQA, "--run.dtype=bf16"],
    "apollo": ["--method.name=apollo", "--method.rank=12", *GQA, "--run.dtype=bf16"],
    "dora": ["--method.name=dora", "--method.rank=6", *GQA, "--optim.lr=0.005", "--run.dtype=f32"],
    "sora": ["--method.name=sora", "--method.rank=6", "--method.threshold=40", *GQA, "--optim.lr=0.005", "--run.dtype=f32"],
    "riemannian": ["--method.name=riemannian", "--method.rank=12", "--optim.lr=0.005", "--run.dtype=f32"],
    "melora": ["--method.name=melora", "--method.rank=4", "--method.minis=4", *GQA, "--optim.lr=0.005", "--run.dtype=f32"],
    "flatlora": ["--method.name=flatlora", "--method.rank=12", "--method.noise=0.5", "--optim.lr=0.005", "--run.dtype=f32"],
    "loft": ["--method.name=loft", "--method.rank=12", "--optim.lr=0.005", "--run.dtype=f32"],
    # The first still has a part of its base after 12 steps, the second has none.
    "pclora": ["--method.name=pclora", "--method.rank=12", "--method.decay_steps=20", *GQA, "--optim.lr=0.005", "--run.dtype=f32"],
    "pclora_compressed": ["--method.name=pclora", "--method.rank=12", "--method.decay_steps=8", "--optim.lr=0.005", "--run.dtype=f32"],
    "switch_bf16": [*SWITCHING, *GQA, "--run.dtype=bf16"],
}  # fmt: skip


def sample_text(num_documents=120):
    draw = random.Random(5)
    words = "lantern river stone éclair quiet ember 1907 harbour willow drift signal copper naïve 東京 thread".split()
    return "\n\n".join(" ".join(draw.choices(words, k=draw.randint(5, 40))).capitalize() + "."
                       for _ in range(num_documents)) + "\n"  # fmt: skip


class Runs:
    """A folder with a token file and, on demand, a checkpoint of each kind."""

    def __init__(self, folder, build):
        self.folder, self.build = pathlib.Path(folder).resolve(), pathlib.Path(build).resolve()
        self.tokens = self.folder / "tokens.h5"
        (self.folder / "text.txt").write_text(sample_text(), encoding="utf-8")
        self.must("tokenize", "text.txt", f"--output={self.tokens}", f"--vocab_size={VOCABULARY}", "--validation=0.1",
                  "--quiet")  # fmt: skip

    def run(self, *arguments, ranks=1, program="switchyard", before=()):
        command = [*([*MPIRUN, "-n", str(ranks)] if ranks > 1 else []), *before, self.build / program, *arguments]
        return subprocess.run(command, cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True)

    def must(self, *arguments, **options):
        result = self.run(*arguments, **options)
        if result.returncode:
            raise AssertionError(f"switchyard {' '.join(map(str, arguments))}: {result.stdout}{result.stderr}")
        return result.stdout

    def checkpoint(self, kind):
        run = self.folder / kind
        if not run.exists():
            self.must("train", *SIZES, *KINDS[kind], f"--data.tokens={self.tokens}", f"--run.dir={run}")
        return next((run / "checkpoints").glob("*.h5"))

    def logits(self, checkpoint, ids):
        """(T, V) f64 of one sequence of token ids."""
        (self.folder / "ids.txt").write_text(" ".join(map(str, ids)))
        self.must(checkpoint, "ids.txt", "logits.f64", program="tests/checkpoint_logits")
        return np.fromfile(self.folder / "logits.f64").reshape(len(ids), -1)

    def export(self, kind, name, *options, **how):
        self.must("export", self.checkpoint(kind), name, *options, **how)
        return self.folder / name
