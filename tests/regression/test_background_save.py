#!/usr/bin/python3
"""Checkpoints that are written while training goes on: order, bits, failures, writers that are slow.

--ranks=1 (one process) or --ranks=2 (mpirun). Kills: test_background_kills.py; how runs end: test_background_ends.py.
"""
import errno
import os
import pathlib
import resource
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import disk_faults, program  # noqa: E402
from support.disk_faults import partial, rule  # noqa: E402

RANKS = int(program.option("ranks", 1))


class Order(disk_faults.Test):
    def test_steps_go_on_while_nothing_is_written(self):
        """And what is then written is the state at the step of the save: the same files as without a thread, or without saves.

        On two ranks with moments of 8 bits, cut inside their blocks."""
        coded = {"optim.state_bits": 8, "optim.min_8bit_size": 0, "parallel.tp": 2} if RANKS == 2 else {}
        run = self.saving_run(**coded)
        run.environment["SWITCHYARD_TEST_FAULT"] = "-1:4:hold"
        self.assert_trains(run, ranks=RANKS, run__stop_step=10)
        story = self.story(run)
        self.assertEqual(story[1:12], [1, 2, 3, 4, "begun 4", 5, 6, 7, 8, "saved 4", "begun 8"])
        self.assertEqual([event for event in story if isinstance(event, str)],
                         ["start", "begun 4", "saved 4", "begun 8", "saved 8", "saved 10", "finish"])  # fmt: skip
        self.assert_kept(run, 4, 8, 10)
        self.assert_saves_in_order(run, RANKS)

        foreground, once = self.saving_run("foreground", **coded), self.saving_run("once", **coded)
        self.assert_trains(foreground, ranks=RANKS, run__stop_step=10, run__async_save="false")
        self.assert_trains(once, ranks=RANKS, run__stop_step=10, run__save_interval=0)
        self.assertNotIn("begun 4", self.story(foreground))
        for step in (4, 8, 10):
            self.assert_identical(run.checkpoint(step), foreground.checkpoint(step))
        self.assert_identical(run.checkpoint(10), once.checkpoint(10))
        self.assertEqual(run.steps("loss", "grad_norm", "val_loss"), once.steps("loss", "grad_norm", "val_loss"))

    def test_the_thread_writes_values_and_the_ranks_share_them(self):
        """Only the structure, last, is the main thread's of rank 0; with run.async_save = false everything is."""
        for name, thread, settings in (("background", "writer", {}), ("foreground", "main", {"run.async_save": "false"})):
            run = self.saving_run(name, **settings)
            self.assert_trains(run, ranks=RANKS, run__stop_step=5)
            self.assert_saves_in_order(run, RANKS)
            calls = run.disk.calls(name=partial(4))
            values = [c for c in calls[: calls.index(run.disk.calls(name=partial(4), call="fsync")[-2])] if c.call == "pwrite"]
            self.assertEqual({(c.rank, c.thread) for c in values}, {(str(rank), thread) for rank in range(RANKS)})
            self.assertEqual({c.thread for c in run.disk.calls(call="pwrite", name=partial(5))}, {"main"})  # the last save

    def test_a_writer_slower_than_the_interval(self):
        """Every save is held on one rank until the run wants the next one: that one waits, and none is left out."""
        steps = (4, 8, 12)
        for slow in range(RANKS):
            with self.subTest(rank=slow):
                run = self.saving_run(f"slow{slow}")
                rules = [rule(slow, "writer.pwrite", "wait", partial(step), first=3) for step in steps]
                run.disk.obeys(*rules)
                launch = run.start(RANKS, run__stop_step=16)
                for number, step in enumerate(steps):
                    self.wait_until(launch, lambda: run.disk.waits(name=partial(step)) and run.last_step() == step + 4)
                    run.disk.obeys(*rules[number + 1 :])
                self.assertEqual(launch.wait(), 0, launch.output())
                self.assertEqual(self.story(run)[4:], [
                    4, "begun 4", 5, 6, 7, 8, "saved 4", "begun 8", 9, 10, 11, 12, "saved 8",
                    "begun 12", 13, 14, 15, 16, "saved 12", "saved 16", "finish"])  # fmt: skip
                self.assert_saves_in_order(run, RANKS)
                self.assert_kept(run, 4, 8, 12, 16)


