#!/usr/bin/python3
"""kill -9 while a checkpoint is written in the background: at any call of any rank on its file, nothing is lost.

--kills=20 --ranks=1. Two of three kills come when a call on the file waits, drawn from a seed out of all calls of a save; the
others at a random moment after the save has begun.
"""
import pathlib
import random
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import disk_faults, program  # noqa: E402
from support.disk_faults import partial, rule  # noqa: E402

KILLS, RANKS = int(program.option("kills", 20)), int(program.option("ranks", 1))
INTERVAL = 2


class Kills(disk_faults.Test):
    def calls_of_a_save(self):
        """[(rank, call of a thread, which of them)] in a whole save in the background."""
        run = self.saving_run("whole")
        self.assert_trains(run, ranks=RANKS, run__stop_step=5)
        moments, counts = [], {}
        for call in run.disk.calls(name=partial(4)):
            key = (int(call.rank), f"{call.thread}.{call.call}")
            counts[key] = counts.get(key, 0) + 1
            moments.append((*key, counts[key]))
        return moments

    def moments(self, draw):
        """Each kind of call of each rank first, then any."""
        calls = self.calls_of_a_save()
        draw.shuffle(calls)
        kinds = {call[:2]: call for call in calls}
        self.assertGreaterEqual({call for _, call in kinds}, {"writer.pwrite", "writer.fsync", "main.pwrite", "main.fsync", "main.rename"})
        yield from kinds.values()
        while True:
            yield draw.choice(calls)

    def test_every_kill_leaves_what_was_saved(self):
        run, draw = self.saving_run(**{"run.save_interval": INTERVAL, "run.keep_last": 3}), random.Random(RANKS)
        moments, newest, by_the_writer, at_random = self.moments(draw), 0, 0, 0
        for kill in range(KILLS):
            victim = newest + 2 * INTERVAL  # its save is hit; the one before is complete by then
            waits = kill % 3 < 2
            if waits:
                rank, call, number = next(moments)
                by_the_writer += call.startswith("writer")
                run.disk.obeys(rule(rank, call, "wait", partial(victim), number))
                known = len(run.disk.calls(result="waits"))
            launch = run.start(RANKS)
            if waits:
                self.wait_until(launch, lambda: len(run.disk.calls(result="waits")) > known)
            else:
                self.wait_until(launch, lambda: any(event["step"] == victim for event in run.events("save_begun")))
                time.sleep(draw.uniform(0, 0.02))
                at_random += 1
            launch.kill()
            run.disk.obeys()
            where = f"kill {kill}" + (f" of rank {rank} at {call} {number}" if waits else " at random")
            saved = [event["of_step"] for event in run.events("save")]
            self.assertGreaterEqual(run.checkpoints()[-1], max(saved), where)
            if waits:
                if "open" not in call:
                    self.assertIn(partial(victim), run.files(), where)
                self.assertEqual(run.checkpoints()[-1], victim - INTERVAL, where)
            self.assertLessEqual(len([name for name in run.files() if name.endswith(".partial")]), 1, where)
            self.assert_verifies(*map(run.checkpoint, run.checkpoints()))
            newest = run.checkpoints()[-1]
        end = newest + INTERVAL + 1
        self.assert_trains(run, ranks=RANKS, run__stop_step=end)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, end + 1)))
        self.assertFalse([name for name in run.files() if not name.endswith(".h5")])
        print(f"{KILLS} kills on {RANKS} ranks, {by_the_writer} in a call of a writer, {at_random} at random; {end} steps")
        for name, settings in (("undisturbed", {}), ("foreground", {"run.async_save": "false"})):
            other = self.saving_run(name, **{"run.save_interval": INTERVAL, "run.keep_last": 3, **settings})
            self.assert_trains(other, ranks=RANKS, run__stop_step=end)
            self.assertEqual(run.steps("loss", "grad_norm"), other.steps("loss", "grad_norm"))
            self.assertEqual(run.files(), other.files())
            for step in run.checkpoints():
                self.assert_identical(run.checkpoint(step), other.checkpoint(step))


if __name__ == "__main__":
    unittest.main()
