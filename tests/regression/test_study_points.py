#!/usr/bin/python3
"""What a study must not lose or mix up: points at work, its files, names of points, bases of efficiency. Nothing is trained."""
import contextlib
import fcntl
import io
import json
import os
import pathlib
import sys
import tempfile
import types
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
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
        # The one that ran here is no longer a job of Slurm's.
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
            with self.assertRaisesRegex(study_points.StudyError, "points.csv .No space left on device.: what was there is kept"):
                study_files.write_whole(path, "new")
        self.assertEqual(path.read_text(), "old")
        self.assertEqual([p.name for p in self.path.glob("points*")], ["points.csv"])
        study_files.write_whole(path, "new")
        self.assertEqual(path.read_text(), "new")


if __name__ == "__main__":
    unittest.main()
