#!/usr/bin/python3
"""Compares imported models and exported tokenizers with committed results of transformers (tests/golden/hugging_face).

--build=DIRECTORY holds the program. The committed ids belong to one tokenizer.json; its fingerprint tells whether `export`
still writes that file. tools/make_hugging_face_golden.py made the files; test_export_transformers.py runs the libraries.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import hugging_face_golden as golden  # noqa: E402
from program import BUILD as BUILD_FOLDER  # noqa: E402

BUILD = BUILD_FOLDER.resolve()
EXPECTED = json.loads((golden.GOLDEN / "expected.json").read_text())
TOLERANCE = 1e-5  # of losses about 8, in f32


class Golden(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        shutil.copytree(golden.MODEL, self.folder / "llama")
        for name in ("text", "copy"):  # one of two documents is for validation
            (self.folder / f"{name}.txt").write_text(EXPECTED["llama"]["text"], encoding="utf-8")

    def command(self, *words):
        return golden.command(BUILD, self.folder, *words)

    def tokenize(self, name, *options):
        self.command("tokenize", "text.txt", "copy.txt", f"--output={name}", "--tokenizer=llama",
                     "--document_separator=file", "--validation=0.5", "--quiet", *options)  # fmt: skip

    def loss(self, checkpoint, tokens):
        length = EXPECTED["llama"]["seq_len"]
        return json.loads(self.command("eval", checkpoint, f"--data.tokens={tokens}", f"--data.seq_len={length}", "--json"))["loss"]

    def test_finding_03_losses_with_a_begin_token_are_those_of_transformers(self):
        self.tokenize("tokens.h5")
        with h5py.File(self.folder / "tokens.h5") as file:
            self.assertEqual(file["validation/tokens"][:].tolist(), EXPECTED["llama"]["ids"])
            self.assertEqual((file.attrs["begin_token"], file.attrs["end_token"]), (1, 2))
        printed = self.command("import", "llama", "--output=model.h5", "--dtype=f32")
        self.assertIn("begin with token 1 and end with token 2", printed)
        with h5py.File(self.folder / "model.h5") as file:
            self.assertEqual((file["data"].attrs["begin_token"], file["data"].attrs["end_token"]), (1, 2))
        self.assertLess(abs(self.loss("model.h5", "tokens.h5") - EXPECTED["llama"]["loss"]), TOLERANCE)
        self.tokenize("plain.h5", "--begin_token=none")
        plain = EXPECTED["llama"]["loss_without_begin"]
        self.assertGreater(abs(plain - EXPECTED["llama"]["loss"]), 100 * TOLERANCE)
        self.assertLess(abs(self.loss("model.h5", "plain.h5") - plain), TOLERANCE)

    def test_finding_03_export_says_what_texts_begin_with(self):
        self.tokenize("tokens.h5")
        for begins in (True, False):
            rule = json.loads((self.folder / "llama/tokenizer_config.json").read_text()) | {"add_bos_token": begins}
            (self.folder / "llama/tokenizer_config.json").write_text(json.dumps(rule))
            self.command("import", "llama", f"--output={begins}.h5", "--data.tokens=tokens.h5")
            self.command("export", f"{begins}.h5", f"{begins}")
            read = {n: json.loads((self.folder / f"{begins}/{n}.json").read_text())
                    for n in ("config", "generation_config", "tokenizer_config", "tokenizer")}  # fmt: skip
            # Without a begin token a text follows the end of another, as in training here.
            first, piece = (1, "<s>") if begins else (2, "</s>")
            for name in ("config", "generation_config"):
                self.assertEqual((read[name]["bos_token_id"], read[name]["eos_token_id"]), (first, 2), name)
            said = read["tokenizer_config"]
            self.assertEqual((said["bos_token"], said["eos_token"], said["add_bos_token"]), (piece, "</s>", True))
            self.assertEqual(read["tokenizer"]["post_processor"]["special_tokens"][piece]["ids"], [first])
            self.command("import", f"{begins}", f"--output={begins}_again.h5")
            with h5py.File(self.folder / f"{begins}_again.h5") as file:
                self.assertEqual(file["data"].attrs["begin_token"], 1 if begins else -1)

    def test_finding_03_the_template_of_tokenizer_json_counts(self):
        """transformers saves a tokenizer_config.json that does not tell whether texts begin with a token."""
        exported, _ = golden.export_with(BUILD, self.folder, golden.tokenizers()["identity"])
        (exported / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
        content = json.loads((exported / "tokenizer.json").read_text())
        for name, processor, begin in (("template", content["post_processor"], 1), ("none", None, -1),
                                       ("steps", {"type": "Sequence", "processors": [content["post_processor"]]}, 1)):  # fmt: skip
            (exported / "tokenizer.json").write_text(json.dumps(content | {"post_processor": processor}))
            self.command("tokenize", "text.txt", f"--output={name}.h5", f"--tokenizer={exported}", "--quiet")
            with h5py.File(self.folder / f"{name}.h5") as file:
                self.assertEqual(file.attrs["begin_token"], begin, name)

    def test_finding_03_ids_that_contradict_the_tokenizer_are_said(self):
        """config.json of early LLaMA models names 0 and 1; texts went through the tokenizer, with 1 and 2."""
        for name in ("config", "generation_config"):
            path = self.folder / f"llama/{name}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token_id": 0, "eos_token_id": [1, 7]}))
        result = subprocess.run([BUILD / "switchyard", "import", "llama", "--output=model.h5"], cwd=self.folder,
                                env=golden.ENVIRONMENT, capture_output=True, text=True)  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        for part in ("bos_token_id = 0, but its tokenizer 1", "eos_token_id = 1, 7, but its tokenizer 2"):
            self.assertIn(part, result.stderr)
        with h5py.File(self.folder / "model.h5") as file:
            self.assertEqual((file["data"].attrs["begin_token"], file["data"].attrs["end_token"]), (1, 2))

    def test_finding_04_nested_rope_theta_gives_the_loss_of_transformers(self):
        path = self.folder / "llama/config.json"
        config = json.loads(path.read_text())
        del config["rope_parameters"]
        config["rope_scaling"] = {"rope_type": "default", "rope_theta": 500000.0}
        path.write_text(json.dumps(config))
        self.tokenize("tokens.h5")
        self.command("import", "llama", "--output=model.h5", "--dtype=f32")
        expected = EXPECTED["llama"]["nested_loss"]
        self.assertGreater(abs(expected - EXPECTED["llama"]["loss"]), 100 * TOLERANCE)
        self.assertLess(abs(self.loss("model.h5", "tokens.h5") - expected), TOLERANCE)

    def test_finding_05_exported_tokenizers_give_the_ids_of_the_run(self):
        self.assertGreaterEqual(len(golden.TEXTS), 50)
        kinds = golden.tokenizers()
        self.assertEqual(sorted(kinds), ["identity", "nfkc", "no_prefix", "unigram"])
        for kind, model in kinds.items():
            with self.subTest(kind):
                place = self.folder / kind
                place.mkdir()
                exported, printed = golden.export_with(BUILD, place, model)
                self.assertIn("tokenizer.json gives the ids of the run's tokenizer", printed)
                self.assertEqual("except for" in printed, kind in ("nfkc", "unigram"), printed)
                self.assertEqual(golden.fingerprint(exported / "tokenizer.json"), EXPECTED[kind]["fingerprint"],
                                 "run tools/make_hugging_face_golden.py: transformers has not read this tokenizer.json")  # fmt: skip
                found = golden.run_ids(BUILD, place, golden.TEXTS, "source")
                self.assertGreaterEqual(sum(ids is not None for ids in found), 60)
                for text, ours, theirs in zip(golden.TEXTS, found, EXPECTED[kind]["ids"], strict=True):
                    if ours is not None:
                        self.assertEqual(ours, theirs, ascii(text))

    def train_sentencepiece(self, *options):
        path = self.folder / "lines.txt"
        path.write_text(EXPECTED["llama"]["text"], encoding="utf-8")
        subprocess.run(["spm_train", f"--input={path}", f"--model_prefix={self.folder}/other", "--minloglevel=2", *options],
                       check=True, capture_output=True)  # fmt: skip
        return (self.folder / "other.model").read_bytes()

    def test_finding_05_what_cannot_be_equal_is_said(self):
        cases = {
            "user": (["--model_type=bpe", "--vocab_size=350", "--byte_fallback", "--user_defined_symbols=<sep>",
                      "--normalization_rule_name=identity"], "user-defined pieces such as <sep>"),
            "unigram": (["--model_type=unigram", "--vocab_size=330", "--byte_fallback", "--hard_vocab_limit=false",
                         "--normalization_rule_name=identity"], None),
            "word": (["--model_type=word", "--vocab_size=30", "--hard_vocab_limit=false"], "no model of words or characters"),
        }  # fmt: skip
        for name, (options, says) in cases.items():
            with self.subTest(name):
                place = self.folder / name
                place.mkdir()
                exported, printed = golden.export_with(BUILD, place, self.train_sentencepiece(*options))
                self.assertTrue((exported / "tokenizer.model").exists())
                self.assertEqual((exported / "tokenizer.json").exists(), name != "word")
                self.assertEqual((exported / "tokenizer_config.json").exists(), name != "word")
                if says:
                    self.assertIn(says, printed)


if __name__ == "__main__":
    unittest.main()
