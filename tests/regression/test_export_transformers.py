#!/usr/bin/python3
"""transformers and peft load what `export` writes, and compute our logits and our tokens.

--build=DIRECTORY holds the program. Runs in .venv-torch (SWITCHYARD_VENV) when that has torch, transformers and peft;
otherwise it is skipped with the reason, or with --install it makes that environment first (tools/torch_venv.sh).
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
import hugging_face_golden as golden  # noqa: E402
from exported_runs import Runs  # noqa: E402
from program import BUILD  # noqa: E402

NEEDED = "torch, transformers, peft, safetensors, sentencepiece, google.protobuf, h5py"
TOLERANCE = 1e-5  # of the largest logit, in f32
PROMPT = "Quiet river stone, 1907: naïve 東京 ember"


def find_environment(install):
    """The environment's interpreter, or None and the reason."""
    venv = pathlib.Path(os.environ.get("SWITCHYARD_VENV", ROOT / ".venv-torch"))
    python = venv / "bin" / "python"
    if install:
        made = subprocess.run([ROOT / "tools" / "torch_venv.sh", "--with-transformers"], capture_output=True, text=True)
        if made.returncode:
            return None, f"the environment cannot be made: {made.stderr.strip().splitlines()[-1:]}"
    if not python.exists():
        return None, f"{venv} is not there: tools/torch_venv.sh --with-transformers makes it (6 GB)"
    found = subprocess.run([python, "-c", f"import {NEEDED}"], capture_output=True, text=True)
    if found.returncode:
        problem = found.stderr.strip().splitlines()[-1]
        return None, f"{venv} lacks packages ({problem}): tools/torch_venv.sh --with-transformers completes it"
    return python, ""


