#!/usr/bin/python3
"""jobs/run_local.sh runs, saves on SIGUSR1 with exit code 75 and resumes to the same bits; and what it refuses."""
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

    def test_a_rank_for_each_gpu_that_may_be_used(self):
        tools, site = self.folder / "bin", self.folder / "gpus.env"
        tools.mkdir()
        (tools / "nvidia-smi").write_text("#!/bin/sh\nprintf 'GPU 0: a\\n  MIG 1g.10gb Device 0: b\\nGPU 1: c\\n'\n")
        (tools / "nvidia-smi").chmod(0o755)
        site.write_text("# shellcheck shell=bash\ngpus_per_rank=1\n")
        path = f"{tools}:{os.environ['PATH']}"
        for ranks, variables in ((2, {}), (1, {"CUDA_VISIBLE_DEVICES": "1"}), (2, {"CUDA_VISIBLE_DEVICES": "1,0"})):
            run = self.folder / f"gpus{len(variables)}{ranks}"
            code, output = self.run_local(self.config, site, f"--run.dir={run}", "--run.stop_step=1", PATH=path, **variables)
            self.assertEqual(code, 0, output)
            self.assertIn(f"{ranks} ranks, run", output)

    def test_signal_while_starting(self):
        """The signal is noted, and has its effect after the first step."""
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

    def site(self, *lines):
        path = self.folder / "site.env"
        path.write_text("\n".join(["# shellcheck shell=bash", *lines, ""]))
        return path

    def test_self_test_before_the_run(self):
        """A site with selftest=1: the same ranks and configuration; training only if it passes."""
        site = self.site("selftest=1")
        run = Run(PROGRAM, self.folder / "tested")
        code, output = self.run_local(self.config, site, "--ranks=2", f"--run.dir={run.path}", "--run.stop_step=1")
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"(?s)job: self-test: .*all-reduce dp of 2.* 0 failed, ")
        self.assertEqual(run.status()["outcome"], "stopped")

        program = self.folder / "fails_its_test"
        program.write_text(f'#!/bin/sh\n[ "$1" != selftest ] || exit 1\nexec {PROGRAM} "$@"\n')
        program.chmod(0o755)
        run = Run(PROGRAM, self.folder / "refused")
        code, output = self.run_local(self.config, site, "--ranks=1", f"--run.dir={run.path}", SWITCHYARD_PROGRAM=str(program))
        self.assertEqual(code, 1, output)
        self.assertIn("the self-test ended with exit code 1", output)
        self.assertFalse(run.path.exists())
        code, output = self.run_local(self.config, self.site("selftest=yes"), "--ranks=1")
        self.assertEqual(code, 1, output)
        self.assertIn("use 0 or 1", output)

    def test_programs_of_sites(self):
        """Every site loads, and those with gpus_per_rank=1 ask for GPUs and start the program of preset `cuda`."""
        script = 'source jobs/common.sh; load_site . "$1"; printf "%s\n" "$program" "$gpus_per_rank" "${job_options[*]}"'
        environment = {name: value for name, value in os.environ.items() if name != "SWITCHYARD_PROGRAM"}

        def load(site, **variables):
            shown = subprocess.run(["bash", "-c", script, "-", site], cwd=ROOT, capture_output=True, text=True, env={**environment, **variables})
            self.assertEqual(shown.returncode, 0, shown.stderr)
            return shown.stdout.splitlines()

        with_gpus = 0
        for site in sorted((ROOT / "jobs/sites").glob("*.env")):
            program, gpus, options = load(site)
            self.assertEqual(program, f"./build/{'cuda' if gpus == '1' else 'release'}/switchyard", site)
            self.assertEqual("--gpus-per-task=1" in options, gpus == "1", site)
            with_gpus += gpus == "1"
        self.assertEqual(with_gpus, 2)
        self.assertEqual(load("daint", SWITCHYARD_PROGRAM="/mine")[0], "/mine")
        self.assertEqual(load(self.site("gpus_per_rank=1", "program=/its"))[0], "/its")

    def test_ranks_are_counted(self):
        """One per NUMA domain of this machine."""
        domains = {line for line in subprocess.run(["lscpu", "--parse=NODE"], capture_output=True, text=True, check=True)
                   .stdout.splitlines() if not line.startswith("#")}
        # An impossible layout ends the run at once, after the count is printed.
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

    def run_directory(self, text, *settings):
        config = self.folder / "a configuration.cfg"
        config.write_text(text)
        script = f'source jobs/common.sh; load_site . workstation; program={PROGRAM}; run_directory "$@"'
        return subprocess.run(["bash", "-c", script, "-", config, *settings], cwd=ROOT, capture_output=True, text=True)

    def test_finding_06_the_run_directory_is_what_the_program_takes(self):
        """The section matters, comments are ignored, the last value counts, and the command line overrides it."""
        for text, settings, expected in (
            ("[run]\n# dir = wrong\n  dir = some where   # comment\nseed = 1\n", [], "some where"),
            ("[run]\ndir = x\n", ["--run.dir=else"], "else"), ("[run]\ndir = x\n", ["--run.dir=one", "--run.seed=2", "--run.dir=a b"], "a b"),
            ('[run]\ndir = "a b"\n', [], "a b"), ("[run]\ndir = exp#1\n", [], "exp#1"), ("[run]\ndir = a\ndir = b\n", [], "b"),
            ("[run]\nseed = 1\n", [], "runs/run"), ("[run]\ndir = -rf\n", [], "./-rf"), ("[run]\ndir = $HOME `x` 'y'\n", [], "$HOME `x` 'y'"),
        ):  # fmt: skip
            shown = self.run_directory(text, *settings)
            self.assertEqual((shown.returncode, shown.stdout), (0, expected + "\n"), shown.stderr)
        for text, part in (("[run]\ndir =\n", "run.dir is empty"), ("[run]\nstepps = 1\n", "did you mean run.steps"), ("[data]\ndir = x\n", "unknown key data.dir")):
            shown = self.run_directory(text)
            self.assertEqual((shown.returncode, shown.stdout), (1, ""))
            self.assertIn(part, shown.stderr)

    def test_finding_06_runs_with_odd_names_stay_apart(self):
        for name in ("exp#1", "exp#2", "a b"):
            config = self.folder / f"{name}.cfg"
            config.write_text(self.config.read_text().replace(f"{self.folder}/unnamed ", f'"{self.folder}/{name}" '))
            code, output = self.run_local(config, "--ranks=1", "--run.stop_step=1")
            self.assertEqual(code, 0, output)
            self.assertIn("from the beginning", output)
            self.assertEqual(Run(PROGRAM, self.folder / name).status()["outcome"], "stopped")
        self.assertFalse((self.folder / "exp").exists())

    def test_finding_24_a_killed_rank_is_said_and_recorded(self):
        run = Run(PROGRAM, self.folder / "killed")
        words = ["--ranks=2", f"--run.dir={run.path}"]
        with subprocess.Popen(**self.command(self.config, *words, SWITCHYARD_TEST_FAULT="-1:13:wait")) as process:
            end = time.monotonic() + 120
            while run.last_step() < 13 and time.monotonic() < end:
                time.sleep(0.1)
            holder = int((run.path / "lock").read_text().split()[1])
            os.kill(holder, signal.SIGKILL)
            output = process.communicate()[0]
        self.assertNotIn(process.returncode, (0, 75), output)
        status = run.status()
        self.assertEqual((status["outcome"], status["step"]), ("failed", 10), status)
        self.assertIn("without a word", status["reason"])
        self.assertIn("the newest checkpoint is of step 10, and the same command goes on from there", output)
        self.assertEqual(sorted(p.name for p in run.path.glob("*.partial")), [])
        code, output = self.run_local(self.config, "--ranks=2", f"--run.dir={run.path}", "--run.stop_step=11")
        self.assertEqual(code, 0, output)
        # The outcome of a run that has ended is kept.
        self.assertEqual(run.status()["outcome"], "stopped")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    given, rest = parser.parse_known_args()
    PROGRAM = pathlib.Path(given.build).resolve() / "switchyard"
    if not PROGRAM.exists():
        print(f"{PROGRAM} is not built: skipped")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *rest])
