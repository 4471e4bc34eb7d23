#!/usr/bin/python3
"""tools/scaling_study.py: expansion by formula, refusals, a whole small study with the program, resuming, Slurm's command lines.

--build=DIRECTORY holds the program.
"""
import csv
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support.program import BUILD, ROOT  # noqa: E402

os.environ["SWITCHYARD_PROGRAM"] = str(BUILD / "switchyard")  # reads studies
sys.path.insert(0, str(ROOT / "tools"))
import study_points  # noqa: E402
import study_report  # noqa: E402

STUDY = """
[study]
ranks = 1, 2
repetitions = 2
drop_steps = 1
dir = {dir}/study
[model]
preset = nano
num_layers = 1
[method]
name = full, switchlora
[method.switchlora]
rank = 8
[parallel]
tp = 1, 2
[data]
tokens = {dir}/tokens.h5
seq_len = 32
micro_batch = 2
global_batch = 4
[run]
steps = 1000
stop_step = 4
dtype = f32
"""


class WithFolder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)

    def tearDown(self):
        self.folder.cleanup()

    def write(self, text):
        (self.path / "study.cfg").write_text(text.replace("{dir}", str(self.path)))
        return self.path / "study.cfg"

    def study(self, *changes):
        """The study with some texts replaced."""
        text = STUDY
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        return study_points.read_study(self.write(text))


class Expansion(WithFolder):
    def test_points_are_the_product_of_the_lists(self):
        study = self.study()
        # Two methods; tp 1 on 1 and 2 ranks, tp 2 on 2 ranks; two repetitions.
        self.assertEqual(len(study.points), 2 * 3 * 2)
        self.assertEqual(len({p.name for p in study.points}), len(study.points))
        for point in study.points:
            settings = dict(point.settings)
            self.assertEqual(settings.get("method.rank"), "8" if settings["method.name"] == "switchlora" else None)
            self.assertEqual(point.ranks % int(settings["parallel.tp"]), 0)
            self.assertEqual(settings["run.save_interval"], "0")

    def test_weak_studies_let_the_batch_grow(self):
        study = self.study(("ranks = 1, 2", "kind = weak\nranks = 2, 4, 6"), ("tp = 1, 2", "tp = 2"))
        self.assertEqual({p.ranks: p.setting("data.global_batch") for p in study.points}, {2: "4", 4: "8", 6: "12"})
        self.assertEqual({p.series for p in study.points}, {"full", "switchlora"})
        with self.assertRaisesRegex(study_points.StudyError, "does not grow evenly"):
            self.study(("ranks = 1, 2", "kind = weak\nranks = 3, 4"), ("tp = 1, 2", "tp = 1"))

    def test_bad_studies_are_refused_by_name(self):
        for change, message in (
            (("ranks = 1, 2", "ranks = 1, two"), "study.ranks = two"),
            (("ranks = 1, 2", "ranks = 1\nrank = 2"), "unknown key study.rank"),
            (("ranks = 1, 2\n", ""), "study.ranks is not set"),
            (("stop_step = 4", "stop_step = 1"), "leaves nothing after study.drop_steps = 1"),
            (("ranks = 1, 2", "kind = medium\nranks = 1"), "study.kind = medium"),
            (("tp = 1, 2", "tp = 4"), "multiple of a listed"),
            (("[method.switchlora]", "[method.lora]"), r"\[method.lora\] is of a method"),
            (("[study]", "[studies]"), r"no section \[study\]"),
            (("repetitions = 2", "node_memory = much\nrepetitions = 2"), "study.node_memory = much"),
            (("[run]", "[run"), "study.cfg"),
        ):
            with self.assertRaisesRegex(study_points.StudyError, message):
                self.study(change)


def row(series, ranks, step_s, **phases):
    """A row of results; the time that no phase takes is forward."""
    base = {f"{p}_s": phases.get(p, 0.0) for p in study_report.PHASES}
    base["forward_s"] = step_s - sum(phases.values())
    return {"series": series, "method": series, "model": "m", "dtype": "f32", "problem": series.split(",")[0], "threads": 1, "cores": 64, "revisions": "a", "processors": "p", "ranks": ranks, "tokens_per_step": 1000,
            "step_s": step_s, "step_s_low": step_s, "step_s_high": step_s, "tokens_per_s": 1000 / step_s, **base}


