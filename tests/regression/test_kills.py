#!/usr/bin/python3
"""kill -9 around saving: whatever the moment, a checkpoint that verifies is left, and the run goes on.

--kills=20 --ranks=1. The model is so small that a run spends most of its time saving. Every second kill comes when a file
is being written, the others at moments drawn from a seed.
"""
import pathlib
import random
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

KILLS, RANKS = int(program.option("kills", 20)), int(program.option("ranks", 1))


class Kills(program.Test):
    def test_every_kill_leaves_a_checkpoint(self):
        run = self.run_of(**program.SWITCHING, **{"run.save_interval": 1})
        draw = random.Random(RANKS)
        newest, while_saving = 0, 0
        for kill in range(KILLS):
            launch = run.start(RANKS)
            # From here on a save of this launch is complete, so any moment will do.
            self.wait_until(launch, lambda: (run.path / "checkpoints").exists() and max(run.checkpoints(), default=0) > newest)
            if kill % 2:
                self.wait_until(launch, lambda: any(name.endswith(".partial") for name in run.files()))
            else:
                time.sleep(draw.uniform(0, 0.15))
            launch.kill()
            partial = [name for name in run.files() if name.endswith(".partial")]
            while_saving += bool(partial)
            self.assertLessEqual(len(partial), 1)
            self.assertGreater(run.checkpoints()[-1], newest, f"kill {kill}")
            newest = run.checkpoints()[-1]
            self.assert_verifies(*(run.checkpoint(step) for step in run.checkpoints()))
        print(f"{KILLS} kills on {RANKS} ranks, {while_saving} of them while a file was being written; step {newest}")
        self.assertGreater(while_saving, 0, "no kill fell into a save: the test shows less than it says")
        self.assert_trains(run, ranks=RANKS, run__stop_step=newest + 2)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, newest + 3)))
        self.assertFalse([name for name in run.files() if not name.endswith(".h5")])


if __name__ == "__main__":
    unittest.main()