class Transformers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.runs = Runs(cls.temporary.name, BUILD)
        draw = np.random.default_rng(3)
        cls.ids = draw.integers(0, 400, 48)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def our_logits(self, checkpoint):
        return self.runs.logits(checkpoint, self.ids)

    def logits(self, model):
        self.assertTrue(all(p.dtype == torch.float32 for p in model.parameters()))
        with torch.no_grad():
            return model(torch.tensor([self.ids.tolist()])).logits[0].double().numpy()

    def load(self, folder, **options):
        """The model, after checking that no weight is missing, unused or of another shape."""
        model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
        self.assertIsInstance(model, transformers.LlamaForCausalLM)
        self.assertEqual({key: list(value) for key, value in info.items() if value}, {})
        return model.eval()

    def compare(self, theirs, ours, tolerance=TOLERANCE):
        self.assertEqual(theirs.shape, ours.shape)
        difference = np.abs(theirs - ours).max() / np.abs(ours).max()
        self.assertGreater(np.abs(ours).max(), 0.1)
        self.assertLess(difference, tolerance)
        return difference

    def test_logits_of_whole_and_merged_weights(self):
        for kind in ("full", "full_tied", "switch", "switch_tied", "lora", "dora", "sora", "riemannian", "melora", "flatlora", "loft", "pclora", "pclora_compressed"):
            with self.subTest(kind):
                folder = self.runs.export(kind, f"out_{kind}", "--max_shard_size=300KB")
                model = self.load(folder)
                self.assertEqual(model.config.tie_word_embeddings, kind.endswith("tied"))
                worst = self.compare(self.logits(model), self.our_logits(self.runs.checkpoint(kind)))
                print(f"{kind}: {worst:.1e} of the largest logit", file=sys.stderr)

    def test_logits_with_an_adapter(self):
        for kind in ("lora", "dora", "sora", "riemannian", "flatlora", "loft", "pclora", "pclora_compressed", "switch", "switch_tied"):
            with self.subTest(kind):
                folder = self.runs.export(kind, f"adapters_{kind}", "--adapters")
                ours = self.our_logits(self.runs.checkpoint(kind))
                base = self.load(folder / "base")
                base_logits = self.logits(base)  # peft changes the model in place
                self.assertGreater(np.abs(base_logits - ours).max() / np.abs(ours).max(), 100 * TOLERANCE)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    model = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
                self.assertEqual([str(w.message) for w in caught if "missing" in str(w.message).lower()], [])
                worst = self.compare(self.logits(model), ours)
                merged = self.logits(model.merge_and_unload())
                print(f"{kind} + adapter: {worst:.1e}, merged by peft {self.compare(merged, ours):.1e}", file=sys.stderr)
        found = peft.AutoPeftModelForCausalLM.from_pretrained(self.runs.folder / "adapters_switch_tied" / "adapter").eval()
        self.compare(self.logits(found), ours)

    def test_bf16_run_in_f32(self):
        """The run computes in bf16 (8 bits), transformers in f32: equal within bf16's rounding, k = 8."""
        model = self.load(self.runs.export("switch_bf16", "out_bf16"), dtype=torch.float32)
        self.compare(self.logits(model), self.our_logits(self.runs.checkpoint("switch_bf16")), 8 * 2.0**-8)
        narrow = self.load(self.runs.export("switch_bf16", "out_bf16_narrow", "--dtype=bf16"))
        self.assertTrue(all(p.dtype == torch.bfloat16 for p in narrow.parameters()))

    def test_imported_weights_of_transformers(self):
        """The other direction: a model that transformers made and saved, in several files."""
        config = transformers.LlamaConfig(
            vocab_size=400, hidden_size=96, intermediate_size=132, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=2, rms_norm_eps=2e-6, max_position_embeddings=64, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 7000.0}, initializer_range=0.2)  # fmt: skip
        torch.manual_seed(1)
        model = transformers.LlamaForCausalLM(config)
        for dtype, option in ((torch.float32, "f32"), (torch.float16, "f32"), (torch.bfloat16, "f32")):
            folder = self.runs.folder / f"theirs_{dtype}"
            model.to(dtype).save_pretrained(folder, max_shard_size="200KB")
            self.runs.must("import", folder, f"--output={folder}.h5", f"--dtype={option}", f"--data.tokens={self.runs.tokens}")
            theirs = self.logits(self.load(folder, dtype=torch.float32))
            worst = self.compare(theirs, self.our_logits(f"{folder}.h5"))
            print(f"saved by transformers in {dtype}: {worst:.1e}", file=sys.stderr)

    def test_finding_03_losses_of_the_committed_model(self):
        """transformers still gives the committed numbers; another test compares ours with them without transformers."""
        expected = json.loads((golden.GOLDEN / "expected.json").read_text())["llama"]
        model = transformers.AutoModelForCausalLM.from_pretrained(golden.MODEL, dtype=torch.float32).eval()
        total, length = 0.0, expected["seq_len"]
        for start in range(0, len(expected["ids"]) - 1, length):
            window = torch.tensor(expected["ids"][start : start + length + 1])
            with torch.no_grad():
                logits = model(window[None, :-1]).logits[0].double()
            total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
        self.assertLess(abs(total / (len(expected["ids"]) - 1) - expected["loss"]), 1e-5)

    def test_finding_05_tokenizers_of_every_kind(self):
        """The texts of the golden file and random ones, split by transformers and by the run."""
        draw = random.Random(11)
        alphabet = ["abc  \n\t<s></s>", "東京 한국\u1112\u1161\u11abｶﾞ", "eoA\u0301\u0302\u0323\u0308", "Ａﬁ①\u0301", "😀\u200d👍🏽", "\u0001\u200b\u00a0\u3000\ufeff\r"]
        texts = golden.TEXTS + ["x" + "".join(draw.choices("".join(draw.sample(alphabet, 2)), k=draw.randint(1, 12))) for _ in range(1500)]
        own = h5py.File(self.runs.tokens)["tokenizer/model"][()].tobytes()
        for kind, model in {**golden.tokenizers(), "own": own}.items():
            with self.subTest(kind):
                place = self.runs.folder / f"tokenizer_{kind}"
                place.mkdir()
                exported, _ = golden.export_with(self.runs.build, place, model)
                tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
                found = golden.run_ids(self.runs.build, place, texts, "source")
                for text, ours in zip(texts, found, strict=True):
                    if ours is not None:
                        self.assertEqual(tokenizer(text)["input_ids"], [1, *ours], ascii(text))

    def test_tokens_and_greedy_text(self):
        for kind in ("full", "switch"):  # the second masks documents: its texts do not begin with the end token
            with self.subTest(kind):
                folder = self.runs.export(kind, f"text_{kind}")
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
                with h5py.File(self.runs.tokens) as file:
                    tokens = file["training/tokens"][:].astype(int)
                documents = np.split(tokens, np.flatnonzero(tokens == tokenizer.eos_token_id) + 1)[:20]
                for document in documents:
                    text = tokenizer.decode(document[:-1], skip_special_tokens=True)
                    begin = [tokenizer.eos_token_id] if kind == "full" else []
                    self.assertEqual(tokenizer(text)["input_ids"], begin + document[:-1].tolist())
                ours = self.runs.must("generate", kind, f"--prompt={PROMPT}", "--temperature=0", "--max_tokens=12")
                model = self.load(folder)
                prompt = tokenizer(PROMPT, return_tensors="pt")
                result = model.generate(**prompt, do_sample=False, temperature=None, top_k=None, max_new_tokens=12)
                self.assertEqual(tokenizer.decode(result[0], skip_special_tokens=True), ours.rstrip("\n"))


if __name__ == "__main__":
    inside, install = (flag in sys.argv for flag in ("--inside", "--install"))
    sys.argv = [argument for argument in sys.argv if argument not in ("--inside", "--install")]
    if not inside:
        interpreter, reason = find_environment(install)
        if interpreter is None:
            print(f"skipped: {reason}")
            sys.exit(77)
        sys.exit(subprocess.run([interpreter, __file__, "--inside", f"--build={BUILD}", *sys.argv[1:]]).returncode)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    import warnings

    import h5py
    import numpy as np
    import peft
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}", file=sys.stderr)
    unittest.main()
