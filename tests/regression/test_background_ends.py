#!/usr/bin/python3
"""How runs end while a checkpoint is written in the background: it is finished first, then the newest state is saved.

--ranks=1 (one process) or --ranks=2 (mpirun). Without a save under way: test_run_control.py.
"""
import pathlib
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import disk_faults, program  # noqa: E402
from support.disk_faults import partial, rule  # noqa: E402

RANKS = int(program.option("ranks", 1))
# What asks a run to end: exit code, outcome, reason.
ENDS = {
    "SIGTERM": (0, "stopped", "SIGTERM or SIGINT"),
    "SIGUSR1": (75, "requeue", "SIGUSR1"),
    "stop": (0, "stopped", "stop file"),
    "wall": (75, "requeue", "run.wall_limit"),
}
WALL_LIMITS = (4, 8, 16, 32, 64)  # seconds: until a machine is fast enough to save before


class Asked(disk_faults.Test):
    """A file named `save` begins a save after the first step."""

    def ask(self, how, run, launch):
        if how == "stop":
            (run.path / "stop").touch()
        elif how != "wall":
            for pid in launch.ranks():  # mpirun would end them a second after SIGTERM
                program.Process(pid).signal(signal.Signals[how])

    def run_that_saves(self, name, waits):
        """Under way, with the call of rank 0 or of the last rank on the file of step 1 that waits; or None: it ended before."""
        run = self.saving_run(name, **{"run.save_interval": 0})
        run.path.mkdir()
        (run.path / "save").touch()
        run.disk.obeys(waits)
        return run

    def launch_that_waits(self, how, waits):
        for number, limit in enumerate(WALL_LIMITS if how == "wall" else (0,)):
            run = self.run_that_saves(f"{how}{number}", waits)
            start = time.monotonic()
            launch = run.start(RANKS, run__wall_limit=limit)
            while launch.running() and not run.disk.waits():
                time.sleep(0.002)
            if run.disk.waits() and not run.events("signal"):  # else the limit was over before: that save is another one
                return run, launch, start + limit
            run.disk.obeys()
            launch.wait()
        self.fail(f"no save was begun:\n{launch.output()}")

    def assert_ended(self, how, run, launch, story):
        code, outcome, reason = ENDS[how]
        self.assertEqual(launch.wait(), code, launch.output())
        last = run.last_step()
        self.assertEqual([event for event in self.story(run) if isinstance(event, str)],
                         ["start", *(event.format(last=last) for event in story), "finish"])  # fmt: skip
        self.assertEqual([event["step"] for event in run.events("signal")], [last])
        self.assert_status(run, outcome, reason, last)
        self.assert_kept(run, 1, last)
        self.assertNotIn("warning: ", launch.output())
        self.assert_trains(run, ranks=RANKS, run__stop_step=last + 1)
        self.assertEqual(run.events("resume")[-1]["step"], last)

    def test_while_the_writer_is_held(self):
        """The request comes, and is acted upon, while nothing of the save is written; the run then waits for it."""
        for how in ENDS:
            with self.subTest(how):
                run, launch, _ = self.launch_that_waits(how, rule(RANKS - 1, "writer.pwrite", "wait"))
                self.wait_until(launch, lambda: run.last_step() > 2 or run.events("signal"))
                self.ask(how, run, launch)
                self.wait_until(launch, lambda: run.events("signal"))
                self.assertEqual(run.files(), [partial(1)])
                run.disk.obeys()
                self.assert_ended(how, run, launch, ["begun 1", "signal", "saved 1", "saved {last}"])

    def test_during_the_commit(self):
        """When all is written and rank 0 is about to rename: the request waits, too."""
        for how in ENDS:
            with self.subTest(how):
                run, launch, over = self.launch_that_waits(how, rule(0, "rename", "wait"))
                self.ask(how, run, launch)
                if how == "wall":
                    time.sleep(max(0, over - time.monotonic()))
                self.assertEqual(run.files(), [partial(1)])
                run.disk.obeys()
                self.assert_ended(how, run, launch, ["begun 1", "saved 1", "signal", "saved {last}"])

    def test_before_a_save(self):
        """One is begun and finished at once: in the foreground, there is nothing left to train beside it."""
        for how in ENDS:
            with self.subTest(how):
                run = self.saving_run(how, **{"run.save_interval": 0, "run.wall_limit": 4 * (how == "wall")})
                launch = run.start(RANKS)
                self.wait_until(launch, lambda: run.last_step() > 2 or run.events("signal"))
                self.ask(how, run, launch)
                code, outcome, reason = ENDS[how]
                self.assertEqual(launch.wait(), code, launch.output())
                last = run.last_step()
                self.assertEqual([event for event in self.story(run) if isinstance(event, str)],
                                 ["start", "signal", f"saved {last}", "finish"])  # fmt: skip
                self.assertEqual({c.thread for c in run.disk.calls(call="pwrite")}, {"main"})
                self.assert_kept(run, last)
                self.assert_status(run, outcome, reason, last)

    def test_signals_without_end_while_a_save_is_held(self):
        """Further ones change nothing."""
        run, launch, _ = self.launch_that_waits("SIGUSR1", rule(RANKS - 1, "writer.fsync", "wait"))
        ranks = [program.Process(pid) for pid in launch.ranks()]
        while launch.running():
            for rank in ranks:
                rank.signal(signal.SIGUSR1)
            if run.events("signal"):
                run.disk.obeys()
            time.sleep(0.001)
        self.assert_ended("SIGUSR1", run, launch, ["begun 1", "signal", "saved 1", "saved {last}"])