class Efficiency(unittest.TestCase):
    def test_strong(self):
        rows = [row("full", 2, 1.0, communication=0.1), row("full", 8, 0.5, communication=0.2)]
        self.assertAlmostEqual(study_report.efficiency(rows[1], rows), 1.0 * 2 / (0.5 * 8))
        self.assertAlmostEqual(study_report.ideal_step_s(rows[1], rows), 0.25)
        lost = dict(study_report.losses(rows[1], rows))
        self.assertAlmostEqual(lost["communication"], 0.2 - 0.1 / 4)
        self.assertAlmostEqual(lost["forward"], 0.3 - 0.9 / 4)
        self.assertAlmostEqual(sum(lost.values()), 0.5 - 0.25)
        text = " ".join(study_report.sentences(rows))
        self.assertIn("50%", text)
        self.assertIn("175 ms in communication that was not hidden, 75 ms in forward", text)
        self.assertNotIn("share cores", text)
        self.assertIn("share cores", " ".join(study_report.sentences([{**r, "cores": 4} for r in rows])))

    def test_weak(self):
        rows = [row("full", 1, 1.0), {**row("full", 4, 1.25), "tokens_per_step": 4000, "tokens_per_s": 3200.0}]
        self.assertAlmostEqual(study_report.efficiency(rows[1], rows), 0.8)
        self.assertAlmostEqual(study_report.ideal_step_s(rows[1], rows), 1.0)

    def test_the_base_is_the_fastest_layout_on_the_fewest_ranks_of_the_same_method(self):
        rows = [row("full", 2, 1.0), {**row("full", 2, 0.8), "series": "full, tp 2"}, row("lora", 2, 0.1), row("full", 4, 0.5)]
        self.assertAlmostEqual(study_report.efficiency(rows[3], rows), 0.8 * 2 / (0.5 * 4))

    def test_a_large_spread_is_named(self):
        rows = [row("full", 1, 1.0), {**row("full", 2, 0.6), "step_s_low": 0.5, "step_s_high": 0.7}]
        self.assertIn("Repetitions differ by 33% (full, 2 ranks).", " ".join(study_report.sentences(rows)))

    def test_several_programs_are_named(self):
        rows = [row("full", 1, 1.0), {**row("full", 2, 0.5), "revisions": "a, b"}]
        self.assertIn("several revisions of the program (a, b): differences between them may be theirs.", " ".join(study_report.sentences(rows)))
        self.assertNotIn("several", " ".join(study_report.sentences(rows[:1])))


