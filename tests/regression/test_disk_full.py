#!/usr/bin/python3
"""A full file system while saving: a small tmpfs, mounted in a name space of this test's own.

--ranks=1 (one process) or --ranks=2 (mpirun). Exits 77 (a visible skip in CTest) where that is not allowed.
"""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import disk_faults, program  # noqa: E402
from support.disk_faults import partial, rule  # noqa: E402

RANKS = int(program.option("ranks", 1))
SIZE = 4 << 20


class Tmpfs(disk_faults.Test):
    def setUp(self):
        super().setUp()
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", self.disk], check=True)
        self.addCleanup(subprocess.run, ["umount", self.disk], check=True)

    def leave(self, free):
        """Fills the disk up to so many bytes, while the run goes on writing its log."""
        with open(self.disk / "filler", "ab", buffering=0) as file, contextlib.suppress(OSError):
            while (info := os.statvfs(self.disk)).f_bavail * info.f_frsize >= free:
                file.write(bytes(info.f_frsize))

    def assert_fails_to_save(self, free, message):
        run = self.run_of("disk/run", **program.SWITCHING)
        self.assert_trains(run, run__stop_step=2)
        before = run.checkpoint(2).read_bytes()
        launch = run.start(RANKS)
        self.wait_until(launch, lambda: run.last_step() > 4)
        self.leave(free(run.checkpoint(2)))
        program.Process(launch.ranks()[0]).signal(signal.SIGUSR1)  # saves after this step
        self.assertEqual(launch.wait(), 1, launch.output())
        output = launch.output()
        self.assertEqual(output.count("cannot write "), 1 + output.count("warning: "), output)
        self.assertIn(message, output)
        self.assertEqual(run.files(), ["step_00000002.h5"])
        self.assertEqual(run.checkpoint(2).read_bytes(), before)
        self.assert_verifies(run.checkpoint(2))
        self.assert_status(run, "failed", "No space left on device" if "device" in message else "no space left")
        (self.disk / "filler").unlink()
        step = run.checkpoints()[-1]
        self.assert_trains(run, ranks=RANKS, run__stop_step=step + 2)
        self.assertEqual(run.events("resume")[-1]["step"], step)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, step + 3)))

    def test_seen_before_writing(self):
        self.assert_fails_to_save(lambda file: file.stat().st_size // 2, "(no space left: ")

    def test_met_while_writing(self):
        """There is room for most of the file, but not for all of it."""
        self.assert_fails_to_save(lambda file: file.stat().st_size - (32 << 10), "No space left on device")

    def test_not_a_byte_left(self):
        """There is not even room for a second status.json."""
        self.assert_fails_to_save(lambda file: 0, "(no space left: ")

    def test_met_in_the_background(self):
        """By the save under way and by the next; with space again, later ones succeed."""
        run = self.saving_run("disk/run", **{"run.keep_last": 2})
        self.assert_trains(run, ranks=RANKS, run__stop_step=2)
        before = run.checkpoint(2).read_bytes()
        run.disk.obeys(*(rule(rank, "writer.pwrite", "wait", partial(4)) for rank in range(RANKS)))
        launch = run.start(RANKS)
        self.wait_until(launch, lambda: len(run.disk.calls(result="waits")) == RANKS and run.last_step() == 8)
        self.leave(run.checkpoint(2).stat().st_size // 2)
        run.disk.obeys()
        self.wait_until(launch, lambda: len(run.events("save_failed")) >= 2)
        self.assertEqual(run.checkpoint(2).read_bytes(), before)
        (self.disk / "filler").unlink()
        self.wait_until(launch, lambda: any(event["of_step"] > 8 for event in run.events("save")))
        output, _ = self.assert_failed_and_went_on(run, launch)
        self.assertIn("No space left on device", output)
        self.assertIn("(no space left: ", output)


def main():
    """This script again in a mount name space: as root, or as root of a user name space."""
    for flags in (["-m"], ["-rm"]):
        with tempfile.TemporaryDirectory() as folder:
            mount = ["unshare", *flags, "mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
            allowed = subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0
        if allowed:
            os.execvp("unshare", ["unshare", *flags, sys.executable, __file__, "--inside=1", f"--ranks={RANKS}",
                                  f"--build={program.BUILD}", *sys.argv[1:]])  # fmt: skip
    print("no tmpfs may be mounted here: skipped")
    sys.exit(77)


if __name__ == "__main__":
    unittest.main() if program.option("inside", None) else main()
