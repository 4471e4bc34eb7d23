#!/usr/bin/python3
"""tools/report.py on made-up runs: one page without external resources, numbers, restarts, differing settings, a run that
is still going, and refusals."""
import html.parser
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Tags(html.parser.HTMLParser):
    """Every tag with its attributes, table cells with their row's class, and unbalanced tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.open, self.unbalanced = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append((dict(attributes).get("class", ""), []))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][1].append(data)

    def row(self, name):
        return next(cells for _, cells in self.rows if cells and cells[0] == name)


class Report(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)

    def tearDown(self):
        self.folder.cleanup()

    def write_run(self, name, steps=100, lr="0.01", outcome="finished", end="\n", switches=True):
        lines = [{"event": "start", "step": 0, "dp": 2, "tp": 1, "time": "2026-01-01T00:00:00Z"}]
        for step in range(1, steps + 1):
            if step == 51:
                lines.append({"event": "resume", "step": 50, "dp": 1, "tp": 2, "checkpoint": "c.h5",
                              "changes": ["parallel.tp: 1 -> 2"]})
            entry = {"step": step, "tokens": 2048 * step, "loss": 4 + 3 * math.exp(-step / 30), "lr": 0.01, "grad_norm": 0.5,
                     "step_s": 0.25, "tokens_per_s": 8192.0, "mfu": 0.3, "mfu_executed": 0.2,
                     "phases": {"forward": 0.1, "backward": 0.15}, "bytes": {"gradients": 2048}}
            if switches:
                entry |= {"vectors_switched": 3, "moments_reset": 3, "residual": 2e-7, "residual_of": "q"}
            if step % 25 == 0:
                entry["val_loss"] = 4.5 if step == 25 else 4.25
            lines.append(entry)
        if outcome == "finished":
            memory = {"frozen": 4096, "total": 4096}
            lines.append({"event": "finish", "step": steps, "outcome": "finished", "reason": "run.steps",
                          "memory": {"planned": memory, "arena": memory, "process": 8192}})
        folder = self.path / name
        folder.mkdir()
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + end)
        (folder / "config.cfg").write_text(f"[method]\nname = switchlora\n\n[optim]\nlr = {lr}\n\n[run]\ndir = {folder}\nsteps = 100\n", errors="replace")
        (folder / "status.json").write_text(json.dumps({"outcome": outcome, "reason": ""}))
        (folder / "lock").write_text("pid 1 on somewhere\n" if outcome == "running" else "")
        return folder

    def report(self, *arguments):
        command = [sys.executable, ROOT / "tools" / "report.py", *arguments]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True)

    def page(self, *arguments):
        result = self.report(*arguments, "-o", "out.html")
        self.assertEqual(result.returncode, 0, result.stderr)
        text = (self.path / "out.html").read_text()
        tags = Tags(text)
        self.assertEqual((tags.unbalanced, tags.open), ([], []))
        for tag, attributes in tags.tags:
            self.assertNotIn(tag, ("script", "link", "iframe"))
            for name in ("src", "href"):
                self.assertTrue(attributes.get(name, "data:").startswith("data:"), f"{tag} {attributes.get(name)}")
        self.assertNotIn("url(", text)
        self.assertNotIn("@import", text)
        return tags, text

    def test_one_run(self):
        tags, text = self.page(self.write_run("a<b"))
        self.assertIn("a&lt;b", text)
        self.assertEqual(tags.row("steps")[1], "100 of 100")
        self.assertEqual(tags.row("validation loss, last")[1], "4.2500")
        self.assertEqual(tags.row("layout (dp x tp)")[1], "2 x 1, 1 x 2")
        self.assertEqual(tags.row("tokens/s, median")[1], "8,192")
        self.assertEqual(tags.row("time in steps")[1], "25 s")
        self.assertEqual(tags.row("gradients")[1], "2 KiB")
        self.assertEqual(tags.row("process less start-up")[1:], ["4 KiB", "8 KiB"])
        self.assertIn(["a<b", "300", "300", "2.00e-07"], [cells for _, cells in tags.rows])
        self.assertTrue(any("parallel.tp: 1 -> 2" in cell for _, cells in tags.rows for cell in cells))
        self.assertGreaterEqual(sum(tag == "img" for tag, _ in tags.tags), 7)

    def test_several_runs_and_what_differs(self):
        tags, _ = self.page(self.write_run("one"), self.write_run("two", lr="0.02"))
        self.assertIn(("differs", ["optim.lr", "0.01", "0.02"]), tags.rows)
        directory = next(row for row in tags.rows if row[1] and row[1][0] == "run.dir")
        self.assertEqual(directory[0], "")  # shown, but it does not change what is trained
        self.assertNotIn("run.steps", [cells[0] for _, cells in tags.rows if cells])
        self.assertEqual(tags.row("optim.lr"), ["optim.lr", "0.01", "0.02"])

    def test_a_run_that_is_going_on_and_one_without_switches(self):
        torn = '\n{"step": 31, "loss": 4.'
        tags, text = self.page(self.write_run("going", steps=30, outcome="running", end=torn, switches=False))
        self.assertIn("Written while training was going on", text)
        self.assertNotIn("ended without a word", text)
        self.assertEqual(tags.row("steps")[1], "30 of 100")
        self.assertNotIn("Switches</h2>", text)

    def test_a_killed_run_is_not_going_on(self):
        for name in ("silent", "released"):
            lock = self.write_run(name, steps=30, outcome="running") / "lock"
            if name == "silent":
                os.utime(lock, (1e9, 1e9))
            else:
                lock.write_text("")
            _, text = self.page(name)
            self.assertNotIn("going on", text)
            self.assertIn(f"{name} ended without a word", text)

    def test_a_run_without_a_step_is_named_and_left_out(self):
        young = self.write_run("young", steps=0, outcome="running")
        alone = self.report(young)
        self.assertEqual(alone.returncode, 1)
        self.assertIn("no run has a training step yet", alone.stderr)
        tags, _ = self.page(self.write_run("old"), young)
        self.assertEqual(len(tags.row("steps")), 2)
        self.assertIn("young/log.jsonl: no training step yet", self.report("old", young, "-o", "out.html").stderr)

    def test_finding_16_names_are_text(self):
        names = ["a$b$c", "_hidden", "<img src=x onerror=alert(1)>", "a&amp;b", os.fsdecode(b"\xff")]
        tags, _ = self.page(*[self.write_run(name) for name in names])
        self.assertEqual(tags.rows[0][1], [*names[:-1], "\N{REPLACEMENT CHARACTER}"])
        self.assertFalse(any("onerror" in attributes for _, attributes in tags.tags))

    def test_finding_16_values_and_settings_are_text(self):
        folder = self.write_run("run")
        (folder / "config.cfg").write_text('[run]\ndir = "<b>\\"$x$\\" # 1"\nsteps = many\n')
        (folder / "status.json").write_text('{"outcome": "<b>", "reason": ["x"], "step": {}}')
        (folder / "environment.json").write_text('{"revision": "<b>", "ranks": 5}')
        with open(folder / "log.jsonl", "a") as log:
            log.write('{"event": "<b>", "step": 3, "reason": "<i>", "time": 5}\n{"event": "start", "step": 0, "dp": "<b>", "tp": 1}\n5\n{"step": [1]}\n')
        tags, text = self.page(folder)
        self.assertNotIn("<b>", text)
        self.assertNotIn("<i>", text)
        self.assertIn("run.dir = &lt;b&gt;&quot;$x$&quot; # 1", text)

    def test_finding_16_a_folder_without_a_log_is_left_out(self):
        self.write_run("good")
        (self.path / "empty").mkdir()
        self.page("empty", "good", "nowhere")
        result = self.report("empty", "good", "nowhere", "-o", "out.html")
        for name in ("empty", "nowhere"):
            self.assertIn(f"left out: {name}", result.stderr)

    def test_refusals(self):
        for arguments in (["nowhere"], [str(self.path)]):
            result = self.report(*arguments)
            self.assertEqual(result.returncode, 1)
            self.assertIn("no such file", result.stderr)


if __name__ == "__main__":
    unittest.main()
