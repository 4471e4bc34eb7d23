#!/usr/bin/python3
"""inspect, verify and diff: output and exit code; and the content of a file as h5py reads it without our code."""
import json
import pathlib
import re
import shutil
import sys
import unittest

import h5py
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

LINEARS = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
NORMS = ["input_layernorm", "post_attention_layernorm"]


def saved(test, step=5, **settings):
    run = test.run_of(f"run{len(list(test.folder.iterdir()))}", **settings)
    test.assert_trains(run, run__stop_step=step)
    return run.checkpoint(step)


class Llama:
    """The model of a file in f64, written from the equations: RMSNorm, rotary positions, softmax attention, SwiGLU."""

    def __init__(self, file):
        config = dict(re.findall(r"^(\w+) = (.*)$", file.attrs["config"].decode(), re.M))
        self.layers, self.heads = int(config["num_layers"]), int(config["num_heads"])
        self.eps, self.theta = float(config["norm_eps"]), float(config["rope_theta"])
        self.file = file["model"]

    def dense(self, name):
        return self.file[name + ".weight"][:].astype(np.float64)

    def effective(self, name):
        if name + ".lora_A" not in self.file:
            return self.dense(name)
        a, b = self.file[name + ".lora_A"], self.file[name + ".lora_B"]
        return self.dense(name) + a.attrs["scale"] * (b[:].astype(np.float64) @ a[:].astype(np.float64))

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + self.eps) * self.dense(name)

    def rotate(self, x):
        half = x.shape[-1] // 2
        angle = np.arange(x.shape[0])[:, None] * self.theta ** (-np.arange(half) / half)
        cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.concatenate([x[..., :half] * cosine - x[..., half:] * sine, x[..., half:] * cosine + x[..., :half] * sine], -1)

    def attention(self, x, name):
        q, k, v = ((x @ self.effective(f"{name}.{p}_proj").T).reshape(len(x), self.heads, -1) for p in "qkv")
        scores = np.einsum("ihd,jhd->hij", self.rotate(q), self.rotate(k)) / np.sqrt(q.shape[-1])
        scores[:, ~np.tri(len(x), dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hij,jhd->ihd", weights / weights.sum(-1, keepdims=True), v).reshape(len(x), -1)
        return mixed @ self.effective(f"{name}.o_proj").T

    def mlp(self, x, name):
        gate = x @ self.effective(f"{name}.gate_proj").T
        return (gate / (1 + np.exp(-gate)) * (x @ self.effective(f"{name}.up_proj").T)) @ self.effective(f"{name}.down_proj").T

    def loss(self, tokens, targets):
        """Sum over the targets."""
        x = self.dense("model.embed_tokens")[tokens]
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            x = x + self.attention(self.norm(x, f"{name}.input_layernorm"), f"{name}.self_attn")
            x = x + self.mlp(self.norm(x, f"{name}.post_attention_layernorm"), f"{name}.mlp")
        logits = self.norm(x, "model.norm") @ self.dense("lm_head").T
        top = logits.max(-1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(-1))
        return (log_sum - logits[np.arange(len(targets)), targets])[: len(targets)].sum()


class H5py(program.Test):
    def test_names_and_shapes(self):
        hidden, ffn, rank, vocabulary = 24, 37, 6, 300
        with h5py.File(saved(self, **program.SWITCHING)) as file:
            datasets = {}
            file.visititems(lambda name, x: datasets.update({name: x.shape}) if isinstance(x, h5py.Dataset) else None)
            attributes = dict(file.attrs)
            self.assertEqual(attributes["step"], 5)
            self.assertEqual(attributes["tokens_seen"], 5 * 12 * 8)
            self.assertEqual(attributes["dtype"], b"f32")
            self.assertIn(b"\nswitch_interval = 6\n", attributes["config"])
            self.assertEqual(file["data"].attrs["next_sample"], 60)
            with h5py.File(self.tokens) as tokens:
                for name, key in (("fingerprint", "token_fingerprint"), ("tokenizer_fingerprint",) * 2):
                    self.assertEqual(int(file["data"].attrs[key], 16), int(tokens.attrs[name]) % 2**64)
        out_in = {"mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn)}
        trained = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
        expected = {}
        for layer in ("model.layers.0.", "model.layers.1."):
            trained.update({f"{layer}{norm}.weight": (hidden,) for norm in NORMS})
            for linear in LINEARS:
                rows, cols = out_in.get(linear, (hidden, hidden))
                trained.update({f"{layer}{linear}.lora_A": (rank, cols), f"{layer}{linear}.lora_B": (rows, rank)})
                expected[f"model/{layer}{linear}.weight"] = (rows, cols)
                for name, shape in (("bank_A", (hidden, cols)), ("bank_B", (hidden, rows)), ("switch", (2 + 4 * rank,))):
                    expected[f"method/{layer}{linear}/{name}"] = shape
        for name, shape in trained.items():
            steps = (rank,) if "lora" in name else (1,)
            expected.update({f"model/{name}": shape, f"optimizer/{name}/m": shape, f"optimizer/{name}/v": shape})
            expected[f"optimizer/{name}/step"] = steps
        self.assertEqual(datasets, expected)

    def test_the_model_in_the_file_is_the_one_that_eval_runs(self):
        for method, settings in program.METHODS.items():
            path = saved(self, **settings, **{"run.dtype": "f64"})
            result = program.switchyard("eval", path, "--json")
            self.assertEqual(result.returncode, 0, result.stderr)
            evaluated = json.loads(result.stdout)
            with h5py.File(self.tokens) as tokens:
                ids = tokens["validation/tokens"][:].astype(np.int64)
            length, total = 8, 0.0
            with h5py.File(path) as file:
                model = Llama(file)
                for begin in range(0, len(ids) - 1, length):
                    part = ids[begin : begin + length + 1]
                    total += model.loss(part[: length if len(part) > length else -1], part[1:])
            self.assertEqual(evaluated["targets"], len(ids) - 1)
            # f64; sums of up to 300 terms in another order, through two layers
            self.assertAlmostEqual(evaluated["loss"], total / (len(ids) - 1), delta=1e-13 * evaluated["loss"], msg=method)

    def test_recipes_of_the_documentation(self):
        path = saved(self, **program.SWITCHING)
        recipes = re.findall(r"```python\n(.*?)```", (program.ROOT / "docs" / "checkpoints.md").read_text(), re.S)
        reading, checking = (next(r for r in recipes if word in r) for word in ("effective", "def checksum"))
        known = {}
        exec(re.sub(r'"[^"]*\.h5"', repr(str(path)), reading).replace("print(", "str("), known)
        self.assertEqual(known["effective"].shape, (24, 24))
        printed = []
        exec(checking.replace("FILE.h5", str(path)), {"print": lambda *words: printed.append(words[0])})
        self.assertEqual(printed, ["ok "] * len(printed))
        self.assertGreater(len(printed), 100)


class Commands(program.Test):
    def run_command(self, code, *words):
        result = program.switchyard(*words)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout + result.stderr

    def test_inspect(self):
        path = saved(self, **program.SWITCHING)
        text = self.run_command(0, "inspect", path)
        for line in ("step +5", "next_sample +60", "tokens_seen +480", "dtype +f32", "tp +1", "dp +1", "token_fingerprint +[0-9a-f]{16}",
                     r"/model/model.layers.0.mlp.up_proj.lora_B +f32 +37x6 +888 B",
                     r"/method/model.layers.0.mlp.up_proj/switch +i64 +26 +208 B", r"hidden_size = 24"):  # fmt: skip
            self.assertRegex(text, rf"(?m)^ *{line}$")
        self.assertIn("token file", self.run_command(0, "inspect", self.tokens))
        self.assertIn("cannot open", self.run_command(1, "inspect", self.folder / "none.h5"))
        self.assertIn("files given", self.run_command(1, "inspect"))

    def test_verify(self):
        path = saved(self, **program.METHODS["full"])
        self.assertEqual(self.run_command(0, "verify", path, self.tokens), f"{path}: verifies\n{self.tokens}: verifies\n")
        bad = self.folder / "bad.h5"
        with h5py.File(path) as file:
            place = file["optimizer/lm_head.weight/v"].id.get_offset() + 1001
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        bad.write_bytes(data)
        text = self.run_command(1, "verify", path, bad)
        self.assertIn(f"{path}: verifies\n", text)
        self.assertIn(f"{bad}: dataset /optimizer/lm_head.weight/v does not fit its checksum\n", text)
        for name, content in (("empty.h5", b""), ("text.h5", b"hello"), ("short.h5", path.read_bytes()[:-3])):
            (self.folder / name).write_bytes(content)
            self.assertIn("it is damaged, incomplete or of another kind", self.run_command(1, "verify", self.folder / name))
        self.assertIn("cannot open", self.run_command(1, "verify", self.folder / "none.h5"))
        self.assertIn("no file given", self.run_command(1, "verify"))

    def test_diff(self):
        settings = program.METHODS["lora"]
        a, same, later = saved(self, **settings), saved(self, **settings), saved(self, step=6, **settings)
        f64, full = saved(self, **settings, **{"run.dtype": "f64"}), saved(self, **program.METHODS["full"])
        self.assertEqual(self.run_command(0, "diff", a, same), "identical\n")  # run.dir and time are not content
        text = self.run_command(1, "diff", a, later)
        self.assertIn("/: attribute step is 5 in the first file, 6 in the second\n", text)
        self.assertRegex(text, r"(?m)^/model/lm_head.weight: \d+ of 7200 values differ, largest difference [\d.e-]+, relative")
        self.assertNotIn("stop_step", text)
        self.assertIn("is f32 300x24 in the first file, f64 300x24 in the second", self.run_command(1, "diff", a, f64))
        text = self.run_command(1, "diff", a, full)
        self.assertIn("/model/model.layers.0.mlp.up_proj.lora_A: only in the first file", text)
        self.assertIn("configuration, method.name: lora / full", text)
        for words in ((a,), (a, self.folder / "none.h5"), (a, self.tokens), (a, a, "--tolerance=x"), (a, a, "--tolerence=1")):
            self.run_command(2, "diff", *words)

    def test_a_loss_that_is_not_finite_is_an_error(self):
        path, stored = saved(self, **program.METHODS["full"]), self.folder / "x"
        self.run_command(0, "export", path, stored)
        data = bytearray((stored / "model.safetensors").read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        begin, end = (start + at for at in json.loads(data[8:start])["lm_head.weight"]["data_offsets"])
        values = np.frombuffer(bytes(data[begin:end]), np.float32)
        data[begin:end] = (values / np.abs(values).max() * np.float32(3e38)).tobytes()  # logits beyond f32
        (stored / "model.safetensors").write_bytes(data)
        self.run_command(0, "import", stored, f"--output={self.folder}/huge.h5", f"--data.tokens={self.tokens}", "--data.seq_len=8")
        text = self.run_command(1, "eval", self.folder / "huge.h5", "--json")
        self.assertIn("the validation loss of", text)
        self.assertNotIn("null", text)

    def test_tolerance_of_diff(self):
        """Relative to the largest value of a dataset, here 2 in the first run."""
        path = saved(self, **program.METHODS["full"])
        other = self.folder / "other.h5"
        shutil.copy(path, other)
        with h5py.File(other, "r+") as file:  # diff compares values and leaves checksums to verify
            values = file["model/lm_head.weight"][:]
            largest = float(np.abs(values).max())
            values[17, 3] += np.float32(1e-3 * largest)
            file["model/lm_head.weight"][:] = values
        self.assertIn("/model/lm_head.weight: 1 of 7200 values differ, largest difference", self.run_command(1, "diff", path, other))
        self.run_command(1, "diff", path, other, "--tolerance=0.0009")
        self.assertEqual(self.run_command(0, "diff", path, other, "--tolerance=0.0011"), "identical\n")
        with h5py.File(other, "r+") as file:
            file["model/lm_head.weight"][17, 3] = np.nan
        self.assertIn("some of them not finite", self.run_command(1, "diff", path, other, "--tolerance=0.5"))


if __name__ == "__main__":
    unittest.main()
