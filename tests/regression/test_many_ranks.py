#!/usr/bin/python3
"""Saves of 16 and 64 ranks, far more than cores: every window is written once, ranks share the bytes, and the number of
collectives is bounded. --ranks=16
"""
import os
import pathlib
import re
import sys
import unittest

os.environ["SWITCHYARD_COUNT_CALLS"] = "1"  # of all programs started here
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

RANKS = int(program.option("ranks", 16))
MODEL = {"model.hidden_size": 64, "model.num_heads": 4, "model.num_kv_heads": 4, "model.num_layers": 2, "model.ffn_size": 128, "method.rank": 8,
         "data.global_batch": RANKS, "data.micro_batch": 1, "io.window": 4096}  # fmt: skip
LINE = re.compile(r"save: (\d+) collectives and (\d+) rounds; (\d+) writes for (\d+) windows, at most (\d+) a rank; "
                  r"at most (\d+) bytes a rank, (\d+) on average")  # fmt: skip


class ManyRanks(program.Test):
    def test_saves_are_shared(self):
        for shard_frozen in ("true", "false"):
            with self.subTest(shard_frozen=shard_frozen):
                run = self.run_of(f"run_{shard_frozen}", **{**program.SWITCHING, **MODEL, "parallel.shard_frozen": shard_frozen})
                output = self.assert_trains(run, ranks=RANKS, run__stop_step=1)
                found = LINE.search(output)
                self.assertIsNotNone(found, output)
                collectives, rounds, writes, windows, most_writes, most_bytes, mean_bytes = map(int, found.groups())
                print(f"{RANKS} ranks, shard_frozen {shard_frozen}: {found.group(0)}")
                self.assertLessEqual(collectives, 20)
                self.assertLessEqual(writes, windows)
                self.assertLessEqual(most_bytes, 2 * mean_bytes)
                self.assert_verifies(run.checkpoint(1))

    @unittest.skipIf(RANKS > 16, "a start of 64 ranks takes ten seconds; of --ranks=16")
    def test_any_number_of_ranks_goes_on(self):
        run = self.run_of(**{**program.SWITCHING, **MODEL})
        self.assert_trains(run, ranks=RANKS, run__stop_step=1)
        self.assert_trains(run, ranks=2, run__stop_step=2)
        self.assertEqual(run.steps("loss").keys(), {1, 2})


if __name__ == "__main__":
    unittest.main()