class WholeStudy(WithFolder):
    def run_tool(self, command, *options, program=None, **variables):
        environment = {**os.environ, "SWITCHYARD_PROGRAM": str(program or BUILD / "switchyard"), "OMP_NUM_THREADS": "1",
                       "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **variables}
        return subprocess.run([sys.executable, ROOT / "tools/scaling_study.py", command, self.path / "study.cfg", *options],
                              capture_output=True, text=True, env=environment, cwd=self.path)

    def setUp(self):
        super().setUp()
        rng = random.Random(1)
        words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(300)]
        text = "".join(" ".join(rng.choices(words, k=12)) + ".\n\n" for _ in range(200))
        (self.path / "text.txt").write_text(text)
        subprocess.run([BUILD / "switchyard", "tokenize", self.path / "text.txt", f"--output={self.path}/tokens.h5", "--vocab_size=300"],
                       check=True, capture_output=True,
                       env={**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})

    def test_plan_submit_status_report_and_resume(self):
        # 12 heads on tp 5 and a batch of 4 on 3 ranks do not divide: those points are refused, the others run.
        self.write(STUDY.replace("ranks = 1, 2", "ranks = 1, 2, 3").replace("tp = 1, 2", "tp = 1, 2").replace("repetitions = 2", "repetitions = 1"))
        plan = self.run_tool("plan")
        self.assertEqual(plan.returncode, 0, plan.stderr)
        self.assertIn("8 runs: 8 points", plan.stdout)
        self.assertIn("refused: full, tp 1, 3 ranks; switchlora, tp 1, 3 ranks", plan.stdout)
        self.assertIn("global_batch = 4 is not divisible", plan.stdout)
        result = self.run_tool("submit")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("8 runs: 0 done, 2 left out, 6 to do", result.stdout)
        study = study_points.read_study(self.path / "study.cfg")
        logs = {p.name: (p.run(study) / "log.jsonl").read_bytes() for p in study.points if p.ranks < 3}

        # No point runs twice; a point that was cut off begins anew.
        cut = study.points[0].run(study) / "status.json"
        cut.write_text(json.dumps({"outcome": "running"}))
        self.assertIn("5 done, 2 left out, 1 to do", self.run_tool("submit").stdout)
        for point in study.points[1:]:
            if point.ranks < 3:
                self.assertEqual((point.run(study) / "log.jsonl").read_bytes(), logs[point.name])
        status = self.run_tool("status").stdout.splitlines()
        self.assertEqual(status[-1].split(), ["all", "2", "0", "0", "6", "0"])

        report = self.run_tool("report")
        self.assertEqual(report.returncode, 0, report.stderr)
        with open(self.path / "study/points.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([(r["series"], r["ranks"], r["dp"], r["tp"]) for r in rows[:3]],
                         [("full, tp 1", "1", "1", "1"), ("full, tp 1", "2", "2", "1"), ("full, tp 2", "2", "1", "2")])
        for r in rows:
            self.assertEqual(float(r["tokens_per_step"]), 4 * 32)
            self.assertEqual((r["steps"], r["memory_bytes"]), ("3", r["memory_bytes_planned"]))
            self.assertEqual(float(r["sent_bytes"]), float(r["sent_bytes_planned"]))
            self.assertEqual(float(r["sent_bytes"]) > 0, r["ranks"] != "1")
        page = (self.path / "study/report.html").read_text(encoding="utf-8")
        self.assertEqual(page.count("data:image/png"), 6)
        without_pictures = re.sub(r'"data:image/png;base64,[^"]*"', '""', page)  # base64 may spell any word
        self.assertNotIn("http", without_pictures)
        for name in ("step_time", "throughput", "efficiency", "phases", "bytes", "memory"):
            self.assertGreater((self.path / f"study/{name}.png").stat().st_size, 5000)

    def test_a_failing_point_leaves_the_others(self):
        self.write(STUDY.replace("ranks = 1, 2", "ranks = 1").replace("repetitions = 2", "repetitions = 1"))
        program = self.path / "program"
        program.write_text(f'#!/bin/sh\nif [ "$1" = train ] && grep -q "name = full" "$2"; then echo "[rank 0] no luck" >&2; exit 1; fi\n'
                           f'exec {BUILD}/switchyard "$@"\n')
        program.chmod(0o755)
        result = self.run_tool("submit", program=program)
        self.assertEqual(result.returncode, 1)
        self.assertIn("full-tp-1-ranks1-1: failed (exit code 1): [rank 0] no luck", result.stdout)
        self.assertIn("switchlora-tp-1-ranks1-1: done", result.stdout)
        self.assertEqual(self.run_tool("status").stdout.splitlines()[-1].split(), ["all", "0", "0", "0", "1", "1"])
        self.assertIn("1 points", self.run_tool("collect").stdout)
        self.assertIn("1 done, 0 left out, 1 to do", self.run_tool("submit").stdout)

    def test_what_does_not_fit_and_what_is_not_there(self):
        self.write(STUDY.replace("[study]", "[study]\nnode_memory = 1MiB"))
        plan = self.run_tool("plan")
        self.assertEqual(plan.returncode, 1)
        self.assertIn("do not fit into a node of 1 MiB", plan.stdout)
        self.assertEqual(self.run_tool("collect").returncode, 2)
        self.assertIn("is missing", self.run_tool("plan", program=self.path / "nothing").stderr)

    def test_slurm_gets_one_array_for_each_number_of_ranks(self):
        self.write(STUDY.replace("[study]", "[study]\ntime_limit = 7\nranks_per_node = 1"))
        tools = self.path / "bin"
        tools.mkdir()
        (tools / "sbatch").write_text(f'#!/bin/sh\necho "$@" >> {self.path}/calls\nwc -l < {self.path}/calls\n')
        (tools / "squeue").write_text('#!/bin/sh\necho "1_1 RUNNING"; echo "1_2 PENDING"\n')
        for tool in tools.iterdir():
            tool.chmod(0o755)
        variables = {"PATH": f"{tools}:{os.environ['PATH']}"}
        result = self.run_tool("submit", "--site=slurm", "--sbatch=--partition=p", **variables)
        self.assertEqual(result.returncode, 0, result.stderr)
        calls = (self.path / "calls").read_text().splitlines()
        self.assertEqual(len(calls), 2)
        for words in ("--array=1-4", "--ntasks=1", "--nodes=1", "--time=7", "--partition=p", "jobs/study.sbatch"):
            self.assertIn(words, calls[0])
        for words in ("--array=1-8", "--ntasks=2", "--ntasks-per-node=1", "--nodes=2"):
            self.assertIn(words, calls[1])
        listing = (self.path / "study/points_1x1.txt").read_text().splitlines()
        self.assertTrue(all((pathlib.Path(folder) / "config.cfg").is_file() for folder in listing) and len(listing) == 4)
        # squeue knows two of them; the jobs of the others have ended without a result.
        self.assertEqual(self.run_tool("status", **variables).stdout.splitlines()[-1].split(), ["all", "0", "1", "1", "0", "10"])
        self.assertIn("0 done, 0 left out, 10 to do", self.run_tool("submit", "--site=slurm", **variables).stdout)
        (tools / "sbatch").write_text('#!/bin/sh\necho "sbatch: error: invalid partition specified: p" >&2; exit 1\n')
        refused = self.run_tool("submit", "--site=slurm", "--sbatch=--partition=p", **variables)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("invalid partition specified", refused.stderr)


if __name__ == "__main__":
    unittest.main()
