#!/usr/bin/python3
"""tools/plot_run.py on a made-up log of two parts: picture, restart line, table, torn last line, refusals."""
import csv
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import matplotlib.image
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STEPS, HALF = 300, 150


def log_lines(restart):
    """A run of STEPS steps, resumed on another layout at HALF; without the event if not `restart`."""
    lines = [{"event": "start", "step": 0, "dp": 2, "tp": 1}]
    for step in range(1, STEPS + 1):
        if step == HALF + 1 and restart:
            lines.append({"event": "resume", "step": HALF, "dp": 1, "tp": 2})
        rate = (9000 if step <= HALF else 7500) + 300 * math.sin(7.3 * step)
        entry = {
            "step": step, "tokens": 2048 * step, "loss": 3.5 + 4.1 * math.exp(-step / 80) + 0.08 * math.sin(12.9 * step),
            "lr": 1e-3, "grad_norm": 0.5, "step_s": 2048 / rate, "tokens_per_s": rate,
        }  # fmt: skip
        if step % 50 == 0:
            entry["val_loss"] = 3.55 + 4.1 * math.exp(-step / 80)
        lines.append(entry)
    return [json.dumps(line) for line in lines]


class PlotRun(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, lines, end="\n"):
        (self.path / name).mkdir()
        (self.path / name / "log.jsonl").write_text("\n".join(lines) + end, encoding="utf-8")

    def plot(self, *arguments):
        return subprocess.run(
            [sys.executable, ROOT / "tools" / "plot_run.py", *arguments], cwd=self.path, capture_output=True, text=True
        )

    def picture(self, *arguments):
        result = self.plot(*arguments, "-o", "out.png")
        self.assertEqual(result.returncode, 0, result.stderr)
        return matplotlib.image.imread(self.path / "out.png")[..., :3], result

    def test_draws_losses_rate_and_restart(self):
        self.write("run", log_lines(restart=True))
        image, result = self.picture("run")
        self.assertGreaterEqual(image.shape[0], 600)
        self.assertGreaterEqual(image.shape[1], 900)
        blue = np.array([0x1F, 0x77, 0xB4]) / 255  # training and rate
        red = np.array([0xD6, 0x27, 0x28]) / 255  # validation
        for colour, least in ((blue, 1500), (red, 200)):
            count = int((np.abs(image - colour).max(axis=2) < 0.02).sum())
            self.assertGreater(count, least)
        self.assertIn("step 300", result.stdout)
        self.assertIn("1 restart", result.stdout)

    def test_the_restart_line_is_where_it_belongs(self):
        self.write("run", log_lines(restart=True))
        self.write("smooth", log_lines(restart=False))
        with_line, _ = self.picture("run")
        without, result = self.picture("smooth")
        self.assertIn("0 restart", result.stdout)
        # Dark pixels of the lower panel, per column: a dotted vertical line adds a column in the middle of the axes.
        lower = slice(int(with_line.shape[0] * 0.70), int(with_line.shape[0] * 0.85))
        added = ((with_line[lower].max(axis=2) < 0.2).sum(axis=0)).astype(int) - (without[lower].max(axis=2) < 0.2).sum(axis=0)
        column = int(np.argmax(added))
        self.assertGreater(added[column], 20)
        self.assertAlmostEqual(column / with_line.shape[1], 0.53, delta=0.06)

    def test_table_has_every_step(self):
        self.write("run", log_lines(restart=True))
        self.picture("run", "--csv", "table.csv")
        with open(self.path / "table.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([int(r["step"]) for r in rows], list(range(1, STEPS + 1)))
        self.assertEqual(sum(r["val_loss"] != "" for r in rows), STEPS // 50)
        self.assertEqual(float(rows[-1]["loss"]), json.loads(log_lines(True)[-1])["loss"])

    def test_running_run_and_two_runs(self):
        lines = log_lines(restart=True)
        self.write("running", lines[:100], end='\n{"step": 100, "lo')
        _, result = self.picture("running")
        self.assertIn("step 99,", result.stdout)
        self.assertEqual(result.stderr, "")
        self.write("other", lines[:3] + ["{torn}"] + lines[3:])
        _, result = self.picture("running", "other")
        self.assertIn("other: step 300", result.stdout)
        self.assertIn(":4: not JSON", result.stderr)

    def test_refuses_what_it_cannot_draw(self):
        (self.path / "empty").mkdir()
        self.assertIn("no such file", self.plot("empty").stderr)
        self.assertEqual(self.plot("empty", "nowhere").returncode, 1)
        self.write("young", log_lines(True)[:1])
        result = self.plot("young")
        self.assertEqual(result.returncode, 1)
        self.assertIn("no training step yet", result.stderr)

    def test_finding_16_names_are_text(self):
        for name in ("a$b", "$x$ ^_{2}", "_hidden", "\\alpha", "<i>&", "100 %", os.fsdecode(b"\xff\xfe")):
            self.write(name, log_lines(restart=True))
            _, result = self.picture(f"./{name}")
            self.assertNotIn("Warning", result.stderr)
            self.assertIn(name if name.isascii() else "\N{REPLACEMENT CHARACTER}", result.stdout)
        for name in ("_a", "_b", "xa", "xb"):
            self.write(name, log_lines(restart=False))
        dark = lambda image: int((image.max(axis=2) < 0.3).sum())  # noqa: E731  (text)
        self.assertGreater(dark(self.picture("_a", "_b")[0]), 0.9 * dark(self.picture("xa", "xb")[0]), "names in the legend")
        (self.path / "matplotlibrc").write_text("text.usetex: True\n")  # of the user, in the working directory
        self.picture("a$b", "_hidden")

    def test_finding_16_what_cannot_be_shown_is_left_out(self):
        self.write("good", log_lines(restart=False))
        (self.path / "empty").mkdir()
        (self.path / "odd" / "log.jsonl").mkdir(parents=True)
        _, result = self.picture("nowhere", "good", "empty", "odd")
        self.assertIn("good: step 300", result.stdout)
        for name in ("nowhere", "empty", "odd"):
            self.assertRegex(result.stderr, f"left out: .*{name}")

    def test_a_picture_that_cannot_be_written_is_said(self):
        self.write("run", log_lines(restart=False))
        for output in ("no such folder/x.png", "x.abc"):
            result = self.plot("run", "-o", output)
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stderr, r"^plot_run.py: .*; give another -o")

    def test_finding_24_odd_lines_are_named_and_left_out(self):
        odd = ["5", '{"step": [1]}', '"text"', "null", "[[", '{"step": true, "loss": 1}', '{"step": -1}', '{"event": 7}', '{"event": "resume", "step": "x"}',
               '{"step": 1e999, "loss": 2}', "[" * 100000, '{"loss": 3}']
        harmless = ['{"step": 2, "loss": "x", "phases": 3, "bytes": {"a": "b"}}', '{"step": 3, "loss": NaN, "tokens": 1%s}' % ("0" * 400),
                    '{"event": "resume", "dp": "a", "tp": null, "changes": 5}', '{"event": "finish", "memory": [1]}', "\0" * 50]  # fmt: skip
        lines = log_lines(restart=True)
        self.write("run", lines[:20] + odd + harmless + lines[20:])
        _, result = self.picture("run", "--csv", "table.csv")
        self.assertIn("run: step 300", result.stdout)
        self.assertNotIn("Traceback", result.stderr)
        self.assertEqual(result.stderr.count("ignored"), 6, "five lines, and how many more")
        self.assertIn(f"{len(odd) - 5} more lines ignored", result.stderr)


if __name__ == "__main__":
    unittest.main()
