#!/usr/bin/python3
"""tools/compare_methods.py: what a run gave is a row, and a run whose row is there is not made again, on any clone.

--build=DIRECTORY holds the program.
"""
import csv
import hashlib
import math
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402
from support.program import BUILD, ROOT  # noqa: E402

sys.path.insert(0, str(ROOT / "tools"))
import compare_methods  # noqa: E402
import compare_revisions  # noqa: E402
import method_plot  # noqa: E402
import method_rows  # noqa: E402
import method_runs  # noqa: E402



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
            logs = list((self.folder / "work").glob(f"{row['method']}_lr{row['lr']}_*seed{row['seed']}_*/log.jsonl"))
            self.assertEqual(len(logs), 1)
            last = re.findall(r'"val_loss": ([\d.]+)', logs[0].read_text())[-1]
            self.assertEqual(row["val_loss"], f"{float(last):.4f}")
            self.assertEqual(row["curve"].split()[-1], f"4:{row['val_loss']}")
            self.assertRegex(row["revision"], r"^\S+$")
        full, switched = rows[0], rows[3]
        self.assertLess(int(switched["trainable"]), int(full["trainable"]))
        self.assertLess(int(switched["sent"]), int(full["sent"]))
        self.assertGreater(int(switched["memory_bank"]), 0)
        self.assertIn("switch_interval=10", switched["settings"])
        best = min(float(row["val_loss"]) for row in rows[:3] if row["seed"] == "0")
        of_best = [row["val_loss"] for row in rows[:3] if row["lr"] == next(r["lr"] for r in rows[:3] if r["seed"] == "1")]
        mean = statistics.mean(map(float, of_best))
        self.assertRegex(output, rf"(?m)^\| full \| .* \| 2 \| {mean:.4f} \|")
        self.assertIn(f"{best:.4f}", of_best)

        shipped = self.folder / "work" / "methods" / "switchlora.cfg"
        chosen = next(row for row in rows[3:] if row["seed"] == "1")
        wanted = {"method.name": "switchlora", "optim.lr": chosen["lr"], "optim.dense_lr": chosen["dense_lr"], "run.steps": "4", "model.hidden_size": "128"}
        for key, value in (wanted | dict(word.split("=") for word in chosen["settings"].split())).items():
            self.assertEqual(program.switchyard("get", key, shipped).stdout.strip(), value, key)

        again, same = self.compare(self.folder / "clone", "--methods=full,switchlora")
        self.assertEqual(again.count("(known from "), 6)
        self.assertEqual(same, rows)
        self.assertEqual(again[again.index("Validation loss") : again.index("\nrows ")], output[output.index("Validation loss") : output.index("\nrows ")])
        self.assertFalse(list((self.folder / "clone").glob("*seed*")), "a run was made")

        for log in (self.folder / "work").glob("full_*/log.jsonl"):  # which a run made anew does not read
            log.write_text(log.read_text().replace('"val_loss": ', '"val_loss": 1'))
        anew, newer = self.compare(self.folder / "work", "--methods=full", "--again", "--seeds=1")
        self.assertEqual(anew.count("(made)"), 2)
        self.assertEqual([row["val_loss"] for row in newer], [row["val_loss"] for row in rows], "the same program gives the same losses")

    def test_the_fingerprint_is_of_the_tokens(self):
        """A row is taken for the same text in any folder, and never for another text."""
        elsewhere, other = (method_runs.fingerprint(program.make_tokens(self.folder, seed)) for seed in (1, 2))
        self.assertEqual(method_runs.fingerprint(self.tokens), elsewhere)
        self.assertNotEqual(elsewhere, other)

    def test_a_folder_belongs_to_what_made_it(self):
        """Another program, configuration or text makes its own runs in the same --work."""
        args = compare_methods.arguments(["--work=w"])
        args.config, args.tokens, args.revision = "a", "b", "c"
        folders = {method_runs.Experiment(args, "full", 0.1, 0.1, 0).dir}
        for name in ("config", "tokens", "revision"):
            setattr(args, name, "other")
            folders.add(method_runs.Experiment(args, "full", 0.1, 0.1, 0).dir)
        self.assertEqual(len(folders), 4)

    def test_rows_of_two_studies_at_once_are_all_kept(self):
        first, second = (method_rows.Rows(self.folder / "rows.csv", ["method", "lr", "revision"], ["method", "lr"]) for _ in range(2))
        for rows, method in ((first, "lora"), (second, "full"), (first, "dora"), (second, "full")):
            rows.add({"method": method, "lr": "1", "revision": "r"})
        with open(self.folder / "rows.csv", newline="", encoding="utf-8") as file:
            self.assertEqual(sorted(row["method"] for row in csv.DictReader(file)), ["dora", "full", "lora"])

    def test_a_seed_that_diverged_is_shown(self):
        rest = {"lr": "1", "dense_lr": "1", "steps": "4", "trainable": "1", "sent": "1", "revision": "r"} | {f"memory_{name}": "1" for name in method_rows.MEMORY}
        best = {method: [rest | {"method": method, "seed": str(seed), "val_loss": loss} for seed, loss in enumerate(losses)]
                for method, losses in (("full", ("4.0", "4.2")), ("lora", ("3.9", "inf")))}
        text = method_rows.tables(best, [], {}, 8)
        self.assertIn("| full | 1 | 1 | 2 | 4.1000 | 0.1414 |  |", text)
        self.assertIn("| lora | 1 | 1 | 2 | inf |  |  |", text)
        method_plot.plot(best, self.folder / "plot.png")
        self.assertGreater((self.folder / "plot.png").stat().st_size, 1000)

    def test_plans_say_what_plan_says(self):
        command = [sys.executable, ROOT / "tools" / "compare_methods.py", "--methods=full,lora", "--plans=20m:4", f"--program={BUILD / 'switchyard'}"]
        printed = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=100, check=True).stdout
        found = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in re.findall(r"(?m)^\| (.* \|)$", printed)}
        plan = program.switchyard("plan", "--ranks=4", "--model.preset=20m", "--method.name=lora", "--run.dtype=bf16", "--model.vocab_size=32000",
                                  "--model.recompute=true", "--data.seq_len=2048", "--data.micro_batch=1", "--data.global_batch=512").stdout
        memory, sent = (re.findall(r"(?m)^  all +(\S+) (\w+)", plan)[i] for i in (0, 1))
        for (value, unit), cell in ((memory, found["lora"][2]), (sent, found["lora"][3])):
            self.assertAlmostEqual(float(cell), float(value) * {"GiB": 1, "MiB": 2**-10}[unit], delta=0.06)
        self.assertEqual(found["full"][4:6], ["", ""], "nothing is frozen")

    def test_steps_are_timed_beside_those_of_full(self):
        output, _ = self.compare(self.folder / "work", "--methods=full", "--seeds=1")
        output, _ = self.compare(self.folder / "work", "--methods=lora", "--times")
        with open(self.folder / "study" / "step_times.csv", newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        self.assertEqual(row["method"], "lora")
        self.assertTrue(0 < float(row["lowest"]) <= float(row["step_ratio"]) <= float(row["highest"]))
        output, _ = self.compare(self.folder / "work", "--methods=full,lora", "--seeds=1")
        self.assertRegex(output, rf"(?m)^\| lora \| {float(row['step_ratio']):.2f} \|")

    def test_the_sweep_goes_on_until_the_best_has_worse_neighbours(self):
        self.assertEqual([compare_methods.next_rate(rate, True) for rate in (0.001, 0.003, 0.03, 1)], [0.003, 0.01, 0.1, 3])
        self.assertEqual([compare_methods.next_rate(rate, False) for rate in (0.001, 0.003, 0.03, 1)], [0.0003, 0.001, 0.01, 0.3])

        class Bowl(compare_methods.Study):  # lowest at (0.1, 0.0003), far outside the first grid; diverges from 0.3 on
            def make(self, experiments):
                self.made += [experiment.rates for experiment in experiments]
                places = [(math.log10(lr / 0.1), math.log10(dense / 0.0003)) for lr, dense in self.made[-len(experiments):]]
                return [{"val_loss": f"{x * x + y * y}" if x < 0.4 else "inf"} for x, y in places]

        args = compare_methods.arguments(["--methods=galore", f"--rows={self.folder / 'none.csv'}"])
        args.config = args.tokens = args.revision = ""
        study = Bowl(args)
        study.made = []
        study.sweep()
        self.assertEqual(study.best("galore")[0], (0.1, 0.0003))
        self.assertEqual(len(study.made), len(set(study.made)))
        for near in compare_methods.neighbours(0.1, 0.0003):
            self.assertIn(near, study.made)

    def test_differences_are_paired_by_seed(self):
        rows = [{"seed": str(seed), "val_loss": f"{loss}"} for seed, loss in enumerate((4.1, 4.3, 4.5))]
        full = [{"seed": str(seed), "val_loss": f"{loss}"} for seed, loss in ((2, 4.2), (0, 4.0), (1, 4.1))]
        self.assertEqual(method_rows.paired(rows, full), "+0.2000 ± 0.0577")

    def test_rows_of_another_form_are_not_overwritten(self):
        study = self.folder / "study"
        study.mkdir()
        (study / "rows.csv").write_text("method,loss\nfull,1\n")
        with self.assertRaisesRegex(AssertionError, "has other columns"):
            self.compare(self.folder / "work", "--methods=full")
        self.assertEqual((study / "rows.csv").read_text(), "method,loss\nfull,1\n")

    def test_what_is_shipped_is_the_best_row(self):
        study = method_rows.Rows(ROOT / "docs/study/methods.csv", method_rows.FIELDS, method_rows.SETTINGS)
        present = hashlib.sha256(method_runs.CONFIG.read_bytes()).hexdigest()[:10]
        text = method_runs.CONFIG.read_text(encoding="utf-8").split("\n", 1)[1]
        for method in compare_methods.RATES:
            rows = [row for row in study.rows if (row["method"], row["config"], row["steps"], row["seed"]) == (method, present, "750", "0")]
            best = min(rows, key=lambda row: float(row["val_loss"]))
            shipped = (ROOT / "jobs/configs/methods" / f"{method}.cfg").read_text(encoding="utf-8")
            self.assertEqual(shipped, method_rows.configuration(text, best))
            repeats = [row for row in study.rows if all(row[key] == best[key] for key in method_rows.SETTINGS if key != "seed")]
            self.assertEqual({row["seed"] for row in repeats}, {"0", "1", "2"}, method)

    def test_every_method_of_the_registry_is_compared(self):
        methods = program.method_names()
        source = (ROOT / "tools" / "compare_methods.py").read_text()
        self.assertEqual(re.findall(r'^    "(\w+)": \[[\d., ]+\],$', source, re.M), methods)
        self.assertEqual(sorted(compare_revisions.METHODS), sorted(methods))


if __name__ == "__main__":
    unittest.main()