class Failures(disk_faults.Test):
    """One message, no older file lost, and the run goes on."""

    @classmethod
    def cases(cls):
        """(rank, call, errno, which call, what is said)"""
        for rank in range(RANKS):
            yield rank, "writer.pwrite", errno.ENOSPC, 3, "write at byte "
            yield rank, "writer.pwrite", errno.EIO, 1, "write at byte "
            yield rank, "writer.fsync", errno.EIO, 1, "fsync: "
        yield 0, "main.pwrite", errno.ENOSPC, 1, ""  # the structure
        yield 0, "main.fsync", errno.EDQUOT, 1, "fsync: "
        yield 0, "rename", errno.EACCES, 1, "rename: "
        if RANKS > 1:
            yield 1, "open", errno.ESTALE, 1, "all ranks must see run.dir"  # before anything is copied

    def test_a_failed_save_is_named_and_costs_nothing_else(self):
        base, whole = self.saving_run("base"), self.saving_run("whole")
        self.assert_trains(base, ranks=RANKS, run__stop_step=2)
        self.assert_trains(whole, ranks=RANKS, run__stop_step=10)
        for rank, call, error, first, said in self.cases():
            with self.subTest(rank=rank, call=call):
                run = self.copy_of(base, f"{call}{first}.{rank}")
                before = run.checkpoint(2).read_bytes()
                run.disk.obeys(rule(rank, call, error, partial(4), first))
                output = self.assert_trains(run, ranks=RANKS, run__stop_step=10)
                self.assertTrue(run.disk.calls(result=error), "the fault did not strike")
                path = run.path / "checkpoints/step_00000004.h5"
                self.assertEqual(output.count("warning: "), 1, output)
                self.assertIn(f"warning: step 4 was not saved: cannot {'open' if call == 'open' else 'write'} {path}", output)
                self.assertIn(said, output)
                self.assertIn(os.strerror(error), output)
                self.assertIn("older checkpoints are untouched and the run goes on", output)
                story = self.story(run)
                self.assertEqual([event for event in story if "failed" in str(event)], ["failed 4"])
                self.assertNotIn("saved 4", story)
                self.assertEqual(run.checkpoint(2).read_bytes(), before)
                self.assert_kept(run, 2, 8, 10)
                self.assert_saves_in_order(run, RANKS)
                self.assert_identical(run.checkpoint(10), whole.checkpoint(10))
                self.assert_status(run, "stopped", "run.stop_step", 10)

    def test_the_last_save_must_succeed(self):
        """Two failures are told and survived; the third is the run's end."""
        base = self.saving_run("base")
        self.assert_trains(base, ranks=RANKS, run__stop_step=2)
        for rank in range(RANKS):
            with self.subTest(rank=rank):
                run = self.copy_of(base, f"rank{rank}")
                before = run.checkpoint(2).read_bytes()
                run.disk.obeys(rule(rank, "pwrite", errno.ENOSPC))
                code, output = run.train(RANKS, run__stop_step=10)
                self.assertEqual(code, 1, output)
                for step in (4, 8):
                    self.assertEqual(output.count(f"warning: step {step} was not saved: "), 1, output)
                self.assertEqual(output.count("warning: "), 2, output)
                self.assertEqual(output.count("[rank "), 1, output)
                problem = f"cannot write {run.path}/checkpoints/step_00000010.h5 (write at byte "
                self.assertIn(problem, output)
                self.assert_status(run, "failed", problem, 10)
                self.assert_kept(run, 2)
                self.assertEqual(run.checkpoint(2).read_bytes(), before)
                run.disk.obeys()
                output = self.assert_trains(run, ranks=RANKS, run__stop_step=10)
                self.assertIn("resuming from step 2", output)
                self.assert_kept(run, 2, 4, 8, 10)

    def test_a_limit_of_file_sizes_while_the_writer_runs(self):
        """The kernel's own: of the save under way and of the next; with the limit lifted, later ones succeed."""
        for victim in range(RANKS):
            with self.subTest(rank=victim):
                run = self.saving_run(f"rank{victim}")
                run.disk.obeys(rule(victim, "writer.pwrite", "wait", partial(4)))
                launch = run.start(RANKS)
                self.wait_until(launch, lambda: run.disk.waits() and run.last_step() == 8)
                pid, limit = launch.ranks()[victim], 100000
                _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, most))
                run.disk.obeys()
                self.wait_until(launch, lambda: len(run.events("save_failed")) >= 2)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
                self.wait_until(launch, run.checkpoints)
                output, failed = self.assert_failed_and_went_on(run, launch)
                self.assertIn("File too large", output)
                self.assertIn("files are limited to 97.7 KiB); raise `ulimit -f`", output)
                self.assertGreater(run.checkpoints()[0], failed[-1])


if __name__ == "__main__":
    unittest.main()
