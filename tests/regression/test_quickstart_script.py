#!/usr/bin/python3
"""tools/quickstart.sh against a stand-in for the program: signal half-way, resume, repetition, failure.

The stand-in keeps to the program's contract (log.jsonl, status.json, exit code 75), so that this test needs seconds and
finds mistakes of the script alone. The real thing is the quickstart itself.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

STAND_IN = r'''#!/usr/bin/python3
import json, os, pathlib, signal, sys, time
run = pathlib.Path("runs/quickstart/switchlora")
rank, ranks = (int(os.environ.get(f"OMPI_COMM_WORLD_{what}", os.environ.get(f"PMI_{what}", alone)))
               for what, alone in (("RANK", 0), ("SIZE", 1)))
stopped = []
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
command = sys.argv[1]
if rank == 0:
    with open("calls.txt", "a") as calls:
        calls.write(" ".join(sys.argv[1:]) + f" ranks={ranks}\n")

def wait_for(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)

def end(outcome, step, code):
    # mpirun kills the others when one rank ends with 75, so rank 0 saves before any other ends.
    if rank != 0:
        wait_for(lambda: (run / "status.json").exists() and outcome in (run / "status.json").read_text())
    else:
        (run / "checkpoints" / f"step_{step:08d}.h5").write_text("weights")
        (run / "status.json").write_text(json.dumps({"outcome": outcome, "reason": "", "step": step}, indent=1))
    sys.exit(code)

if command == "tokenize":
    pathlib.Path("runs/quickstart/tokens.h5").write_text("tokens")
elif command == "train":
    if os.path.exists("fail"):
        sys.exit(1)
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    done = sorted((run / "checkpoints").glob("step_*.h5"))
    first = int(done[-1].stem.split("_")[1]) if done else 0
    log = open(run / "log.jsonl", "a") if rank == 0 else None
    if first and rank == 0:
        print(json.dumps({"event": "resume", "step": first, "dp": 1, "tp": 2}), file=log)
    for step in range(first + 1, 601):
        if step == 350 and not first:
            wait_for(lambda: stopped)  # the signal comes after step 300, whenever the script sees it
        if rank == 0:
            print(json.dumps({"step": step, "loss": 7.0 - step / 200, "tokens_per_s": 9000.0}), file=log, flush=True)
        if stopped:
            end("requeue", step, 75)
    end("finished", 600, 0)
elif command == "eval":
    print("validation loss 4.0, perplexity 54.6")
elif command == "generate":
    print(sys.argv[3].split("=")[1], "a stand-in.")
'''


class Quickstart(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        shutil.copytree(ROOT / "tools", self.path / "tools")
        shutil.copytree(ROOT / "jobs" / "configs", self.path / "jobs" / "configs")
        self.executable("build/release/switchyard", STAND_IN)
        self.executable("bin/cmake", "#!/bin/sh\nexit 0\n")
        (self.path / "build/release/build.ninja").touch()
        self.write_text()

    def tearDown(self):
        self.folder.cleanup()

    def write_text(self):
        (self.path / "runs/quickstart").mkdir(parents=True, exist_ok=True)
        (self.path / "runs/quickstart/text.txt").write_text("Lantern: A thing that gives light.\n")

    def executable(self, name, text):
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def quickstart(self, *arguments):
        environment = {**os.environ, "SWITCHYARD_SKIP_PACKAGES": "1", "PATH": f"{self.path}/bin:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "tools/quickstart.sh", *arguments], cwd=self.path, env=environment, capture_output=True, text=True
        )

    def calls(self):
        return (self.path / "calls.txt").read_text().splitlines()

    def test_two_parts_and_repetition(self):
        result = self.quickstart()
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        train = [c for c in self.calls() if c.startswith("train")]
        self.assertEqual(
            train,
            ["train jobs/configs/quickstart.cfg ranks=2", "train jobs/configs/quickstart.cfg --parallel.tp=2 ranks=2"],
        )
        log = (self.path / "runs/quickstart/switchlora/log.jsonl").read_text()
        resumed = [line for line in log.splitlines() if "resume" in line]
        self.assertEqual(len(resumed), 1)
        self.assertTrue(300 <= int(resumed[0].split('"step": ')[1].split(",")[0]) < 600, resumed)
        self.assertIn("Exit code 75", result.stdout)
        self.assertIn("a stand-in.", result.stdout)
        self.assertGreater((self.path / "runs/quickstart/quickstart.png").stat().st_size, 20000)

        number = len(self.calls())
        again = self.quickstart()
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(len(self.calls()), number)
        self.assertIn("This quickstart is finished", again.stdout)
        self.assertIn("--fresh", again.stdout)

    def test_continues_where_it_was_cut_off(self):
        run = self.path / "runs/quickstart/switchlora"
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints/step_00000500.h5").write_text("weights")
        (run / "status.json").write_text('{"outcome":"running","reason":"","step":510}')
        result = self.quickstart()
        self.assertEqual(result.returncode, 0, result.stderr)
        train = [c for c in self.calls() if c.startswith("train")]
        self.assertEqual(train, ["train jobs/configs/quickstart.cfg --parallel.tp=2 ranks=2"])

    def test_failure_is_reported(self):
        (self.path / "fail").touch()
        result = self.quickstart()
        self.assertEqual(result.returncode, 1)
        self.assertIn("training ended with exit code 1", result.stderr)

    def test_unknown_argument(self):
        result = self.quickstart("--frehs")
        self.assertEqual(result.returncode, 1)
        self.assertIn("--fresh", result.stderr)
        self.assertFalse((self.path / "calls.txt").exists())


if __name__ == "__main__":
    if not shutil.which(os.environ.get("SWITCHYARD_MPIRUN", "mpirun")):
        print("mpirun is not installed: skipped")
        sys.exit(77)
    unittest.main()
