#!/usr/bin/python3
"""A tokenizer whose documents begin with <s>, from its directory to the text of a model trained with it.

--build=DIRECTORY holds the program. Expected values come from the logits of single positions and from h5py.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from exported_runs import KINDS, SIZES, Runs, sample_text  # noqa: E402
from program import BUILD  # noqa: E402

BEGIN, END = 1, 2  # <s> and </s> of tokenizers that the program trains


def attribute(path, group, key):
    with h5py.File(path) as file:
        return file[group].attrs.get(key)


def checksum(data):
    """The checksum of docs/checkpoints.md, for bytes."""
    x = np.arange(len(data), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.frombuffer(data, np.uint8)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x ^ (x >> np.uint64(31))).sum(dtype=np.uint64)


class BeginTokens(unittest.TestCase):
    """The run "begun" reads documents with <s>; every document starts with the same word."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.runs = Runs(cls.temporary.name, BUILD)
        cls.folder = cls.runs.folder
        cls.model = cls.folder / "llama"
        cls.model.mkdir()
        with h5py.File(cls.runs.tokens) as file:
            (cls.model / "tokenizer.model").write_bytes(file["tokenizer/model"][()].tobytes())
        rule = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>"}
        (cls.model / "tokenizer_config.json").write_text(json.dumps(rule))
        documents = sample_text(160).split("\n\n")
        (cls.folder / "text.txt").write_text("\n\n".join(f"Lantern {d}" for d in documents), encoding="utf-8")
        cls.tokens, cls.plain = cls.tokenize("begun.h5"), cls.tokenize("plain.h5", "--begin_token=none")
        cls.settings = [*SIZES, *KINDS["full"], "--run.steps=30", f"--data.tokens={cls.tokens}"]
        cls.runs.must("train", *cls.settings, "--run.dir=begun")
        cls.checkpoint = next((cls.folder / "begun/checkpoints").glob("*.h5"))

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def tokenize(cls, name, *options):
        cls.runs.must("tokenize", "text.txt", f"--output={name}", f"--tokenizer={cls.model}", "--validation=0.1", "--quiet",
                      *options)  # fmt: skip
        return cls.folder / name

    def test_finding_03_token_file_and_checkpoint_know_it(self):
        for path, group, begin in ((self.tokens, "/", BEGIN), (self.plain, "/", -1), (self.checkpoint, "/data", BEGIN)):
            self.assertEqual((attribute(path, group, "begin_token"), attribute(path, group, "end_token")), (begin, END), path)
        self.assertEqual(attribute(self.tokens, "/", "tokenizer_kind"), b"sentencepiece")
        with h5py.File(self.tokens) as file:
            for part in (file["training"], file["validation"]):
                ids = part["tokens"][:]
                starts = np.flatnonzero(np.concatenate([[END], ids[:-1]]) == END)
                np.testing.assert_array_equal(starts, part["document_starts"][:])
                np.testing.assert_array_equal(starts, np.flatnonzero(ids == BEGIN))
            (source,) = file["sources"][:]
            self.assertEqual((source["name"], source["weight"], source["documents"]), (b"text.txt", 1, 160))
        shown = self.runs.must("inspect", self.tokens)
        for line in ("version 2", "begin token   1", "end token     2", "tokenizer     sentencepiece", '"text.txt": 160 documents'):
            self.assertIn(line, shown)
        for file in (self.tokens, self.plain, self.checkpoint):
            self.assertIn("verifies", self.runs.must("verify", file))

    def test_finding_03_generated_text_begins_as_documents_did(self):
        expected = int(self.runs.logits(self.checkpoint, [BEGIN])[-1].argmax())
        after_end = int(self.runs.logits(self.checkpoint, [END])[-1].argmax())
        self.assertEqual(after_end, BEGIN)  # a text that wrongly begins with </s> would go on with <s>, which shows nothing
        command = ["spm_decode", f"--model={self.model}/tokenizer.model", "--input_format=id"]
        word = subprocess.run(command, input=str(expected), capture_output=True, text=True, check=True).stdout.strip()
        self.assertTrue(word)
        for tokens in (self.tokens, self.plain):  # the checkpoint decides, whichever file has the tokenizer
            text = self.runs.must("generate", "begun", "--temperature=0", "--max_tokens=1", f"--data.tokens={tokens}")
            self.assertEqual(text.strip(), word)

    def test_finding_03_eval_is_the_loss_of_the_stream_with_begin_tokens(self):
        with h5py.File(self.tokens) as file:
            ids = file["validation/tokens"][:].astype(int)
        losses = []
        for begin in range(0, len(ids) - 1, 48):
            part = ids[begin : begin + 49]
            logits = self.runs.logits(self.checkpoint, part[:-1])
            peak = logits.max(axis=1, keepdims=True)
            norm = peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1))
            losses += list(norm - logits[np.arange(len(part) - 1), part[1:]])
        result = self.runs.run("eval", "begun", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn("begin token", result.stderr)
        self.assertAlmostEqual(json.loads(result.stdout)["loss"], np.mean(losses), delta=1e-5)

    def test_finding_03_another_begin_is_said(self):
        result = self.runs.run("eval", "begun", f"--data.tokens={self.plain}")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, r"warning: documents start with no begin token in `.*plain.h5`, but with begin token 1")
        settings = [s for s in self.settings if not s.startswith("--data.tokens=")]
        result = self.runs.run("train", *settings, f"--data.tokens={self.plain}", "--run.dir=next", "--run.steps=2",
                               f"--run.init_from={self.checkpoint}")  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout + result.stderr, "warning +documents start with no begin token")

    def test_files_with_another_kind_of_tokenizer_train_but_do_not_speak(self):
        for kind, size in (("hf_json", None), ("none", 0)):
            tokens = self.folder / f"{kind}.h5"
            shutil.copy(self.tokens, tokens)
            with h5py.File(tokens, "r+") as file:
                file.attrs["tokenizer_kind"] = np.bytes_(kind)
                if size == 0:
                    del file["tokenizer"]
                    file["tokenizer/model"] = np.zeros(0, np.uint8)
            self.runs.must("train", *self.settings, f"--data.tokens={tokens}", f"--run.dir={kind}", "--run.steps=2")
            self.runs.must("eval", kind)
            self.runs.must("verify", tokens)
            self.assertIn(kind, self.runs.must("inspect", tokens))
            for words in (["generate", kind], ["tokenize", "text.txt", "--output=x.h5", f"--tokenizer={tokens}"],
                          ["export", kind, f"out_{kind}"]):  # fmt: skip
                result = self.runs.run(*words)
                self.assertEqual(result.returncode, 1, words)
                self.assertNotIn("internal", result.stderr)
                if words[0] != "export" or kind == "none":
                    self.assertIn(f"tokenizer of kind {kind}", result.stderr)
                else:
                    self.assertIn("`tokenizer.json of", result.stderr)  # these bytes are a SentencePiece model

    def tokens_with_json(self, name, text):
        """The token file with the bytes of `text` as its tokenizer, of kind hf_json."""
        path = self.folder / f"{name}.h5"
        shutil.copy(self.tokens, path)
        with h5py.File(path, "r+") as file:
            file.attrs["tokenizer_kind"] = np.bytes_("hf_json")
            del file["tokenizer"]
            file["tokenizer/model"] = np.frombuffer(text, np.uint8)
            file.attrs["tokenizer_fingerprint"] = checksum(text)
        return path

    def test_finding_05_export_writes_a_stored_tokenizer_json_as_it_is(self):
        texts = [f"piece {i} \u00e9\u6771" for i in range(400)]
        added = [{"id": BEGIN, "content": "<|begin|>", "special": True}]
        byte_pairs = {"type": "BPE", "unk_token": "<unk>", "vocab": {text: i for i, text in enumerate(texts)}, "merges": []}
        unigram = {"type": "Unigram", "unk_id": 0, "vocab": [[text, -1.5] for text in texts]}
        for name, model in (("byte_pairs", byte_pairs), ("unigram", unigram)):
            content = {"version": "1.0", "added_tokens": added, "model": model}
            stored = json.dumps(content, indent=3, ensure_ascii=False).encode() + b"\n\n"  # a layout that no writer here uses
            tokens = self.tokens_with_json(name, stored)
            self.runs.must("train", *self.settings, f"--data.tokens={tokens}", f"--run.dir=json_{name}", "--run.steps=2")
            printed = self.runs.must("export", f"json_{name}", f"out_{name}")
            self.assertIn("byte for byte", printed)
            self.assertIn('began with "<|begin|>"', printed)
            folder = self.folder / f"out_{name}"
            self.assertEqual((folder / "tokenizer.json").read_bytes(), stored)
            self.assertFalse((folder / "tokenizer.model").exists())
            config = json.loads((folder / "tokenizer_config.json").read_text())
            self.assertEqual((config["bos_token"], config["eos_token"]), ("<|begin|>", texts[END]))
            self.assertEqual(config.get("unk_token"), model.get("unk_token"))
            self.assertNotIn("add_bos_token", config)  # tokenizer.json decides that
            model_config = json.loads((folder / "config.json").read_text())
            self.assertEqual((model_config["bos_token_id"], model_config["eos_token_id"]), (BEGIN, END))

    def test_stored_tokenizers_that_do_not_fit_are_refused(self):
        for name, text, said in (("list", b"[1]", "not an object"), ("empty", b"{}", "has no `model`"),
                                 ("short", b'{"model": {"vocab": [["a", 0]]}}', "no token with id 1"),
                                 ("odd", b'{"added_tokens": {"id": [1]}, "model": {"vocab": {"a": "1"}}}', "no token with id 1")):
            tokens = self.tokens_with_json(name, text)
            self.runs.must("train", *self.settings, f"--data.tokens={tokens}", f"--run.dir=bad_{name}", "--run.steps=2")
            result = self.runs.run("export", f"bad_{name}", f"bad_out_{name}")
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertIn(said, result.stderr)
            self.assertEqual(list(self.folder.glob(f"bad_out_{name}*")), [])
            self.runs.must("export", f"bad_{name}", f"bad_out_{name}", "--no_tokenizer")


if __name__ == "__main__":
    unittest.main()
