#!/usr/bin/env python3
"""`switchyard selftest` on one rank and on two: table, JSON as documented, exit codes, and what it refuses or finds wrong."""
import json
import re
import sys
import pathlib
import subprocess
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402
from support.program import BUILD, ENVIRONMENT, MPIRUN, PATIENCE_S, SWITCHING, TINY, arguments  # noqa: E402

RANKS = int(program.option("ranks", "1"))
SECTIONS = ["surroundings", "kernels", "products", "memory", "attention", "attention_kernels", "collectives", "files"]


def documented_keys():
    """Words in code type in the part of docs/selftest.md about the JSON."""
    page = (program.ROOT / "docs/selftest.md").read_text(encoding="utf-8")
    return set(re.findall(r"`([a-z]\w*)`", page.split("## JSON")[1]))


def documented_sections():
    page = (program.ROOT / "docs/selftest.md").read_text(encoding="utf-8").split("## JSON")[1]
    return {name: set(re.findall(r"`([a-z]\w*)`", row)) for name, row in re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.M)}


def keys_of(value):
    """All keys in a JSON value; those of `variables` are names of the machine's."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if isinstance(value, dict):
        return set(value).union(*(keys_of(v) for k, v in value.items() if k != "variables"))
    return set()


class SelfTest(unittest.TestCase):
    setUp, tearDown = program.Test.setUp, program.Test.tearDown

    def selftest(self, *words, **changes):
        settings = {**TINY, **SWITCHING, "run.dir": self.folder / "run", "io.window": 65536, **changes}
        launcher = [*MPIRUN, "-n", str(RANKS)] if RANKS > 1 else []
        command = [*launcher, BUILD / "switchyard", "selftest", *words, *arguments(settings)]
        return subprocess.run([str(word) for word in command], env=ENVIRONMENT, timeout=PATIENCE_S, capture_output=True, text=True)

    def test_table_and_file(self):
        file = self.folder / "machine.json"
        result = self.selftest(f"--output={file}")
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        data = json.loads(file.read_text())
        lines = [line for section in SECTIONS for line in data[section]]
        shown = re.findall(r"^  (ok|slow|FAILED) +(\S.*)$", result.stdout, re.M)
        self.assertEqual(len(shown), len(lines), result.stdout)
        for (verdict, rest), line in zip(shown, lines):
            self.assertEqual(verdict.lower(), line["verdict"], line)
            self.assertTrue(rest.startswith(line["name"]), (rest, line["name"]))
            self.assertEqual(line["advice"] == "", line["verdict"] == "ok", line)
            if line["advice"]:
                self.assertIn(f"-> {line['advice']}\n", result.stdout)
        self.assertRegex(result.stdout, rf"\nself-test: {len(lines)} lines, 0 failed, \d+ slow, ")
        self.assertFalse((self.folder / "run").exists())
        self.assertEqual(list(self.folder.iterdir()), [file])

    def test_json_is_what_the_page_says(self):
        result = self.selftest("--json", **{"parallel.tp": RANKS})
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        data = json.loads(result.stdout)
        self.assertEqual(data["schema_version"], 1)
        documented, sections = documented_keys(), documented_sections()
        self.assertEqual(keys_of(data) - documented, set())
        self.assertEqual(list(data), list(sections))
        # Every key that a row names is there; other words in code type are values.
        common = {"name", "verdict", "advice"}
        values = {"ok", "slow", "failed", "yes", "no", "unknown", "square", "forward", "exchange", "write", "read"}
        for section in SECTIONS:
            produced = keys_of(data[section]) - common - {"least", "median", "most", "least_rank", "most_rank"}
            if section == "collectives" and RANKS == 1:
                self.assertEqual(data[section], [])
                continue
            self.assertEqual(produced, sections[section] - values, section)
        for section in ("program", "machine", "model"):
            of_gpus = {"gpu", "number", "name"} if section == "machine" else set()
            self.assertEqual(keys_of(data[section]) | of_gpus, sections[section], section)

    def test_numbers_are_those_of_the_layout(self):
        data = json.loads(self.selftest("--json", **{"parallel.tp": RANKS}).stdout)
        machine = data["machine"]
        self.assertEqual((machine["num_ranks"], machine["tp"], machine["dp"]), (RANKS, RANKS, 1))
        self.assertEqual(len(machine["ranks"]), RANKS)
        for rank in machine["ranks"]:
            self.assertTrue(all(rank[key] for key in ("host", "cores", "device")), rank)
        head = [line for line in data["products"] if line["weights"] == "lm_head" and line["pass"] == "forward"]
        vocabulary = (-(-32100 // RANKS) + 15) // 16 * 16
        self.assertEqual([(line["m"], line["n"], line["k"]) for line in head], [(vocabulary, 8, 24)])
        for line in data["products"] + data["attention"]:
            self.assertGreater(line["flop_per_s"]["least"], 0)
        groups = {(line["operation"], line["group"], line["group_ranks"]) for line in data["collectives"]}
        self.assertEqual(groups, {(op, "tp", RANKS) for op in ("all-reduce", "exchange")} if RANKS > 1 else set())
        for kernel in data["kernels"]:
            self.assertEqual(set(kernel["error_of_tolerance"]), {"f32", "bf16", "f64"})

    def test_a_line_that_fails_ends_with_one(self):
        """/proc takes files of nobody, root included."""
        result = self.selftest(**{"run.dir": "/proc/self/run"})
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertRegex(result.stdout, r"\n  FAILED  write ")
        self.assertRegex(result.stdout, r"\n          -> .*choose another run.dir")
        self.assertRegex(result.stdout, r"\nself-test: \d+ lines, 1 failed, ")
        self.assertNotIn("  read ", result.stdout)

    def test_what_is_refused(self):
        for words, changes, message in (
            ([], {"parallel.tp": RANKS + 1}, "parallel.tp"),
            ([], {"run.dtype": "f16"}, "run.dtype"),
            (["nowhere.cfg"], {}, "nowhere.cfg"),
            (["--output=/proc/self/x.json"], {}, "/proc/self/x.json"),
        ):
            result = self.selftest(*words, **changes)
            self.assertNotEqual(result.returncode, 0, result.stdout)
            self.assertEqual(len(re.findall(r"^\[rank \d+\] .*$", result.stderr, re.M)), 1, result.stderr)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    unittest.main()
