#!/usr/bin/python3
"""How a run of the CUDA program on several GPUs ends where NCCL hangs at its start.

--build=DIRECTORY --program=switchyard-cuda-emulated
"""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402


class Start(program.Test):
    def test_a_rank_that_fails_before_the_others_know_it_does_not_leave_them_in_nccl(self):
        """Rank 1 has no communicator, and rank 0 waits for it within NCCL, which no agreement of ours ends."""
        run = self.run_of("run", **{"data.global_batch": 2, "run.hang_timeout": 5})
        run.environment |= {"CUDA_EMULATION_DEVICES": "2", "CUDA_EMULATION_NCCL_FAILS": "1:early"}
        code, output = run.train(2)
        self.assertEqual(code, 1, output)
        self.assertRegex(output, r"no progress for \d+ s, last event: choosing collectives \(")


if __name__ == "__main__":
    unittest.main()
