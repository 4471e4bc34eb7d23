#!/usr/bin/python3
"""`switchyard generate`: its text against one decoded by hand from the logits of every position.

--build=DIRECTORY holds the program. SentencePiece's own spm_encode and spm_decode turn text into ids and back.
"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

import h5py

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from exported_runs import Runs  # noqa: E402
from program import BUILD  # noqa: E402

PROMPT, ADDED = "Lantern river stone", 10


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.runs = Runs(cls.temporary.name, BUILD)
        cls.tokenizer = cls.runs.export("full", "exported") / "tokenizer.model"
        with h5py.File(cls.runs.tokens) as file:
            cls.end_token = int(file["training/tokens"][-1])  # the last document ends with one

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def sentencepiece(self, program, form, text):
        command = [program, f"--model={self.tokenizer}", form]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.strip()

    def greedy(self, kind, prompt):
        """`prompt` and its continuation by the ADDED most likely tokens, each from the whole text before it."""
        ids = list(map(int, self.sentencepiece("spm_encode", "--output_format=id", prompt).split()))
        for _ in range(ADDED):
            # As in training, where a text follows the end of another, and does not see it if documents are masked.
            context = ids if kind == "switch" else [self.end_token, *ids]
            ids.append(int(self.runs.logits(self.runs.checkpoint(kind), context)[-1].argmax()))
            self.assertNotEqual(ids[-1], self.end_token, "choose another prompt: this text ends early")
        return self.sentencepiece("spm_decode", "--input_format=id", " ".join(map(str, ids)))

    def test_text_is_what_the_logits_say(self):
        for kind in ("full", "switch"):
            expected = self.greedy(kind, PROMPT)
            self.assertTrue(expected.startswith(PROMPT) and len(expected) > len(PROMPT) + 5, expected)
            for ranks in (1, 2):
                with self.subTest(kind, ranks=ranks):
                    text = self.runs.must("generate", kind, f"--prompt={PROMPT}", "--temperature=0",
                                          f"--max_tokens={ADDED}", ranks=ranks)  # fmt: skip
                    self.assertEqual(text, expected + "\n")

    def test_draws_follow_the_seed(self):
        def drawn(seed, ranks=1, **options):
            words = [f"--{key}={value}" for key, value in options.items()]
            return self.runs.must("generate", "full", f"--prompt={PROMPT}", f"--seed={seed}", "--temperature=2",
                                  "--max_tokens=20", *words, ranks=ranks)  # fmt: skip

        first = drawn(1)
        self.assertTrue(first.startswith(PROMPT), first)
        self.assertEqual(first, drawn(1, ranks=2))
        self.assertNotEqual(first, drawn(2))
        self.assertEqual(drawn(1, top_k=1), drawn(2, top_k=1))  # a draw from one token is no choice


if __name__ == "__main__":
    unittest.main()
