#!/usr/bin/python3
"""The same run on two back ends: the same numbers up to rounding, and states that go from one to the other.

--build=DIRECTORY --other=cuda-emulated --ranks=4. The first back end is that of tiny_state, the other one of tiny_state-OTHER.
"""
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

OTHER, RANKS = program.option("other", "cuda-emulated"), int(program.option("ranks", 4))
PROGRAMS = {"first": "tiny_state", "other": f"tiny_state-{OTHER}"}
# With the paper's freezing about half of the slots are frozen on one side at any step.
METHODS = {
    "full": ["--method.name=full"],
    "lora": ["--method.name=lora"],
    # Without eps an element whose gradient is rounding noise would move by the full rate.
    "galore": ["--method.name=galore", "--method.update_interval=6", "--optim.eps=1e-4"],
    "muon": ["--method.name=muon"],
    "apollo": ["--method.name=apollo", "--method.update_interval=6", "--optim.eps=1e-4"],
    "sora": ["--method.name=sora", "--method.threshold=9", "--method.sparsity=0.1"],
    "dora": ["--method.name=dora", "--method.norm_gradient=exact"],
    "switchlora": ["--method.name=switchlora", "--method.switch_interval=6", "--method.freeze_steps=3", "--method.switch_ratio=1"],
    "lora_weight_gradient": ["--method.name=lora", "--method.strategy=weight_gradient", "--method.alpha=6", "--optim.lr=0.004"],
    # After a merge the moments of most elements are zero, so that rounding grows fast at tiny_state's rate.
    "relora": ["--method.name=relora", "--method.merge_interval=6", "--method.restart_warmup=2", "--method.reset=magnitude", "--method.alpha=6",
               "--optim.lr=0.004"],
}
# Of losses and of gradient norms. In f32 the norms of the CPU differ from those in f64 by 1e-4 by themselves.
TOLERANCE = {"f64": (1e-9, 1e-9), "f32": (1e-4, 1e-3)}


class BackEnds(program.Test):
    @classmethod
    def setUpClass(cls):
        """Needs no tokens."""

    def state(self, back_end, arguments, tp=1, start="-", steps=0, end="-", ranks=RANKS):
        """[(step, loss, norm)] of the steps made."""
        command = [*program.MPIRUN, "-n", ranks, program.BUILD / "tests" / PROGRAMS[back_end], tp, start, steps, end, *arguments]
        result = subprocess.run([*map(str, command)], env=program.ENVIRONMENT, capture_output=True, text=True, timeout=600)
        self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}{result.stderr}")
        lines = [line.split() for line in result.stdout.splitlines()]
        return [(int(step), float(loss), float(norm)) for step, loss, norm in lines]

    def assert_close(self, runs, tolerances, what):
        first, other = runs
        self.assertEqual([s[0] for s in first], [s[0] for s in other], what)
        self.assertTrue(first, what)
        for (step, *ours), (_, *theirs) in zip(first, other):
            for mine, its, tolerance in zip(ours, theirs, tolerances):
                self.assertLessEqual(abs(mine - its), tolerance * abs(mine), f"{what}, step {step}: {mine} and {its}")

    def test_the_same_numbers_on_every_factorisation(self):
        for name, method in METHODS.items():
            for tp in (t for t in (1, 2, 4) if RANKS % t == 0):
                for dtype, steps in (("f64", 20), ("f32", 20)):
                    arguments = [*method, f"--run.dtype={dtype}", f"--parallel.shard_frozen={'true' if tp == 2 else 'false'}"]
                    runs = [self.state(b, arguments, tp, steps=steps) for b in ("first", "other")]
                    self.assert_close(runs, TOLERANCE[dtype], f"{name}, {dtype}, tp {tp}")

    def test_states_go_there_and_back_without_a_change(self):
        """In all types for one method; others store no value in another way."""
        for name, method in METHODS.items():
            for dtype in ("bf16", "f32", "f64") if name == "switchlora" else ("bf16",):
                arguments = [*method, f"--run.dtype={dtype}", "--model.num_layers=1"]
                begun, there, back, grown = (self.folder / f"{name}_{dtype}_{i}.h5" for i in range(4))
                self.state("first", arguments, 2 if RANKS % 2 == 0 else 1, steps=7, end=begun)
                self.state("other", arguments, 1, start=begun, end=there)
                self.state("first", arguments, RANKS, start=there, end=back)
                self.assert_identical(begun, there, recomputed=".row_scale")
                self.assert_identical(begun, back, recomputed=".row_scale")
                self.state("other", arguments, 1, start=begun, steps=2, end=grown)
                self.state("first", arguments, 1, start=grown, end=back)
                self.assert_identical(grown, back, recomputed=".row_scale")

    def test_a_run_goes_on_with_the_same_numbers_on_the_other_back_end(self):
        arguments = [*METHODS["switchlora"], "--run.dtype=f64"]
        begun = self.folder / "begun.h5"
        self.state("first", arguments, 1, steps=5, end=begun)
        runs = [self.state(b, arguments, 1, start=begun, steps=10) for b in ("first", "other")]
        self.assert_close(runs, TOLERANCE["f64"], "resumed")


if __name__ == "__main__":
    unittest.main()