class NotFinite(disk_faults.Test):
    """A weight becomes NaN after eight updates, while a save is held that nobody has waited for yet."""

    def diverge(self, saved, interval):
        run = self.saving_run(**{"run.save_interval": interval})
        run.environment["SWITCHYARD_TEST_FAULT"] = f"-1:{saved}:hold,0:8:nan"
        code, output = run.train(RANKS)
        self.assertEqual(code, 1, output)
        self.assertEqual(output.count("[rank "), 1, output)
        self.assertEqual(run.last_step(), 8)
        self.assert_status(run, "failed", "step 9: ", 8)
        self.assertNotIn("warning: ", output)
        return run, output

    def test_a_good_save_under_way_is_finished_and_named(self):
        run, output = self.diverge(saved=6, interval=6)
        self.assertEqual(self.story(run), ["start", 1, 2, 3, 4, 5, 6, "begun 6", 7, 8, "saved 6"])
        self.assertIn(f"the newest good checkpoint is `{run.checkpoint(6)}` of step 6", output)
        self.assert_kept(run, 6)
        self.assert_in_order_and_whole(run, run.checkpoint(6), 6)

    def test_the_save_that_leads_there_is_finished_and_set_aside(self):
        """It holds the state before the damage, whatever has become of it since."""
        run, output = self.diverge(saved=8, interval=4)
        events = [event for event in self.story(run) if isinstance(event, str)]
        self.assertEqual(events, ["start", "begun 4", "saved 4", "begun 8", "saved 8"])
        self.assertIn(f"the newest good checkpoint is `{run.checkpoint(4)}` of step 4", output)
        diverged = run.path / "checkpoints/step_00000008.h5.diverged"
        self.assertIn("leads here and is now called *.diverged", output)
        self.assertEqual(run.files(), ["step_00000004.h5", diverged.name])
        self.assert_verifies(run.checkpoint(4), diverged)
        self.assert_in_order_and_whole(run, diverged, 8)

    def assert_in_order_and_whole(self, run, file, step):
        self.assert_saves_in_order(run, RANKS)
        twin = self.saving_run("twin")
        self.assert_trains(twin, ranks=RANKS, run__stop_step=step)
        self.assert_identical(file, twin.checkpoint(step))


class Stuck(disk_faults.Test):
    def test_a_writer_that_hangs_is_left_to_the_watchdog(self):
        """On one rank the thread writes two windows and then no more: the next save waits for it, and nothing is a sign of life."""
        for stuck in range(RANKS):
            with self.subTest(rank=stuck):
                run = self.saving_run(f"rank{stuck}", **{"run.hang_timeout": 10})
                self.assert_trains(run, ranks=RANKS, run__stop_step=2)
                run.disk.obeys(rule(stuck, "writer.pwrite", "wait", partial(4), first=3))
                code, output = run.train(RANKS)
                self.assertEqual(code, 1, output)
                self.assertTrue(run.disk.waits(name=partial(4), thread="writer"), output)
                self.assertRegex(output, rf"\[rank {stuck}\] no progress for \d+ s, last event: writing a checkpoint \(.+\); .*run.hang_timeout")
                self.assertEqual(self.story(run)[-5:], ["begun 4", 5, 6, 7, 8])
                self.assert_status(run, "failed", "no progress for", 8)
                self.assertEqual(run.checkpoints(), [2])
                run.disk.obeys()
                self.assertIn("resuming from step 2", self.assert_trains(run, ranks=RANKS, run__stop_step=4))
                self.assert_kept(run, 2, 4)


if __name__ == "__main__":
    unittest.main()
