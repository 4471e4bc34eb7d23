#!/usr/bin/python3
"""What a study must not lose or confuse: running points, its files, names of points, bases of efficiency. Nothing is trained.

--build=DIRECTORY holds the program.
"""
import contextlib
import fcntl
import io
import json
import os
import pathlib
import signal
import sys
import tempfile
import types
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support.program import BUILD, ROOT  # noqa: E402

os.environ["SWITCHYARD_PROGRAM"] = str(BUILD / "switchyard")  # reads studies
sys.path.insert(0, str(ROOT / "tools"))
import scaling_study  # noqa: E402
import study_files  # noqa: E402
import study_points  # noqa: E402
import study_report  # noqa: E402
import study_results  # noqa: E402

STUDY = """
[study]
ranks = 1
repetitions = 2
drop_steps = 1
dir = {dir}/study
[method]
name = full
[data]
global_batch = 4
[run]
steps = 4
"""


class WithStudy(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)
        self.tools = self.path / "bin"
        self.tools.mkdir()
        path = mock.patch.dict(os.environ, {"PATH": f"{self.tools}:{os.environ['PATH']}"})
        path.start()
        self.addCleanup(path.stop)

    def study(self, *changes):
        text = STUDY
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (self.path / "study.cfg").write_text(text.replace("{dir}", str(self.path)))
        return study_points.read_study(self.path / "study.cfg")

    def tool(self, name, script):
        (self.tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.tools / name).chmod(0o755)

    def started(self, study, point, outcome):
        """A point with a run directory that says `outcome`."""
        config = scaling_study.write_config(study, point)
        point.run(study).mkdir()
        (point.run(study) / "status.json").write_text(json.dumps({"outcome": outcome}))
        return config

    def submit(self, study, site=""):
        """(what was printed, points that would have run here)"""
        ran, printed = [], io.StringIO()
        plans = {p.name: ({}, "") for p in study.points}
        with mock.patch.object(scaling_study, "plan_study", lambda _: plans), contextlib.redirect_stdout(printed), \
                mock.patch.object(scaling_study, "run_here", lambda _, point, *__: ran.append(point.name) or "done"):
            scaling_study.command_submit(study, types.SimpleNamespace(site=site, sbatch=[]))
        return printed.getvalue(), ran


