#!/usr/bin/python3
"""export and import checked without other loaders: numpy reads the safetensors by hand, h5py the checkpoint.

--build=DIRECTORY holds the program. What transformers and peft make of the files: test_export_transformers.py.
"""
import filecmp
import json
import pathlib
import shutil
import struct
import sys
import tempfile
import unittest

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
from exported_runs import KINDS, SIZES, Runs  # noqa: E402
from program import BUILD  # noqa: E402

EPS = 2.0**-24  # of f32, half a unit in the last place


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bf16_bits(values):
    """Nearest, ties to even, of finite f32 values."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    result = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        raw = data[8 + length :][slice(*entry["data_offsets"])]
        kind = {"F32": "<f4", "BF16": "<u2"}[entry["dtype"]]
        result[name] = np.frombuffer(raw, kind).reshape(entry["shape"])
    return result


def write_safetensors(path, tensors, dtype):
    header, offset = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for v in tensors.values()))


def read_directory(path):
    index = path / "model.safetensors.index.json"
    if not index.exists():
        return read_safetensors(path / "model.safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    result = {}
    for file in sorted(set(weight_map.values())):
        tensors = read_safetensors(path / file)
        assert set(tensors) == {n for n, f in weight_map.items() if f == file}
        result |= tensors
    return result


def read_checkpoint(path):
    """(tensors of /model, scales of the factors)"""
    with h5py.File(path) as file:
        model = {name: item[()] for name, item in file["model"].items()}
        scales = {n[:-7]: float(i.attrs["scale"]) for n, i in file["model"].items() if n.endswith(".lora_A")}
    return model, scales


class Export(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.runs = Runs(cls.temporary.name, BUILD)
        cls.folder = cls.runs.folder

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def expect_error(self, *arguments, says, output=None, **options):
        result = self.runs.run(*arguments, **options)
        self.assertNotEqual(result.returncode, 0, result.stdout)
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, result.stderr)
        if output:
            self.assertFalse((self.folder / output).exists(), f"{output} is left behind")
            self.assertFalse((self.folder / (output + ".partial")).exists(), f"{output}.partial is left behind")

    def copy(self, source, name):
        shutil.copytree(self.folder / source, self.folder / name)
        return self.folder / name

    def once(self, kind, name, *options):
        return self.folder / name if (self.folder / name).exists() else self.runs.export(kind, name, *options)

    def test_whole_weights_are_the_checkpoints_bits(self):
        for kind in ("full", "full_tied", "galore", "muon", "apollo"):
            exported = read_directory(self.once(kind, f"out_{kind}"))
            model, scales = read_checkpoint(self.runs.checkpoint(kind))
            self.assertEqual(scales, {})
            self.assertEqual(sorted(exported), sorted(model))
            self.assertEqual("lm_head.weight" in exported, kind != "full_tied")
            for name, values in model.items():
                self.assertEqual(exported[name].tobytes(), values.tobytes(), name)

    def test_factors_are_merged_in_full_precision(self):
        for kind in ("switch", "switch_tied", "lora", "relora", "riemannian", "flatlora", "loft", "switch_bf16"):
            exported = read_directory(self.once(kind, f"out_{kind}"))
            model, scales = read_checkpoint(self.runs.checkpoint(kind))
            self.assertEqual(len(scales), 14)
            self.assertEqual(sorted(exported), sorted(n for n in model if n.endswith(".weight")))
            for name, values in exported.items():
                module = name.removesuffix(".weight")
                if module not in scales:
                    self.assertEqual(values.tobytes(), model[name].tobytes(), name)
                    continue
                a, b = model[module + ".lora_A"], model[module + ".lora_B"]
                if kind == "switch_bf16":  # products used the rounded factors
                    a, b = (bf16_to_f32(to_bf16_bits(x)) for x in (a, b))
                product = scales[module] * (b.astype(np.float64) @ a.astype(np.float64))
                self.assertGreater(np.abs(product).max(), 1e-4)
                # One rounding to f32; k = 1.01 leaves room for the sums' f64 roundings.
                difference = np.abs(values - (model[name].astype(np.float64) + product))
                self.assertLessEqual(difference.max(), 1.01 * EPS * np.abs(values).max(), name)

    def test_adapters(self):
        for kind in ("lora", "relora", "riemannian", "flatlora", "loft", "switch", "switch_bf16"):
            folder = self.once(kind, f"adapters_{kind}", "--adapters")
            self.assertEqual(sorted(p.name for p in folder.iterdir()), ["adapter", "base"])
            model, scales = read_checkpoint(self.runs.checkpoint(kind))
            base = read_directory(folder / "base")
            for name, values in base.items():
                self.assertEqual(values.tobytes(), model[name].tobytes(), name)
            adapter = read_safetensors(folder / "adapter" / "adapter_model.safetensors")
            config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
            self.assertEqual(config["base_model_name_or_path"], str(folder / "base"))
            self.assertEqual(len(adapter), 28)
            for name, values in adapter.items():
                module, factor, weight = name.removeprefix("base_model.model.").rsplit(".", 2)
                self.assertEqual(weight, "weight")
                self.assertIn(module.rsplit(".", 1)[1], config["target_modules"])
                expected = model[f"{module}.{factor}"]
                if kind == "switch_bf16":
                    expected = bf16_to_f32(to_bf16_bits(expected))
                self.assertEqual(values.tobytes(), expected.tobytes(), name)
                self.assertEqual(config["lora_alpha"] / config["r"], scales[module])
        self.expect_error("export", self.runs.checkpoint("full"), "none", "--adapters", says="no low-rank factors",
                          output="none")  # fmt: skip
        self.expect_error("export", self.runs.checkpoint("galore"), "none", "--adapters", output="none",
                          says=["trained by method.name = galore", "no adapter is left"])  # fmt: skip

    def test_magnitudes_of_rows(self):
        """DoRA: whole weights have rows of the norms that the run trained; PEFT's adapter holds these norms."""
        model, scales = read_checkpoint(self.runs.checkpoint("dora"))
        merged = read_directory(self.runs.export("dora", "out_dora"))
        folder = self.runs.export("dora", "adapters_dora", "--adapters")
        base = read_directory(folder / "base")
        adapter = read_safetensors(folder / "adapter" / "adapter_model.safetensors")
        self.assertTrue(json.loads((folder / "adapter" / "adapter_config.json").read_text())["use_dora"])
        self.assertEqual(len(adapter), 3 * len(scales))
        for module, scale in scales.items():
            a, b, magnitude = (model[f"{module}.{part}"] for part in ("lora_A", "lora_B", "lora_magnitude"))
            stem = "base_model.model." + module
            for name, values in ((".lora_A.weight", a), (".lora_B.weight", b), (".lora_magnitude_vector", magnitude)):
                self.assertEqual(adapter[stem + name].tobytes(), values.tobytes(), stem + name)
            self.assertEqual(base[module + ".weight"].tobytes(), model[module + ".weight"].tobytes())
            sum_ = model[module + ".weight"].astype(np.float64) + scale * (b.astype(np.float64) @ a.astype(np.float64))
            norms = np.sqrt((sum_**2).sum(axis=1))
            self.assertGreater(np.abs(norms / magnitude - 1).max(), 1e-3)  # training has changed the function
            expected = sum_ * (magnitude / norms)[:, None]
            # The norms were computed in f32, from sums of up to 260 products: k = 16.
            difference = np.abs(merged[module + ".weight"] - expected).max()
            self.assertLessEqual(difference, 16 * EPS * np.abs(expected).max(), module)

    def test_minis_are_merged_where_they_belong(self):
        """MELoRA: the columns of block i of A with the rows of block i of B, and nothing beside the diagonal."""
        model, scales = read_checkpoint(self.runs.checkpoint("melora"))
        merged = read_directory(self.runs.export("melora", "out_melora"))
        for module, scale in scales.items():
            a, b = (model[f"{module}.{part}"].astype(np.float64) for part in ("lora_A", "lora_B"))
            weight = model[module + ".weight"].astype(np.float64)
            (m, _), (_, n), k = b.shape, a.shape, 4
            product = np.zeros((m, n))
            for i in range(k):
                rows, columns = slice(i * m // k, (i + 1) * m // k), slice(i * n // k, (i + 1) * n // k)
                product[rows, columns] = scale * b[rows] @ a[:, columns]
            self.assertGreater(np.abs(product).max(), 1e-4)
            difference = np.abs(merged[module + ".weight"] - (weight + product)).max()
            self.assertLessEqual(difference, 1.01 * EPS * np.abs(merged[module + ".weight"]).max(), module)
        self.expect_error("export", self.runs.checkpoint("melora"), "none", "--adapters", output="none",
                          says=["trained by method.name = melora", "PEFT has no adapter of minis"])  # fmt: skip

    def test_biases_and_what_is_left_of_the_base(self):
        """PC-LoRA: the weight counts by its factor, in base/ too, and biases are where config.json says."""
        for kind, factor in (("pclora", 1 - 12 / 20), ("pclora_compressed", 0)):
            model, scales = read_checkpoint(self.runs.checkpoint(kind))
            merged = read_directory(self.runs.export(kind, f"out_{kind}"))
            folder = self.runs.export(kind, f"adapters_{kind}", "--adapters")
            base = read_directory(folder / "base")
            adapter = read_safetensors(folder / "adapter" / "adapter_model.safetensors")
            for directory in (self.folder / f"out_{kind}", folder / "base"):
                config = json.loads((directory / "config.json").read_text())
                self.assertTrue(config["attention_bias"] and config["mlp_bias"])
            self.assertEqual((len(scales), len(adapter)), (14, 28))
            for module, scale in scales.items():
                a, b, bias = (model[f"{module}.{part}"] for part in ("lora_A", "lora_B", "lora_bias"))
                self.assertGreater(np.abs(bias).max(), 1e-4)
                kept = factor * model[module + ".weight"].astype(np.float64)
                expected = kept + scale * (b.astype(np.float64) @ a.astype(np.float64))
                difference = np.abs(merged[module + ".weight"] - expected).max()
                self.assertLessEqual(difference, 1.01 * EPS * np.abs(expected).max(), module)
                self.assertLessEqual(np.abs(base[module + ".weight"] - kept).max(), 1.01 * EPS * np.abs(kept).max())
                for part, values in (("lora_A", a), ("lora_B", b)):
                    theirs = adapter[f"base_model.model.{module}.{part}.weight"]
                    self.assertEqual(theirs.tobytes(), values.tobytes())
                for directory in (merged, base):
                    self.assertEqual(directory[module + ".bias"].tobytes(), bias.tobytes())
            self.assertEqual(sorted(merged), sorted(base))
        self.expect_error("train", *SIZES, *KINDS["lora"], f"--data.tokens={self.runs.tokens}", "--run.dir=unstarted",
                          f"--run.init_from={self.runs.checkpoint('pclora_compressed')}",
                          says=["trained by method.name = pclora", "bias"])  # fmt: skip

    def test_closed_slots_are_left_out(self):
        """SoRA: the adapter has the slots with open gates, B times the gate, and gives the weights of the whole product."""
        model, scales = read_checkpoint(self.runs.checkpoint("sora"))
        merged = read_directory(self.runs.export("sora", "out_sora"))
        folder = self.runs.export("sora", "adapters_sora", "--adapters")
        adapter = read_safetensors(folder / "adapter" / "adapter_model.safetensors")
        config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        closed = 0
        for module, scale in scales.items():
            a, b, gate = (model[f"{module}.{part}"].astype(np.float64) for part in ("lora_A", "lora_B", "lora_gate"))
            is_open = gate != 0
            closed += int((~is_open).sum())
            weight = model[module + ".weight"].astype(np.float64)
            expected = weight + scale * (b * gate) @ a
            difference = np.abs(merged[module + ".weight"] - expected).max()
            self.assertLessEqual(difference, 1.01 * EPS * np.abs(expected).max(), module)
            stem = "base_model.model." + module
            kept = max(1, is_open.sum())  # a module without an open slot has one, whose B is zero
            theirs = [adapter[f"{stem}.{part}.weight"] for part in ("lora_A", "lora_B")]
            self.assertEqual((theirs[0].shape[0], theirs[1].shape[1]), (kept, kept))
            r, alpha = config["rank_pattern"].get(module, config["r"]), config["alpha_pattern"].get(module, config["lora_alpha"])
            self.assertEqual(r, kept)
            pruned = weight + alpha / r * theirs[1].astype(np.float64) @ theirs[0].astype(np.float64)
            self.assertLessEqual(np.abs(pruned - expected).max(), 2 * EPS * np.abs(expected).max(), module)
        self.assertGreater(closed, 10)
        self.assertLess(closed, 6 * len(scales) - 10)

    def test_configuration_and_tokenizer(self):
        folder = self.once("switch", "out_switch")
        config = json.loads((folder / "config.json").read_text())
        expected = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=96, intermediate_size=260,
                        num_hidden_layers=2, num_attention_heads=12, num_key_value_heads=4, head_dim=8, vocab_size=400,
                        rms_norm_eps=1e-5, rope_theta=5000.0, tie_word_embeddings=False, max_position_embeddings=48,
                        dtype="float32", torch_dtype="float32", bos_token_id=2, eos_token_id=2)  # fmt: skip
        self.assertEqual({key: config.get(key) for key in expected}, expected)
        self.assertEqual(config["rope_parameters"], {"rope_type": "default", "rope_theta": 5000.0})
        with h5py.File(self.runs.tokens) as file:
            self.assertEqual((folder / "tokenizer.model").read_bytes(), file["tokenizer/model"][:].tobytes())
        # Documents are masked in this run, so its texts do not follow the end token; in the other they do.
        for kind, begins in (("switch", False), ("full", True)):
            tokenizer = json.loads((self.once(kind, f"out_{kind}") / "tokenizer_config.json").read_text())
            self.assertEqual((tokenizer["bos_token"], tokenizer["add_bos_token"]), ("</s>", begins))
        tied = json.loads((self.once("full_tied", "out_full_tied") / "config.json").read_text())
        self.assertTrue(tied["tie_word_embeddings"])

    def test_shards_and_ranks_change_nothing(self):
        whole = read_directory(self.once("switch", "out_switch"))
        for ranks in (1, 3):
            folder = self.runs.export("switch", f"shards_{ranks}", "--max_shard_size=100KB", "--adapters", ranks=ranks)
            files = sorted((folder / "base").glob("model-*.safetensors"))
            self.assertGreater(len(files), 5)
            sizes = [sum(v.nbytes for v in read_safetensors(f).values()) for f in files]
            for file, size in zip(files, sizes):
                self.assertTrue(size <= 100_000 or len(read_safetensors(file)) == 1, file)
            index = json.loads((folder / "base" / "model.safetensors.index.json").read_text())
            self.assertEqual(index["metadata"]["total_size"], sum(sizes))
            self.assertEqual(sorted(read_directory(folder / "base")), sorted(whole))
        for name in ("base", "adapter"):
            compared = filecmp.dircmp(self.folder / "shards_1" / name, self.folder / "shards_3" / name)
            self.assertEqual(compared.left_only + compared.right_only, [])
            different = [f for f in compared.common_files
                         if not filecmp.cmp(*(self.folder / s / name / f for s in ("shards_1", "shards_3")), shallow=False)]
            self.assertEqual(different, ["adapter_config.json"] if name == "adapter" else [])  # it has the path of its base

    def test_bf16(self):
        wide = read_directory(self.once("switch", "out_switch"))
        narrow = read_directory(self.runs.export("switch", "narrow", "--dtype=bf16"))
        for name, values in wide.items():
            self.assertEqual(narrow[name].tobytes(), to_bf16_bits(values).tobytes(), name)
        self.assertEqual(json.loads((self.folder / "narrow/config.json").read_text())["dtype"], "bfloat16")
        self.runs.must("import", "narrow", "--output=narrow.h5")
        with h5py.File(self.folder / "narrow.h5") as file:
            self.assertEqual(file.attrs["dtype"].decode(), "bf16")
            for name, bits in narrow.items():
                self.assertEqual(file["model"][name][()].tobytes(), bf16_to_f32(bits).tobytes(), name)

    def test_round_trip_keeps_every_bit(self):
        for kind in ("full_tied", "switch"):
            first = self.once(kind, f"out_{kind}")
            self.runs.must("import", first, f"--output=trip_{kind}.h5", f"--data.tokens={self.runs.tokens}")
            self.assertIn("verifies", self.runs.must("verify", f"trip_{kind}.h5"))
            self.runs.must("export", f"trip_{kind}.h5", f"trip_{kind}")
            second = self.folder / f"trip_{kind}"
            for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.model"):
                self.assertEqual((first / name).read_bytes(), (second / name).read_bytes(), name)

    def loss(self, *arguments, **options):
        return json.loads(self.runs.must("eval", *arguments, "--json", **options))["loss"]

    def test_imported_models_compute_the_same(self):
        self.runs.must("import", self.once("full", "out_full"), "--output=full.h5", f"--data.tokens={self.runs.tokens}")
        self.assertEqual(self.loss("full.h5", "--data.micro_batch=4"), self.loss(self.runs.checkpoint("full")))
        self.assertEqual(self.loss("full.h5", "--data.micro_batch=4", ranks=2),
                         self.loss(self.runs.checkpoint("full"), ranks=2))  # fmt: skip
        # Merged, the sums are formed in another order: sqrt(n = 96) eps of f32, k = 20 layers' worth of them.
        self.runs.must("import", self.once("switch", "out_switch"), "--output=switch.h5", "--data.mask_documents=true")
        merged, apart = self.loss("switch.h5", f"--data.tokens={self.runs.tokens}"), self.loss(self.runs.checkpoint("switch"))
        self.assertLess(abs(merged / apart - 1), 20 * 96**0.5 * 2 * EPS)

    def test_a_run_starts_from_an_imported_model(self):
        self.runs.must("import", self.once("full", "out_full"), "--output=start.h5")
        model = ["--model.num_kv_heads=4", "--model.rope_theta=5000", "--model.norm_eps=1e-5"]
        run = ["train", *model, "--run.init_from=start.h5", f"--data.tokens={self.runs.tokens}", "--data.seq_len=48",
               "--data.global_batch=4", "--run.steps=2", "--optim.warmup_steps=0", "--run.hang_timeout=0", "--optim.lr=1e-9", "--optim.dense_lr=0",
               "--method.name=switchlora", "--method.rank=8", "--run.eval_interval=2", "--run.dir=from", "--run.dtype=f32"]
        self.runs.must(*run)
        lines = [json.loads(line) for line in (self.folder / "from/log.jsonl").read_text().splitlines()]
        loss = next(line["val_loss"] for line in lines if "val_loss" in line)
        self.assertLess(abs(loss / self.loss(self.runs.checkpoint("full")) - 1), 1e-4)  # two steps of rate 1e-9
        self.expect_error(*run, "--run.dir=from_other", "--model.num_kv_heads=12", says="model.num_kv_heads is 4 there")

    def test_halves_are_read_exactly(self):
        folder = self.copy(self.once("full", "out_full").name, "halves")
        tensors = {n: v.astype(np.float16) for n, v in read_directory(folder).items()}
        write_safetensors(folder / "model.safetensors", tensors, "F16")
        self.runs.must("import", "halves", "--output=halves.h5")
        with h5py.File(self.folder / "halves.h5") as file:
            self.assertEqual(file.attrs["dtype"].decode(), "f32")
            for name, values in tensors.items():
                self.assertEqual(file["model"][name][()].tobytes(), values.astype(np.float32).tobytes(), name)

    def test_tensors_that_do_not_fit_are_named(self):
        good = read_directory(self.once("full", "out_full"))
        folder = self.copy("out_full", "wrong")
        q = "model.layers.1.self_attn.q_proj.weight"
        cases = {
            "missing": ({n: v for n, v in good.items() if n not in (q, "model.norm.weight")},
                        ["lacks 2 tensors ", f'"{q}"', '"model.norm.weight"']),
            "surplus": (good | {"model.layers.0.self_attn.q_proj.bias": good["model.norm.weight"]},
                        ["1 tensor too many", '"model.layers.0.self_attn.q_proj.bias"']),
            "layer": (good | {"model.layers.2.input_layernorm.weight": good["model.norm.weight"]},
                      ["1 tensor too many", "layers.2"]),
            "shape": (good | {q: good[q][:, :-1].copy()}, [f'"{q}"', "96x95", "96x96"]),
            "order": (good | {q: good[q].reshape(9216)}, [f'"{q}"', "9216", "96x96"]),
        }  # fmt: skip
        for case, (tensors, says) in cases.items():
            write_safetensors(folder / "model.safetensors", tensors, "F32")
            with self.subTest(case):
                self.expect_error("import", "wrong", "--output=wrong.h5", says=says, output="wrong.h5")
        doubles = {n: v.astype(np.float64) for n, v in good.items()}
        write_safetensors(folder / "model.safetensors", doubles, "F64")
        self.expect_error("import", "wrong", "--output=wrong.h5", says="type F64", output="wrong.h5")
        for value in (np.nan, np.inf):
            write_safetensors(folder / "model.safetensors", good | {q: np.where(good[q] == good[q].max(), value, good[q])}, "F32")
            self.expect_error("import", "wrong", "--output=wrong.h5", says=[f'"{q}"', "not finite"], output="wrong.h5")
        (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
        self.expect_error("import", "wrong", "--output=wrong.h5", says=["Git LFS", "git lfs pull"], output="wrong.h5")
        self.expect_error("import", "out_full", "--output=no/x.h5", says="folder `no` does not exist")
        whole = (self.folder / "out_full/model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        self.expect_error("import", "wrong", "--output=wrong.h5", says="truncated", output="wrong.h5")

    def test_finding_15_equal_copies_are_accepted(self):
        """A tied head stored beside the embedding, or instead of it; tables of angles; the names that early converters wrote."""
        good = read_directory(self.once("full_tied", "out_full_tied"))
        folder = self.copy("out_full_tied", "copies")
        config = json.loads((folder / "config.json").read_text())
        embedding = good["model.embed_tokens.weight"]
        old = {"architectures": ["LLaMAForCausalLM"], "max_sequence_length": 2048, "pad_token_id": -1,
               "torch_dtype": "float16", "transformers_version": "4.27.0.dev0", "pretraining_tp": 1}  # fmt: skip
        left_out = ("dtype", "rope_parameters", "head_dim", "num_key_value_heads", "max_position_embeddings", "mlp_bias")
        (folder / "config.json").write_text(json.dumps({k: v for k, v in (config | old).items() if k not in left_out}))
        angles = 10000.0 ** (-np.arange(0, 8, 2) / 8)
        tables = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": angles.astype(np.float32) for i in range(2)}
        apart = {n: v for n, v in good.items() if n != "model.embed_tokens.weight"}
        expected = self.loss(self.runs.checkpoint("full_tied"), "--data.micro_batch=4")
        cases = {"both": good | {"lm_head.weight": embedding}, "head": apart | {"lm_head.weight": embedding}, "tables": good | tables}
        for case, tensors in cases.items():
            with self.subTest(case):
                write_safetensors(folder / "model.safetensors", tensors, "F32")
                result = self.runs.run("import", "copies", f"--output={case}.h5", f"--data.tokens={self.runs.tokens}",
                                       "--data.seq_len=48")  # fmt: skip
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertEqual(self.loss(f"{case}.h5", "--data.micro_batch=4"), expected)
        other = embedding.copy()
        other[7, 5] = np.nextafter(other[7, 5], np.float32(1))
        write_safetensors(folder / "model.safetensors", good | {"lm_head.weight": other}, "F32")
        self.expect_error("import", "copies", "--output=other_head.h5", output="other_head.h5",
                          says=['"lm_head.weight" differs', f"value {7 * 96 + 5}", "tie_word_embeddings"])  # fmt: skip
        tables["model.layers.0.self_attn.rotary_emb.inv_freq"] = (5000.0 ** (-np.arange(0, 8, 2) / 8)).astype(np.float32)
        write_safetensors(folder / "model.safetensors", good | tables, "F32")
        result = self.runs.run("import", "copies", "--output=other_angles.h5")
        self.assertEqual(result.returncode, 0, result.stderr)
        for part in ("warning", "layers.0.self_attn.rotary_emb.inv_freq", "rope_theta = 10000"):
            self.assertIn(part, result.stderr)

    def test_an_adapter_on_top_is_not_forgotten(self):
        adapted = self.copy(self.once("full", "out_full").name, "adapted")
        (adapted / "adapter_config.json").write_text("{}")
        self.expect_error("import", "adapted", "--output=adapted.h5", says=["adapter_config.json", "merge"], output="adapted.h5")

    def test_unsupported_models_leave_nothing(self):
        """All refusals: tests/io/hugging_face/test_hugging_face.cpp."""
        folder = self.copy(self.once("full", "out_full").name, "unsupported")
        config = json.loads((folder / "config.json").read_text())
        scaling = {"rope_type": "llama3", "factor": 8.0}
        for key, value, says in (("rope_scaling", scaling, ["rope_scaling", "llama3"]), ("num_hidden_layers", 10**9, "layers"),
                                 ("hidden_size", 100, "model.hidden_size"), ("num_key_value_heads", 5, "num_kv_heads")):  # fmt: skip
            (folder / "config.json").write_text(json.dumps(config | {key: value}))
            with self.subTest(key):
                self.expect_error("import", "unsupported", "--output=no.h5", says=says, output="no.h5")

    def test_nothing_is_overwritten_and_nothing_half_left(self):
        folder = self.once("full", "out_full")
        before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
        for ranks in (1, 2):
            self.expect_error("export", "full", "out_full", says="nothing is overwritten", ranks=ranks)
        self.assertEqual(before, sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir()))
        self.assertFalse((self.folder / "out_full.partial").exists())
        (self.folder / "cut_off.partial").mkdir()
        self.expect_error("export", "full", "cut_off", says=["cut_off.partial", "was cut off"])
        self.assertTrue((self.folder / "cut_off.partial").exists())
        self.expect_error("export", "full", "missing/out", says="cannot make", output="missing/out")
        limit = ["bash", "-c", 'ulimit -f 200; exec "$@"', "-"]  # 200 KiB per file, like a full disk
        self.expect_error("export", "full", "too_large", says=["cannot write", "too_large"], output="too_large",
                          before=limit)  # fmt: skip
        self.expect_error("import", "out_full", "--output=full/config.cfg", says="nothing is overwritten")
        self.expect_error("import", "out_full", "--output=large.h5", says=["large.h5", "files are limited"], output="large.h5",
                          before=limit)  # fmt: skip

    def test_a_damaged_checkpoint_ends_all_ranks(self):
        path = self.folder / "damaged.h5"
        shutil.copy(self.runs.checkpoint("full"), path)
        with h5py.File(path) as file:  # in the last tensor of the last file, which a single rank reads
            place = file["model/model.norm.weight"].id.get_offset()
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        for ranks in (1, 3):
            self.expect_error("export", path, "damaged", "--max_shard_size=100KB", says="model.norm.weight", ranks=ranks,
                              output="damaged")  # fmt: skip

    def test_the_tokenizer_may_have_moved(self):
        hidden = self.folder / "elsewhere.h5"
        self.runs.checkpoint("full")
        self.runs.tokens.rename(hidden)
        try:
            self.expect_error("export", "full", "moved", says=["tokens.h5", "--data.tokens", "--no_tokenizer"], output="moved")
            self.runs.must("export", "full", "moved", "--data.tokens=elsewhere.h5")
            self.runs.must("export", "full", "bare", "--no_tokenizer")
        finally:
            hidden.rename(self.runs.tokens)
        self.assertTrue((self.folder / "moved/tokenizer.model").exists())
        self.assertFalse((self.folder / "bare/tokenizer.model").exists())
        self.assertIsNone(json.loads((self.folder / "bare/config.json").read_text())["eos_token_id"])
        self.expect_error("import", "bare", "--output=bare.h5", says=["tokenizer.model", "--data.tokens"], output="bare.h5")
        self.runs.must("import", "bare", "--output=bare.h5", f"--data.tokens={self.runs.tokens}")
        self.runs.must("tokenize", "text.txt", "--output=other.h5", "--vocab_size=390", "--quiet")
        self.expect_error("export", "full", "other", "--data.tokens=other.h5", says="a different tokenizer", output="other")
        self.expect_error("import", "moved", "--output=other_import.h5", "--data.tokens=other.h5", says="a different tokenizer",
                          output="other_import.h5")  # fmt: skip

    def test_options_are_checked(self):
        self.runs.checkpoint("full")
        for arguments, says in (
            (["export", "full"], "1 files given"),
            (["export", "full", "x", "--dtype=f16"], "--dtype=f16"),
            (["export", "full", "x", "--max_shard_size=big"], "--max_shard_size"),
            (["export", "full", "x", "--max_shard_size=0"], "--max_shard_size"),
            (["export", "full", "x", "--data.seq_len=8"], "has no effect"),
            (["export", "full", "x", "--adapter"], "--adapters"),
            (["import", "out"], "--output is missing"),
            (["import", "out", "--output=x.h5"], "is not a directory"),
            (["import", "out", "--output=x.h5", "--optim.lr=1"], "has no effect"),
        ):
            with self.subTest(arguments):
                self.expect_error(*arguments, says=says, output="x")


if __name__ == "__main__":
    unittest.main()
