#!/usr/bin/python3
"""tools/compare_methods.py: what a run gave is a row, and a run whose row is there is not made again, on any clone.

--build=DIRECTORY holds the program.
"""
import csv
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402
from support.program import BUILD, ROOT  # noqa: E402

MEMORY = ("frozen", "copies", "bank", "trainable", "gradients", "moments", "activations", "workspace")


class CompareMethods(program.Test):
    def compare(self, work, *words):
        """(output, rows) of four steps a run."""
        work.mkdir(exist_ok=True)
        shutil.copy(self.tokens, work / "tokens.h5")
        rows = self.folder / "study" / "rows.csv"
        command = [sys.executable, ROOT / "tools" / "compare_methods.py", "--quick", "--steps=4", "--seeds=2", f"--work={work}",
                   f"--program={BUILD / 'switchyard'}", f"--rows={rows}", *words]  # fmt: skip
        result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        with open(rows, newline="", encoding="utf-8") as file:
            return result.stdout, list(csv.DictReader(file))

    def test_rows_hold_what_runs_gave_and_are_taken_on_another_clone(self):
        output, rows = self.compare(self.folder / "work", "--methods=full,switchlora")
        self.assertEqual(output.count("(made)"), 6)
        self.assertEqual([row["method"] for row in rows], ["full"] * 3 + ["switchlora"] * 3)
        for row in rows:
            logs = [path for path in (self.folder / "work").glob(f"{row['method']}_lr{row['lr']}_*seed{row['seed']}_*/log.jsonl")
                    if "_beside" not in str(path)]  # fmt: skip
            self.assertEqual(len(logs), 1)
            last = re.findall(r'"val_loss": ([\d.]+)', logs[0].read_text())[-1]
            self.assertEqual(row["val_loss"], f"{float(last):.4f}")
            self.assertGreater(float(row["step_ratio"]), 0)
            self.assertEqual(row["curve"].split()[-1], f"4:{row['val_loss']}")
            self.assertRegex(row["revision"], r"^\S+$")
        full, switched = rows[0], rows[3]
        self.assertLess(int(switched["trainable"]), int(full["trainable"]))
        self.assertLess(int(switched["sent"]), int(full["sent"]))
        self.assertGreater(int(switched["memory_bank"]), 0)
        self.assertIn("switch_interval=10", switched["settings"])
        best = min(float(row["val_loss"]) for row in rows[:3] if row["seed"] == "0")
        self.assertRegex(output, rf"(?m)^\| full \| .* \| 2 \| .*{best:.4f}")

        again, same = self.compare(self.folder / "clone", "--methods=full,switchlora")
        self.assertEqual(again.count("(known from "), 6)
        self.assertEqual(same, rows)
        self.assertEqual(again[again.index("Validation loss") : again.index("\nrows ")], output[output.index("Validation loss") : output.index("\nrows ")])
        self.assertFalse(list((self.folder / "clone").glob("*seed*")), "a run was made")

        anew, newer = self.compare(self.folder / "work2", "--methods=full", "--again", "--seeds=1")
        self.assertEqual(anew.count("(made)"), 2)
        self.assertEqual([row["val_loss"] for row in newer], [row["val_loss"] for row in rows], "the same program gives the same losses")

    def test_rows_of_another_form_are_not_overwritten(self):
        study = self.folder / "study"
        study.mkdir()
        (study / "rows.csv").write_text("method,loss\nfull,1\n")
        with self.assertRaisesRegex(AssertionError, "has other columns"):
            self.compare(self.folder / "work", "--methods=full")
        self.assertEqual((study / "rows.csv").read_text(), "method,loss\nfull,1\n")

    def test_every_method_of_the_registry_is_compared(self):
        methods = re.findall(r"^    X\((\w+)\)", (ROOT / "src/methods/registry.cpp").read_text(), re.M)
        source = (ROOT / "tools" / "compare_methods.py").read_text()
        self.assertEqual(re.findall(r'^    "(\w+)": \[[\d., ]+\],$', source, re.M), methods)


if __name__ == "__main__":
    unittest.main()