class AtWork(WithStudy):
    def test_a_local_submit_leaves_points_of_slurm(self):
        study = self.study()
        self.started(study, study.points[0], "running")
        (study.dir / "submitted.json").write_text(json.dumps({p.name: f"7_{i}" for i, p in enumerate(study.points, 1)}))
        self.tool("squeue", 'echo "7_1 RUNNING"')
        printed, ran = self.submit(study)
        self.assertEqual(ran, [study.points[1].name])
        self.assertIn("1 to do, 1 queued or running in Slurm", printed)
        # The point that ran here is no longer a job of Slurm.
        self.assertEqual(list(json.loads((study.dir / "submitted.json").read_text())), [study.points[0].name])

    def test_a_second_submit_is_refused(self):
        study = self.study()
        study.dir.mkdir()
        with open(study.dir / "submit.lock", "a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            for site in ("", "slurm"):
                with self.assertRaisesRegex(study_points.StudyError, "another submit of this study is at work.*submit.lock"):
                    self.submit(study, site)
        self.assertEqual(len(self.submit(study)[1]), 2)

    def test_a_point_left_running_keeps_the_lock(self):
        study = self.study()
        script = f"sleep 3600 & echo $! > {self.path}/pid"  # as a killed submit leaves it behind
        with mock.patch.object(scaling_study, "MPI_RUN", script), study_files.only_submit(study) as lock:
            scaling_study.run_here(study, study.points[0], lock)
        self.addCleanup(os.kill, int((self.path / "pid").read_text()), signal.SIGKILL)
        with self.assertRaisesRegex(study_points.StudyError, "or a point that it started"):
            self.submit(study)

    def test_a_failing_squeue_stops_everything(self):
        study = self.study()
        self.started(study, study.points[0], "running")
        (study.dir / "submitted.json").write_text(json.dumps({study.points[0].name: "7_1"}))
        self.tool("squeue", 'echo "Unable to contact slurm controller" >&2; exit 1')
        for site in ("", "slurm"):
            with self.assertRaisesRegex(study_points.StudyError, "Unable to contact slurm controller.*nothing was touched"):
                self.submit(study, site)
        with mock.patch.dict(os.environ, {"PATH": str(self.path)}), self.assertRaisesRegex(study_points.StudyError, "no squeue here"):
            self.submit(study)
        self.assertTrue((study.points[0].run(study) / "status.json").exists())

    def test_a_later_array_has_a_list_of_its_own(self):
        study = self.study()
        self.tool("squeue", 'echo "1_1 PENDING"')
        self.tool("sbatch", "echo 1")
        self.submit(study, "slurm")
        first = (study.dir / "points_1x1.txt").read_text()
        self.submit(study, "slurm")
        self.assertEqual((study.dir / "points_1x1.txt").read_text(), first)
        self.assertEqual((study.dir / "points_1x1_2.txt").read_text(), f"{study.points[1].folder(study)}\n")


class Files(WithStudy):
    def test_a_torn_file_is_named(self):
        study = self.study()
        study.dir.mkdir()
        for name, read in (("submitted.json", scaling_study.states), ("plans.json", study_results.collect)):
            for text in ('{"a": ', "[]", ""):
                (study.dir / name).write_text(text)
                with self.assertRaisesRegex(study_points.StudyError, f"{name} is damaged"):
                    read(study)
            (study.dir / name).unlink()
            read(study)

    def test_a_full_disk_keeps_the_old_file(self):
        path = self.path / "points.csv"
        path.write_text("old")
        with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            with self.assertRaisesRegex(study_points.StudyError, "points.csv .No space left on device; what was there is kept.; free space"):
                study_files.write_whole(path, "new")
        self.assertEqual(path.read_text(), "old")
        self.assertEqual([p.name for p in self.path.glob("points*")], ["points.csv"])
        study_files.write_whole(path, "new")
        self.assertEqual(path.read_text(), "new")


class Points(WithStudy):
    def test_a_weak_study_of_several_batches_keeps_them_apart(self):
        study = self.study(("ranks = 1", "kind = weak\nranks = 1, 2"), ("global_batch = 4", "global_batch = 4, 8"))
        self.assertEqual(len({p.name for p in study.points}), 8)
        # On two ranks the batch has grown; the line is still that of the batch on one rank.
        self.assertEqual({(p.series, p.ranks, p.setting("data.global_batch")) for p in study.points},
                         {("global_batch 4", 1, "4"), ("global_batch 4", 2, "8"), ("global_batch 8", 1, "8"), ("global_batch 8", 2, "16")})

    def test_names_are_distinct_or_refused(self):
        names = {p.name for p in self.study(("name = full", "name = full\n[optim]\nlr = 1e-3, 1e+3")).points}
        self.assertEqual(len(names), 4)
        with self.assertRaisesRegex(study_points.StudyError, "optim.lr lists 1 twice"):
            self.study(("name = full", "name = full\n[optim]\nlr = 1, 2, 1"))
        with self.assertRaisesRegex(study_points.StudyError, "'lr 1' and 'lr -1' would share the folder lr-1-ranks1-1"):
            self.study(("name = full", "name = full\n[optim]\nlr = 1, -1"))

    def test_an_edited_study_does_not_take_old_points(self):
        study = self.study()
        self.started(study, study.points[0], "finished")
        (study.points[0].run(study) / "environment.json").write_text(json.dumps({"num_ranks": 1, "num_threads": 1}))
        self.assertEqual(self.submit(study)[1], [study.points[1].name])
        for change, message in ((("global_batch = 4", "global_batch = 8"), "data.global_batch was 4, is now 8"),
                                (("name = full", "name = full\nrank = 3"), "method.rank was not set, is now 3"),
                                (("ranks = 1", "ranks = 1\nthreads = 2"), "num_threads was 1, is now 2")):
            edited = self.study(change)
            with self.assertRaisesRegex(study_points.StudyError, message + ".*Set another study.dir"):
                self.submit(edited)
            with self.assertRaisesRegex(study_points.StudyError, message):
                scaling_study.command_collect(edited, None)
        self.assertTrue((study.points[0].run(study) / "status.json").exists())


class Sites(WithStudy):
    def test_the_site_reaches_sbatch_and_is_checked_first(self):
        site = self.path / "site.env"
        site.write_text("job_options=(--nodes=1 '--comment=two words')\nranks_per_node=2\n")
        self.tool("sbatch", f'for word in "$@"; do echo "$word"; done > {self.path}/words; echo 1')
        study = self.study(("ranks = 1", "ranks = 4"))
        with self.assertRaisesRegex(study_points.StudyError, "no site 'nowhere'"):
            self.submit(study, "nowhere")
        self.assertFalse(study.dir.exists())
        self.submit(study, str(site))
        words = (self.path / "words").read_text().splitlines()
        self.assertIn("--comment=two words", words)
        self.assertIn("--ntasks-per-node=2", words)
        self.assertLess(words.index("--nodes=1"), words.index("--nodes=2"))  # the last one counts
        self.assertEqual(words[-1], str(site))


class Configurations(WithStudy):
    def test_finding_06_the_program_reads_the_study(self):
        """Quotes, # and repeated keys have the meaning that they have for the program, and come back from a point's file."""
        study = self.study(('dir = {dir}/study', 'dir = first\ndir = "{dir}/a study #1"  # comment'),
                           ("global_batch = 4", 'global_batch = 4\ntokens = "a #1 \\"b\\".h5"'))
        self.assertEqual(study.dir, self.path / "a study #1")
        point = study.points[0]
        self.assertEqual(point.setting("data.tokens"), 'a #1 "b".h5')
        config = scaling_study.write_config(study, point)
        self.assertEqual(study_points.settings_of(config), dict(point.settings))
        self.assertEqual(study_points.as_written(config)["run.dir"], str(point.run(study)))
        with self.assertRaisesRegex(study_points.StudyError, "study.cfg:.*closing quote"):
            self.study(("global_batch = 4", 'global_batch = "4'))

    def test_finding_24_percent_signs_are_not_expanded(self):
        self.tool("sbatch", f'for word in "$@"; do echo "$word"; done > {self.path}/words; echo 1')
        study = self.study(("dir = {dir}/study", "dir = {dir}/50%j"))
        self.submit(study, "slurm")
        self.assertIn(f"--output={self.path}/50%%j/slurm_%A_%a.log", (self.path / "words").read_text().splitlines())


class Results(WithStudy):
    def finished(self, study, point, steps, memory=100, cores="0-1"):
        """A finished run with a step of (seconds, forward, bytes) each."""
        self.started(study, point, "finished")
        log = [{"event": "start", "dp": 1, "tp": 1}]
        log += [{"step": i, "loss": 1.0, "tokens": 10 * i, "step_s": s, "phases": {"forward": f, "backward": 0.1}, "bytes": {"all": b}}
                for i, (s, f, b) in enumerate(steps, 1)]
        log.append({"event": "finish", "memory": {"arena": {"total": memory}, "process": 2 * memory}})
        (point.run(study) / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        (point.run(study) / "environment.json").write_text(json.dumps({"ranks": [{"host": "a", "cores": cores}, {"host": "b", "cores": "0,2"}]}))

    def row(self):
        study = self.study()
        self.finished(study, study.points[0], [(9, 9, 9), (1, 0.5, 4), (1, 0.5, 4), (7, 6.5, 4)])
        self.finished(study, study.points[1], [(9, 9, 9), (3, 2.5, 6), (3, 2.5, 6), (8, 7.5, 6)], memory=300)
        return study_results.collect(study)[0]

    def test_medians_spreads_cores_and_a_missing_plan(self):
        row = self.row()
        self.assertEqual((row["step_s"], row["forward_s"]), (2.0, 1.5))  # medians of steps, then of runs: outliers do not count
        for key, low, high in (("step_s", 1, 3), ("sent_bytes", 4, 6), ("memory_bytes", 100, 300), ("process_bytes", 200, 600)):
            self.assertEqual((row[f"{key}_low"], row[f"{key}_high"]), (low, high))
        self.assertAlmostEqual(row["phases_s_high"], 2.6)
        self.assertEqual(row["cores"], 4)  # 0 and 1 of one host, 0 and 2 of the other
        self.assertNotEqual(row["sent_bytes_planned"], row["sent_bytes_planned"])  # not a number
        self.assertEqual(study_report.predicted_text(row["memory_bytes_planned"]), "missing")

    def test_pictures_have_bars_for_measured_values_only(self):
        rows = [self.row()]
        bars = lambda figure: [c for c in figure.axes[0].containers if getattr(c, "errorbar", None) or not hasattr(c, "patches")]  # noqa: E731
        self.assertEqual(len(bars(study_report.phases_figure(rows))), 1)
        measured = [("arena", "memory_bytes"), ("process", "process_bytes")]
        drawn = [c.errorbar is not None for c in study_report.pair_figure(rows, "memory_bytes_planned", measured, "MiB").axes[0].containers
                 if hasattr(c, "patches")]
        self.assertEqual(drawn, [False, True, True])

    def test_efficiency_is_against_the_same_problem(self):
        study = self.study(("ranks = 1", "ranks = 1, 2"), ("name = full", "name = full\n[model]\nhidden_size = 64, 128\n[parallel]\ntp = 1, 2"),
                           ("repetitions = 2", "repetitions = 1"))
        for point in study.points:
            seconds = {"64": 1, "128": 4}[point.setting("model.hidden_size")] / point.ranks
            self.finished(study, point, [(seconds, 0, 0)] * 3)
        rows = study_results.collect(study)
        self.assertEqual(len(rows), 6)
        self.assertEqual({round(study_report.efficiency(r, rows), 9) for r in rows}, {1.0})


if __name__ == "__main__":
    unittest.main()
