#!/usr/bin/python3
"""jobs/run_local.sh: runs, saves on SIGUSR1 with exit code 75, resumes to the same bits; and what it refuses."""
import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "slurm"))
import tiny_run  # noqa: E402
from tiny_run import ROOT, Run  # noqa: E402

PROGRAM = None


class RunLocal(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.config = tiny_run.make(PROGRAM, cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def command(self, *words, **variables):
        environment = {**os.environ, **tiny_run.MPI_ENVIRONMENT, "SWITCHYARD_PROGRAM": str(PROGRAM), **variables}
        return {"args": ["bash", str(ROOT / "jobs/run_local.sh"), *map(str, words)], "env": environment, "text": True,
                "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    def run_local(self, *words, **variables):
        result = subprocess.run(**self.command(*words, **variables))
        return result.returncode, result.stdout

    def test_signal_and_resume(self):
        whole, parts = (Run(PROGRAM, self.folder / name) for name in ("whole", "parts"))
        code, output = self.run_local(self.config, "--ranks=2", f"--run.dir={whole.path}")
        self.assertEqual(code, 0, output)
        self.assertIn("2 ranks", output)
        with subprocess.Popen(**self.command(self.config, "--ranks=2", f"--run.dir={parts.path}",
                                             SWITCHYARD_TEST_FAULT="-1:13:wait")) as first:
            end = time.monotonic() + 120
            while parts.last_step() < 13 and time.monotonic() < end:
                time.sleep(0.1)
            first.send_signal(signal.SIGUSR1)
            output = first.communicate()[0]
        self.assertEqual(first.returncode, 75, output)
        code, output = self.run_local(self.config, "--ranks=2", f"--run.dir={parts.path}")
        self.assertEqual(code, 0, output)
        self.assertIn("from step 14", output)
        difference = parts.diff(whole)
        self.assertEqual(difference.returncode, 0, difference.stdout + difference.stderr)

    def test_signal_while_starting(self):
        """Noted, and acted on after the first step."""
        run = Run(PROGRAM, self.folder / "early")
        lock = run.path / "lock"
        with subprocess.Popen(**self.command(self.config, "--ranks=2", f"--run.dir={run.path}",
                                             "--run.steps=1000000")) as process:
            end = time.monotonic() + 120
            while not (lock.exists() and lock.read_text()) and time.monotonic() < end:
                time.sleep(0.01)
            process.send_signal(signal.SIGUSR1)
            output = process.communicate()[0]
        self.assertEqual(process.returncode, 75, output)
        self.assertEqual(run.status()["outcome"], "requeue")
        self.assertEqual(run.verify_newest().returncode, 0)

    def test_ranks_are_counted(self):
        """One per NUMA domain of this machine."""
        domains = {line for line in subprocess.run(["lscpu", "--parse=NODE"], capture_output=True, text=True, check=True)
                   .stdout.splitlines() if not line.startswith("#")}
        # A layout that cannot be ends the run at once; the count is printed before.
        _, output = self.run_local(self.config, "--parallel.tp=64", f"--run.dir={self.folder}/counted")
        self.assertIn(f"job: {len(domains)} ranks", output)

    def test_what_is_refused(self):
        for words, message in (
            ([self.config, "nowhere"], "no site 'nowhere'"),
            (["missing.cfg"], "no configuration 'missing.cfg'"),
            ([self.config, "--ranks=0"], "is not a number of ranks"),
            ([self.config, "--rank=2"], "jobs/run_local.sh CONFIG"),
            ([], "jobs/run_local.sh CONFIG"),
        ):
            code, output = self.run_local(*words)
            self.assertEqual(code, 1, output)
            self.assertIn(message, output)
        code, output = self.run_local(self.config, SWITCHYARD_PROGRAM="/no/such/program")
        self.assertEqual(code, 1, output)
        self.assertIn("a job never builds", output)

    def test_run_directory_of_the_configuration(self):
        """The section counts, the comment does not, the command line wins."""
        config = self.folder / "named.cfg"
        config.write_text("[data]\ndir = wrong\n[run]\n# dir = wrong\n  dir = some where   # comment\nseed = 1\n")
        for settings, expected in (([], "some where"), (["--run.dir=else"], "else")):
            shown = subprocess.run(["bash", "-c", 'source jobs/common.sh; run_directory "$@"', "-", config, *settings],
                                   cwd=ROOT, capture_output=True, text=True)
            self.assertEqual(shown.stdout, expected + "\n", shown.stderr)
        config.write_text("[run]\nseed = 1\n")
        shown = subprocess.run(["bash", "-c", f"source jobs/common.sh; run_directory {config}"], cwd=ROOT,
                               capture_output=True, text=True)
        self.assertIn("run.dir is not set", shown.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    given, rest = parser.parse_known_args()
    PROGRAM = pathlib.Path(given.build).resolve() / "switchyard"
    if not PROGRAM.exists():
        print(f"{PROGRAM} is not built: skipped")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *rest])
