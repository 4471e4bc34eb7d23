#!/usr/bin/env python3
"""Scripts read configurations by asking the program: `switchyard get` prints what a run would use, and nothing else does.

--build=DIRECTORY is where the program is; other arguments are unittest's.
"""
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402


class Get(unittest.TestCase):
    setUp, tearDown = program.Test.setUp, program.Test.tearDown

    def config(self, text):
        path = self.folder / "run.cfg"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def value(self, key, text, *words):
        result = program.switchyard("get", key, self.config(text), *words)
        self.assertEqual((result.returncode, result.stderr), (0, ""), text)
        self.assertTrue(result.stdout.endswith("\n"))
        return result.stdout[:-1]

    def test_finding_06_the_value_that_a_run_uses(self):
        for text, value in (
            ('dir = "a b"', "a b"), ("dir = a b  # comment", "a b"), ("dir = exp#1", "exp#1"), ("dir=exp #1", "exp"),
            ("dir = first\nsteps = 2\ndir = last", "last"), ('dir = "a \\"q\\" $x `y` \\\\ #1"  # comment', 'a "q" $x `y` \\ #1'),
            ("dir =\tt\t\r", "t"), ("  dir   =   runs/ä é  ", "runs/ä é"), ("dir = -x", "-x"), ("dir = a=b", "a=b"),
            ("#dir = no\nsteps = 3", "runs/run"), ("dir = %j.%n", "%j.%n"),
        ):  # fmt: skip
            self.assertEqual(self.value("run.dir", f"[run]\n{text}\n"), value, text)
        self.assertEqual(self.value("run.dir", "[run]\ndir = a\n[data]\nseq_len = 8\n[run]\ndir = b"), "b")
        self.assertEqual(self.value("run.dir", "[run]\ndir = a\n", "--run.dir=x y#z", "--run.dir=last one"), "last one")
        self.assertEqual(self.value("run.steps", "[run]\nsteps = +012\n"), "12")
        self.assertEqual(self.value("method.rank", "[method]\nname = lora\nrank = 4\n"), "4")
        self.assertEqual(self.value("optim.decay_norms", ""), "false")
        self.assertEqual(self.value("run.init_from", ""), "")

    def test_values_are_printed_as_they_are(self):
        for value in ("a\u200fb", "a\u202eb", "tab\there", "caf\u00e9"):
            text = f'[run]\ndir = "{value}"\n'
            self.assertEqual(self.value("run.dir", text), value)
            result = program.switchyard("get", "--as_written", self.config(text))
            self.assertEqual(json.loads(result.stdout), {"run.dir": value})

    def test_a_section_may_have_spaces_within_its_brackets(self):
        self.assertEqual(self.value("run.dir", "[ run ]\ndir = here\n"), "here")

    def test_a_byte_order_mark_is_nothing(self):
        self.assertEqual(self.value("run.dir", b"\xef\xbb\xbf[run]\ndir = here\n"), "here")

    def test_without_a_file_and_of_a_run_directory(self):
        self.assertEqual(program.switchyard("get", "run.steps", "--run.steps=7").stdout, "7\n")
        run = self.folder / "a run"
        run.mkdir()
        (run / "config.cfg").write_text("[run]\ndir = moved since\nsteps = 9\n")
        self.assertEqual(program.switchyard("get", "run.steps", run).stdout, "9\n")
        self.assertEqual(program.switchyard("get", "run.dir", run).stdout, f"{run}\n")

    def test_refusals_print_no_value(self):
        good = "[run]\ndir = x\n"
        for text, words, parts in (
            (good, ["run.step"], ["no key 'run.step'", "run.steps"]),
            (good, ["method.rank", "--method.name=full"], ["method.rank", "not used by method.name = full"]),
            ("[run]\nstepps = 1\n", ["run.dir"], ["unknown key run.stepps", "run.cfg:2"]),
            ("[run]\nsteps = many\n", ["run.dir"], ["run.steps = 'many'"]),
            ("[run]\nst#eps = 1\n", ["run.dir"], ["run.cfg:2", "'st#eps'", "; "]),
            ("[]\nsteps = 1\n", ["run.dir"], ["run.cfg:1", "section ''", "; "]),
            ("[run\nsteps = 1\n", ["run.dir"], ["run.cfg:1"]),
            ("x\x01 = 1\n", ["run.dir"], ["run.cfg:1"]),
            (b"[run]\ndir = \xe9\n", ["run.dir"], ["run.cfg", "after 12 bytes", "UTF-8"]),
            ("[run]\ndir = a\0b\n", ["run.dir"], ["run.cfg", "after 13 bytes"]),
            ("[run]\ndir = 'x y'\n", ["run.dir"], ["single quotes", "double quotes"]),
            (good, ["run.dir", "--run.dir=~/x"], ["begins with ~", "$HOME"]),
            (good, ["run.dir", "--run.dir", "out"], ["write --run.dir=out"]),
            ("\ufeff[run]\ndir = x\n".encode("utf-16"), ["run.dir"], ["UTF-16", "UTF-8"]),
        ):  # fmt: skip
            with self.subTest(text=text, words=words):
                result = program.switchyard("get", words[0], self.config(text), *words[1:])
                self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
                for part in parts:
                    self.assertIn(part, result.stderr)
        for words in ([], ["run.dir", self.folder / "none.cfg"], ["run.dir", self.config(good), self.config(good)], ["--as_written"]):
            result = program.switchyard("get", *words)
            self.assertEqual((result.returncode, result.stdout), (1, ""), words)

    def test_finding_21_a_configuration_of_endless_lines_is_refused(self):
        for content, says in (("k" * 1_000_000 + " = 1\n", "has a line of 1000004 bytes"), ("[run]\n" + "k" * 300 + " = 1\n", "of 300 bytes"),
                              ("#\n" * 3_000_000, "more than 4194304 bytes")):  # fmt: skip
            result = program.switchyard("get", "run.seed", self.config(content))
            self.assertEqual(result.returncode, 1)
            self.assertIn(says, result.stderr)
        self.assertIn("304 bytes long", program.switchyard("get", "run.seed", "--run." + "k" * 300 + "=1").stderr)
        self.assertEqual(self.value("run.steps", "[run]\nsteps = 3 # " + "k" * 9999 + "\n"), "3")

    def test_as_written_knows_no_keys(self):
        text = '[study]\nranks = 1, 2 # two\ndir = "a, b"\n[method.lora]\nrank = 8, 16\n[study]\nranks = 4\n'
        result = program.switchyard("get", "--as_written", self.config(text))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(result.stdout), {"study.ranks": "4", "study.dir": "a, b", "method.lora.rank": "8, 16"})


if __name__ == "__main__":
    unittest.main()
