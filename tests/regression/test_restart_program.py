#!/usr/bin/python3
"""An interrupted and resumed run equals the uninterrupted one, bit for bit: numbers of every step and the last checkpoint.

--ranks=1: interrupted by SIGUSR1, by kill -9 and by run.stop_step in f32 and bf16; every other method by kill -9, two
of them with moments of 8 bits. --ranks=2: by SIGUSR1, on dp 2 and on tp 2, and the change from one to the other. The step at
which the signal arrives is left to chance; the reference run ends at the same step.
"""
import pathlib
import re
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

FIGURES = ("loss", "lr", "grad_norm", "vectors_switched", "moments_reset", "residual", "residual_of", "tokens")
RANKS = int(program.option("ranks", 1))


class Restart(program.Test):
    def interrupted_by_signal(self, run, ranks):
        """Returns the step of the checkpoint."""
        launch = run.start(ranks)
        self.wait_until(launch, lambda: run.last_step() >= 9)
        launch.signal(signal.SIGUSR1)
        self.assert_ends(launch, 75)
        step = run.checkpoints()[-1]
        self.assert_status(run, "requeue", "SIGUSR1", step)
        return step

    def killed(self, run):
        """Kills the run after a further save and some steps beyond it."""
        before = max(run.checkpoints(), default=0)
        launch = run.start()
        self.wait_until(launch, lambda: max(run.checkpoints(), default=0) > before and run.last_step() > run.checkpoints()[-1] + 1)
        launch.kill()
        self.assert_status(run, "running")
        return run.checkpoints()[-1]

    def assert_frozen(self, run, step, method):
        """The interruption must lie between two switches of a frozen slot; otherwise the test would show too little."""
        self.assertEqual(program.frozen_slots(run.checkpoint(step)) > 0, method == "switchlora")

    def assert_same_run(self, a, b, end):
        steps = a.steps(*FIGURES)
        self.assertEqual(sorted(steps), list(range(1, end + 1)))
        self.assertEqual(steps, b.steps(*FIGURES))
        # A part also evaluates its last step, so only steps that both runs evaluated are compared.
        values = {step: value for step, (value,) in a.steps("val_loss").items() if value is not None}
        expected = {step: value for step, (value,) in b.steps("val_loss").items() if value is not None}
        self.assertGreaterEqual(set(values), set(expected))
        self.assertGreaterEqual(len(expected), end // 5)
        self.assertEqual({step: values[step] for step in expected}, expected)
        self.assert_identical(a.checkpoint(end), b.checkpoint(end))

    def settings(self, method, dtype, **more):
        return {**program.EVERY_METHOD[method], "run.dtype": dtype, "run.save_interval": 7, "run.eval_interval": 5, **more}

    def cases(self):
        for method in program.METHODS:
            for dtype in ("f32", "bf16"):
                yield method, dtype

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_no_method_is_forgotten(self):
        listed = program.switchyard("train", "--list-methods").stdout
        self.assertEqual(sorted(re.findall(r"^(\w+): ", listed, re.M)), sorted(program.EVERY_METHOD))

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_one_rank(self):
        for method, dtype in self.cases():
            with self.subTest(method=method, dtype=dtype):
                settings = self.settings(method, dtype)
                a, b = self.run_of(f"a_{method}_{dtype}", **settings), self.run_of(f"b_{method}_{dtype}", **settings)
                first = self.interrupted_by_signal(a, 1)
                self.assert_frozen(a, first, method)
                second = self.killed(a)
                self.assertGreater(second, first)
                self.assert_frozen(a, second, method)
                self.assert_trains(a, run__stop_step=second + 4)
                self.assert_status(a, "stopped", "run.stop_step", second + 4)
                self.assert_frozen(a, second + 4, method)
                end = second + 9
                self.assert_trains(a, run__stop_step=end)
                self.assertEqual([e["step"] for e in a.events("resume")], [first, second, second + 4])
                self.assert_trains(b, run__stop_step=end)
                self.assert_same_run(a, b, end)

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_kills_of_every_other_method(self):
        for i, method in enumerate(sorted(set(program.EVERY_METHOD) - set(program.METHODS))):
            with self.subTest(method=method):
                coded = {"optim.state_bits": 8, "optim.min_8bit_size": 0} if method in ("apollo", "melora") else {}
                settings = self.settings(method, ("f32", "bf16")[i % 2], **coded)
                a, b = self.run_of(f"a_{method}", **settings), self.run_of(f"b_{method}", **settings)
                end = self.killed(a) + 6
                self.assert_trains(a, run__stop_step=end)
                self.assert_trains(b, run__stop_step=end)
                self.assert_same_run(a, b, end)

    @unittest.skipUnless(RANKS == 2, "of --ranks=2")
    def test_two_ranks(self):
        for method, dtype in self.cases():
            for tp in (1, 2):
                with self.subTest(method=method, dtype=dtype, tp=tp):
                    settings = self.settings(method, dtype, **{"parallel.tp": tp})
                    name = f"{method}_{dtype}_{tp}"
                    a, b = self.run_of("a_" + name, **settings), self.run_of("b_" + name, **settings)
                    first = self.interrupted_by_signal(a, 2)
                    self.assert_frozen(a, first, method)
                    end = first + 6
                    self.assert_trains(a, ranks=2, run__stop_step=end)
                    self.assert_trains(b, ranks=2, run__stop_step=end)
                    self.assert_same_run(a, b, end)

    @unittest.skipUnless(RANKS == 2, "of --ranks=2")
    def test_other_layouts_go_on_alike(self):
        """Sums in another order: 5e-6 of the loss in f32."""
        for method in program.METHODS:
            a, b = (self.run_of(f"{name}_{method}", **self.settings(method, "f32")) for name in "ab")
            self.assert_trains(a, ranks=2, run__stop_step=8)
            self.assert_trains(a, ranks=2, run__stop_step=12, parallel__tp=2)
            self.assert_trains(a, ranks=1, run__stop_step=16)
            self.assertEqual([(e["dp"], e["tp"]) for e in a.events("resume")], [(1, 2), (1, 1)])
            self.assertIn("parallel.tp: 1 -> 2", a.events("resume")[0]["changes"])
            self.assertIn("parallel.tp: 2 -> 1", a.events("resume")[1]["changes"])
            self.assert_trains(b, ranks=2, run__stop_step=16)
            found, expected = a.steps("loss"), b.steps("loss")
            self.assertEqual(sorted(found), list(range(1, 17)))
            for step, (loss,) in expected.items():
                self.assertAlmostEqual(found[step][0], loss, delta=5e-6 * loss, msg=f"{method}, step {step}")


if __name__ == "__main__":
    unittest.main()
