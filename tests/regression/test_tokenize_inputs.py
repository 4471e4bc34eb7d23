#!/usr/bin/python3
"""Inputs of `switchyard tokenize` as users have them: JSON lines under any name, binary files of every kind, odd lines,
tokenizers that lose text, outputs that exist.

--build=DIRECTORY holds the program.
"""
import gzip
import io
import json
import lzma
import os
import pathlib
import pickle
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
import unittest
import zipfile

import h5py
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

DOCUMENTS = [f"The river ran past stone {i} and\nthe ember went quiet." for i in range(24)]
LINES = "".join(json.dumps({"text": d, "id": i, "meta": {"source": {"body": f"body {i}"}}}) + "\n" for i, d in enumerate(DOCUMENTS))


class Inputs(unittest.TestCase):
    def setUp(self):
        program.Test.setUp(self)
        self.tokenizer = program.make_tokens(self.folder)

    tearDown = program.Test.tearDown

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def tokenize(self, *words, stdin=None, validation=0, tokenizer=None):
        tokenizer = tokenizer or f"--tokenizer={self.tokenizer}"
        options = {"input": stdin} if stdin is not None else {}
        return program.switchyard("tokenize", *words, f"--output={self.folder}/x.h5", "--overwrite", tokenizer,
                                  f"--validation={validation}", "--quiet", text=stdin is None, **options)  # fmt: skip

    def documents(self, *words, **options):
        """The number of documents in the file, their text by SentencePiece's own decoder, and what was printed."""
        result = self.tokenize(*words, **options)
        said = result.stdout + result.stderr if isinstance(result.stdout, str) else (result.stdout + result.stderr).decode()
        self.assertEqual(result.returncode, 0, said)
        with h5py.File(self.folder / "x.h5") as file:
            ids, model = file["training/tokens"][:], file["tokenizer/model"][()].tobytes()
        (self.folder / "m.model").write_bytes(model)
        texts = " ".join(map(str, ids)).replace(" 2 ", "\n").removesuffix(" 2")
        command = ["spm_decode", f"--model={self.folder}/m.model", "--input_format=id"]
        decoded = subprocess.run(command, input=texts, capture_output=True, text=True, check=True).stdout
        return len((ids == 2).nonzero()[0]), decoded, said

    def assert_json_lines(self, number, decoded, said, wanted="The river ran past stone 7"):
        self.assertEqual(number, len(DOCUMENTS))
        self.assertIn(wanted, decoded)
        for raw in ('"}', '{"', "\\n", '"text"'):
            self.assertNotIn(raw, decoded)
        self.assertIn("read as JSON lines", said)

    def test_finding_01_json_lines_under_any_name(self):
        for name in ("shard1.json", "part-00000", "x.ndjson", "x.jsonl", "c4-train.00000-of-01024.json", "data.txt", "no-suffix.bin"):
            for content in (LINES, "\n" + LINES, "\ufeff" + LINES, LINES.replace("\n", "\r\n"), LINES.rstrip("\n")):
                number, decoded, said = self.documents(self.write(name, content))
                self.assert_json_lines(number, decoded, said)
                self.assertIn(name, said)

    def test_finding_01_one_line_after_a_byte_order_mark(self):
        number, decoded, said = self.documents(self.write("one.json", "\ufeff" + LINES.splitlines()[7] + "\n"))
        self.assertEqual(number, 1)
        self.assertTrue(decoded.startswith("The river ran past stone 7"), decoded)

    def test_finding_01_json_lines_from_standard_input(self):
        plain = self.write("plain", LINES)
        for tokenizer in (None, "--vocab_size=300"):
            self.assert_json_lines(*self.documents("-", stdin=LINES.encode(), tokenizer=tokenizer))
            with plain.open("rb") as stream:  # a file as standard input, and a named pipe
                result = program.switchyard("tokenize", "/dev/stdin", f"--output={self.folder}/x.h5", "--overwrite", "--quiet",
                                            tokenizer or f"--tokenizer={self.tokenizer}", stdin=stream)  # fmt: skip
            self.assertIn("read as JSON lines", result.stdout, result.stderr)

    def test_finding_01_a_long_first_line(self):
        long = json.dumps({"text": "stone river " * 200_000}) + "\n" + LINES
        number, _, said = self.documents(self.write("long", long))
        self.assertEqual(number, len(DOCUMENTS) + 1)
        self.assertIn("read as JSON lines", said)

    def test_finding_01_each_file_by_its_own_content(self):
        inputs = [self.write("a.txt", "one stone\n\ntwo rivers\n"), self.write("b", LINES), self.write("c.json", "no object\n")]
        number, decoded, said = self.documents(*inputs)
        self.assertEqual(number, 2 + len(DOCUMENTS) + 1)
        self.assertRegex(said, r"read as JSON lines \(text under \"text\"\): \S*/b\n")
        self.assertRegex(said, r"read as text \(a document ends at: blank-lines\): \S*/a.txt, \S*/c.json\n")

    def test_finding_01_format_and_key_can_be_said(self):
        path = self.write("shard.json", LINES)
        number, decoded, said = self.documents(path, "--format=text", "--document_separator=line")
        self.assertIn('{"text":', decoded)
        self.assertIn("read as text", said)
        for key, wanted in (("meta.source.body", "body 7"), ("text", "stone 7")):
            self.assert_json_lines(*self.documents(path, f"--text_key={key}"), wanted=wanted)
        renamed = self.write("content.json", LINES.replace('"text":', '"content":'))
        self.assert_json_lines(*self.documents(renamed, "--text_key=content"))
        result = self.tokenize(renamed)
        self.assertEqual(result.returncode, 1)
        for part in ("content.json` line 1", 'no "text"', 'which has "content", "id", "meta"', "--text_key=KEY", "--format=text"):
            self.assertIn(part, result.stderr)
        text = self.write("notes.jsonl", "no object here\n")
        self.assertIn("notes.jsonl` line 1", self.tokenize(text).stderr)
        self.assertEqual(self.documents(text, "--format=text")[0], 1)
        self.assertIn("unknown format `json`", self.tokenize(path, "--format=json").stderr)
        self.assertIn("text key is empty", self.tokenize(path, "--text_key=").stderr)

    def test_finding_01_what_is_not_json_lines_stays_text(self):
        for content in ("{not json}\n{nor this}\n", '{\n  "name": "pretty"\n}\n', "[1, 2]\n[3]\n", '"a"\n"b"\n', "3\n4\n",
                        'Prose, with\n{"an": "object"}\nand more prose.\n'):
            self.assertIn("read as text", self.documents(self.write("x.json", content))[2])
        result = self.tokenize(self.write("array.json", json.dumps([{"text": d} for d in DOCUMENTS], indent=1)))
        self.assertEqual(result.returncode, 1)
        self.assertIn("JSON array", result.stderr)
        self.assertIn("jq -c '.[]'", result.stderr)
        for number in (1, 3):
            result = self.tokenize(self.write("pretty.json", "\n".join(json.dumps({"text": d}, indent=2) for d in DOCUMENTS[:number])))
            self.assertEqual(result.returncode, 1)
            self.assertIn("JSON objects over several lines", result.stderr)

    def test_finding_01_json_of_other_forms_is_refused(self):
        records = [json.dumps({"text": d, "id": 1}) for d in DOCUMENTS]
        for content, says in ((",\n".join(records), "sed"), (json.dumps(DOCUMENTS * 9000, indent=1), "JSON array")):
            path = self.write("part-0", content)
            result = self.tokenize(path)
            self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
            for part in (says, "raw JSON", "--format=text"):
                self.assertIn(part, result.stderr)
        self.assertIn("read as text", self.documents(self.write("part-0", ",\n".join(records)), "--format=text")[2])
        self.assertIn("warning: `" + str(self.folder), self.documents(self.write("x.json", '{\n  "name": "pretty"\n}\n'))[2])

    def test_finding_01_a_pipe_with_a_name(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        for content, kind in ((LINES, "read as JSON lines"), ("stone\n\nriver\n", "read as text")):
            writer = threading.Thread(target=pipe.write_text, args=(content,))
            writer.start()
            self.assertIn(kind, self.documents(pipe)[2])
            writer.join()

    def test_finding_01_settings_of_json_lines_mean_them(self):
        mixed = "a line of notes\nand one more\n" + LINES.splitlines()[0] + "\n"
        self.assertIn("read as text", self.documents(self.write("mixed", mixed))[2])
        number, _, said = self.documents(self.write("mixed", mixed), "--skip_bad_lines")
        self.assertEqual(number, 1)
        self.assertIn("2 lines are not JSON objects", said)
        self.assertIn("mixed` line 1", self.tokenize(self.write("mixed", mixed), "--text_key=text").stderr)
        self.assertIn("no input has JSON lines", self.documents(self.write("plain", "stone\n"), "--text_key=content")[2])

    def binary_files(self):
        """(name, content, what the refusal says)"""
        text, array = LINES.encode() * 20, np.arange(300.0)
        zipped, arrays, document, tarred, single = (io.BytesIO() for _ in range(5))
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.writestr("a.txt", text)
        with zipfile.ZipFile(document, "w") as archive:
            archive.writestr("[Content_Types].xml", "<Types/>")
            archive.writestr("word/document.xml", "<w/>")
        np.savez(arrays, array)
        np.save(single, array)
        with tarfile.open(fileobj=tarred, mode="w") as archive:
            archive.add(__file__, "a.py")
        database = self.folder / "made.sqlite"
        with sqlite3.connect(database) as connection:
            connection.execute("create table t (text)")
        connection.close()
        hdf5 = self.folder / "made.h5"
        with h5py.File(hdf5, "w") as file:
            file["x"] = array
        with h5py.File(self.folder / "block.h5", "w", userblock_size=512) as file:
            file["x"] = array
        yield from (
            ("a.json.gz", gzip.compress(text), "compressed with gzip"), ("a.xz", lzma.compress(text), "compressed with xz"),
            ("a.zst", b"\x28\xb5\x2f\xfd" + bytes(range(50)), "compressed with zstd"), ("a.zip", zipped.getvalue(), "a zip archive"),
            ("a.docx", document.getvalue(), "an office document"), ("a.npz", arrays.getvalue(), "NumPy arrays"),
            ("a.npy", single.getvalue(), "a NumPy array"), ("a.tar", tarred.getvalue(), "a tar archive"),
            ("a.sqlite", database.read_bytes(), "SQLite"), ("a.h5", hdf5.read_bytes(), "an HDF5 file"),
            ("b.h5", (self.folder / "block.h5").read_bytes(), "an HDF5 file"),
            ("a.parquet", b"PAR1" + bytes(range(170)) + b"PAR1", "a Parquet file"),
            ("a.arrow", b"ARROW1\0\0" + bytes(100), "an Arrow"), ("a.pdf", b"%PDF-1.7\n1 0 obj\n", "a PDF document"),
            ("a.pkl", pickle.dumps({"text": DOCUMENTS}), "pickle"), ("b.pkl", pickle.dumps(DOCUMENTS, 0), "pickle"),
            ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(60), "a picture (PNG)"), ("a.elf", pathlib.Path("/bin/true").read_bytes(), "ELF"),
            ("a.raw", np.random.default_rng(1).integers(0, 32000, 5000, np.uint16).tobytes(), "is binary"),
            ("a.noise", np.random.default_rng(1).bytes(5000), "is binary"), ("a.zero", bytes(5000), "is binary"),
            ("a.utf16", "river\n".encode("utf-16"), "is UTF-16"), ("a.utf32", "river\n".encode("utf-32"), "is UTF-32"),
            ("b.utf16", ("river stone\n" * 9).encode("utf-16-le"), "utf-16le"), ("a.cp1251", "река и камень\n".encode("cp1251"), "another encoding"),
        )  # fmt: skip

    def test_finding_02_binary_files_are_refused_by_kind(self):
        for name, content, kind in self.binary_files():
            for path in (self.write(name, content), self.write("data.txt", content), self.write("data.jsonl", content)):
                with self.subTest(name, path=path.name):
                    result = self.tokenize(path)
                    self.assertEqual(result.returncode, 1, result.stdout)
                    self.assertIn(kind, result.stderr)
                    self.assertIn(path.name, result.stderr)
                    self.assertIn("; ", result.stderr)
                    self.assertFalse((self.folder / "x.h5").exists())
            for tokenizer in (None, "--vocab_size=300"):
                with self.subTest(name, stdin=tokenizer):
                    result = self.tokenize("-", stdin=content, tokenizer=tokenizer)
                    self.assertEqual(result.returncode, 1, result.stdout)
                    self.assertIn(kind, result.stderr.decode())

    def test_finding_02_nul_bytes_further_on_are_counted(self):
        _, _, said = self.documents(self.write("tail.txt", "stone river\n" * 9000 + "\0" * 700))
        self.assertRegex(said, r"700 NUL bytes, the first in `\S*tail.txt` line 9001")

    def test_finding_02_one_among_many_is_found_at_once(self):
        inputs = [self.write("a.txt", "stone\n"), self.write("b.parquet", b"PAR1" + bytes(100))]
        result = self.tokenize(*inputs, tokenizer="--vocab_size=300")
        self.assertIn("b.parquet` is a Parquet file", result.stderr)
        self.assertFalse(list(self.folder.glob("*.partial")))

    def test_finding_11_odd_fields_and_lone_surrogates(self):
        odd = ['{"text": "half \\ud83d pair"}', '{"x": NaN, "text": "kept 1"}', '{"text": "kept 2", "x": Infinity, "y": -Infinity}',
               '{"x": 1e999, "text": "kept 3"}', '{"x": "\\udc00", "text": "kept 4"}', '{"a": 1, "a": 2, "text": "kept 5"}',
               '{"x": ' + "[" * 100_000 + "]" * 100_000 + ', "text": "kept 6"}']  # fmt: skip
        number, decoded, said = self.documents(self.write("odd.json", "\n".join(odd) + "\n"))
        self.assertEqual(number, len(odd))
        self.assertIn("half \ufffd pair", decoded)
        for i in range(1, 7):
            self.assertIn(f"kept {i}", decoded)
        self.assertRegex(said, r"1 lone surrogates .* became U\+FFFD, the first in `.*odd.json` line 1")
        self.assertNotIn("not valid UTF-8", said)

    def test_finding_11_bad_lines_are_named_or_left_out(self):
        lines = LINES.splitlines()
        bad = {3: '{"text": "open', 5: '{"body": "x"}', 8: "[1]", 11: '{"text": null}', 14: '{"text": 3}', 17: "}", 20: "no json"}
        for at, line in bad.items():
            lines[at - 1] = line
        for name in ("bad.jsonl", "bad.json", "part-0"):
            path = self.write(name, "\n".join(lines) + "\n")
            result = self.tokenize(path)
            self.assertEqual(result.returncode, 1)
            for part in (f"{name}` line 3: not valid JSON: a string has no end", "--skip_bad_lines"):
                self.assertIn(part, result.stderr)
            for tokenizer in (None, "--vocab_size=300"):
                number, _, said = self.documents(path, "--skip_bad_lines", tokenizer=tokenizer)
                self.assertEqual(number, len(DOCUMENTS) - len(bad))
                self.assertIn("7 lines are not JSON objects with text and were left out, the first:", said)
                for at in (3, 5, 8, 11, 14):
                    self.assertIn(f"{name}` line {at}: ", said)
                self.assertNotIn("line 17", said)
        result = self.tokenize(self.write("all.jsonl", "}\n" * 9), "--skip_bad_lines")
        self.assertEqual(result.returncode, 1)
        self.assertIn("no text", result.stderr)

    def test_friction_output_is_not_overwritten_unasked(self):
        path, output = self.write("a.txt", "one stone\n\ntwo rivers\n"), self.folder / "mine.h5"
        words = ["tokenize", path, f"--output={output}", f"--tokenizer={self.tokenizer}", "--validation=0", "--quiet"]
        self.assertEqual(program.switchyard(*words).returncode, 0)
        before = output.read_bytes()
        result = program.switchyard(*words)
        self.assertEqual(result.returncode, 1)
        self.assertIn("mine.h5` exists", result.stderr)
        self.assertIn("--overwrite", result.stderr)
        self.assertEqual(output.read_bytes(), before)
        self.write("a.txt", "three embers\n")
        self.assertEqual(program.switchyard(*words, "--overwrite").returncode, 0)
        self.assertNotEqual(output.read_bytes(), before)
        self.assertIn("both input and output", program.switchyard("tokenize", path, f"--output={path}", *words[3:], "--overwrite").stderr)

    def test_what_is_no_output_stays(self):
        path, model, pipe = self.write("a.txt", "one stone\n\ntwo rivers\n"), self.folder / "t.h5", self.folder / "pipe"
        model.write_bytes(self.tokenizer.read_bytes())
        os.mkfifo(pipe)
        link = self.folder / "null"
        link.symlink_to("/dev/null")
        for output, says in ((pipe, "is a device or pipe"), (link, "is a device or pipe"), (model, "both tokenizer and output")):
            for words in (["--overwrite"], []):
                result = program.switchyard("tokenize", path, f"--output={output}", f"--tokenizer={model}", "--quiet", *words)
                self.assertEqual(result.returncode, 1, output)
                self.assertIn(says, result.stderr)
        self.assertTrue(pipe.is_fifo() and link.is_symlink())
        self.assertEqual(model.read_bytes(), self.tokenizer.read_bytes())

    def test_two_commands_with_one_output_do_not_mix(self):
        """The first has begun to write when the second starts, and goes on."""
        output = self.folder / "o.h5"
        words = [f"--output={output}", f"--tokenizer={self.tokenizer}", "--validation=0", "--quiet", "--format=text"]
        with subprocess.Popen([program.BUILD / "switchyard", "tokenize", "-", *words], env=program.ENVIRONMENT, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as first:  # fmt: skip
            end = time.monotonic() + program.PATIENCE_S
            while not (self.folder / "o.h5.partial").exists() and time.monotonic() < end:
                time.sleep(0.05)
            second = program.switchyard("tokenize", self.write("b.txt", "the ember\n"), *words)
            first.communicate("one stone\n\ntwo rivers\n")
        self.assertEqual((first.returncode, second.returncode), (0, 1), second.stderr)
        self.assertIn("written by another process", second.stderr)
        with h5py.File(output) as file:
            self.assertEqual(len(file["training/document_starts"]), 2)
        (self.folder / "o.h5.partial").write_text("of a process that was killed")
        self.assertEqual(program.switchyard("tokenize", self.folder / "b.txt", *words, "--overwrite").returncode, 0)

    def test_a_sample_reads_lines_as_the_text_is_read(self):
        lines = "\ufeff" + json.dumps({"text": "stone zebra " * 40}) + "\n"
        for tokenizer in (None, "--vocab_size=270"):
            number, decoded, _ = self.documents(self.write("one.json", lines), tokenizer=tokenizer)
            self.assertEqual((number, decoded.count("zebra")), (1, 40))
        result = self.tokenize(self.write("content.json", LINES.replace('"text":', '"content":')), tokenizer="--vocab_size=270")
        self.assertEqual(result.returncode, 1)
        for part in ("content.json` line 1", 'no "text"', 'which has "content"', "--text_key=KEY"):
            self.assertIn(part, result.stderr)

    def test_friction_what_a_tokenizer_loses_is_said(self):
        text = self.write("a.txt", "ka  lo\tmi\nten   sur\n\n" * 30)
        _, _, said = self.documents(text)
        self.assertIn("come back from their tokens as they were", said)
        command = ["spm_train", f"--input={text}", f"--model_prefix={self.folder}/t5", "--vocab_size=16", "--hard_vocab_limit=false"]
        subprocess.run(command, capture_output=True, check=True)
        result = self.tokenize(text, tokenizer=f"--tokenizer={self.folder}/t5.model")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("30 of 30 texts", result.stderr)
        # In each document one line end and one tab become spaces, and three spaces vanish.
        self.assertIn("lost are 30 of 30 line ends, 30 of 30 tabs, 30 of 150 spaces", result.stderr)

    def test_friction_a_relative_token_file_elsewhere(self):
        run = self.folder / "run"
        settings = ["--model.preset=nano", f"--run.dir={run}", f"--data.tokens={self.tokenizer.name}", "--run.steps=2",
                    "--optim.warmup_steps=1", "--data.seq_len=8", "--data.global_batch=4"]  # fmt: skip
        result = program.switchyard("train", *settings, cwd=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        for words in (["train", run], ["eval", run], ["generate", run]):
            result = program.switchyard(*words, cwd=elsewhere)
            self.assertEqual(result.returncode, 1, words)
            for part in (f"`{self.tokenizer.name}` does not exist", f"relative to `{elsewhere}`", "--data.tokens=FILE"):
                self.assertIn(part, result.stderr, words)


if __name__ == "__main__":
    unittest.main()
