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
    "galore_svd": ["--method.name=galore", "--method.update_interval=6", "--method.basis=svd", "--optim.eps=1e-4"],
    "muon": ["--method.name=muon"],
    "apollo": ["--method.name=apollo", "--method.update_interval=6", "--optim.eps=1e-4"],
    "riemannian": ["--method.name=riemannian", "--method.alpha=6", "--optim.eps=1e-4", "--optim.lr=0.004"],
    "melora": ["--method.name=melora", "--method.alpha=6", "--optim.eps=1e-4", "--optim.lr=0.004"],
    "flatlora": ["--method.name=flatlora", "--method.noise=0.5", "--method.alpha=6", "--optim.lr=0.004"],
    "loft": ["--method.name=loft", "--optim.eps=1e-4", "--optim.lr=0.004"],
    "pclora": ["--method.name=pclora", "--method.decay_steps=12", "--method.alpha=6", "--optim.lr=0.004"],
    "sora": ["--method.name=sora", "--method.threshold=9", "--method.sparsity=0.1"],
    "dora": ["--method.name=dora", "--method.norm_gradient=exact"],
    "switchlora": ["--method.name=switchlora", "--method.switch_interval=6", "--method.freeze_steps=3", "--method.switch_ratio=1"],
    "switchlora_8bit": ["--method.name=switchlora", "--method.switch_interval=6", "--method.freeze_steps=3", "--method.switch_ratio=1",
                        "--optim.state_bits=8", "--optim.min_8bit_size=0", "--optim.eps=1e-4"],
    "lora_weight_gradient": ["--method.name=lora", "--method.strategy=weight_gradient", "--method.alpha=6", "--optim.lr=0.004"],
    # After a merge the moments of most elements are zero, so that rounding grows fast at tiny_state's rate.
    "relora": ["--method.name=relora", "--method.merge_interval=6", "--method.restart_warmup=2", "--method.reset=magnitude", "--method.alpha=6",
               "--optim.lr=0.004"],
}
# Of losses and of gradient norms. In f32 the norms of the CPU differ from those in f64 by 1e-4 by themselves.
TOLERANCE = {"f64": (1e-9, 1e-9), "f32": (1e-4, 1e-3)}


def run_of(steps, *arguments, tp=1, start="-", end="-"):
    """Words of tiny_state for one run."""
    return [tp, start, steps, end, *arguments]


class BackEnds(program.Test):
    @classmethod
    def setUpClass(cls):
        """Needs no tokens."""

    def states(self, back_end, runs, ranks=RANKS):
        """Of each of the runs, which one start makes one after another: [(step, loss, norm)] of the steps made."""
        words = []
        for run in runs:
            words += [*(["+"] if words else []), *run]
        command = [*program.MPIRUN, "-n", ranks, program.BUILD / "tests" / PROGRAMS[back_end], *words]
        result = subprocess.run([*map(str, command)], env=program.ENVIRONMENT, capture_output=True, text=True, timeout=800)
        self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}{result.stderr}")
        parts = result.stdout.split("+\n")
        self.assertEqual(len(parts), len(runs), result.stdout)
        split = [[line.split() for line in part.splitlines()] for part in parts]
        return [[(int(step), float(loss), float(norm)) for step, loss, norm in lines] for lines in split]

    def assert_close(self, runs, tolerances, what):
        first, other = runs
        self.assertEqual([s[0] for s in first], [s[0] for s in other], what)
        self.assertTrue(first, what)
        for (step, *ours), (_, *theirs) in zip(first, other):
            for mine, its, tolerance in zip(ours, theirs, tolerances):
                self.assertLessEqual(abs(mine - its), tolerance * abs(mine), f"{what}, step {step}: {mine} and {its}")

    def test_the_same_numbers_on_every_factorisation(self):
        layouts = [tp for tp in (1, 2, 4) if RANKS % tp == 0]
        cases = [(name, dtype, tp) for name in METHODS for tp in layouts for dtype in TOLERANCE if dtype == "f64" or tp == layouts[len(layouts) // 2]]
        small = ["--data.global_batch=4"]  # emulated, tiny_state's own takes minutes
        more = {2: ["--parallel.shard_frozen=true", "--model.recompute=true"], "f32": ["--model.num_layers=1"]}
        runs = [run_of(14, *METHODS[name], f"--run.dtype={dtype}", *small, *more.get(tp, []), *more.get(dtype, []), tp=tp)
                for name, dtype, tp in cases]  # fmt: skip
        for (name, dtype, tp), *both in zip(cases, *(self.states(back_end, runs) for back_end in PROGRAMS)):
            self.assert_close(both, TOLERANCE[dtype], f"{name}, {dtype}, tp {tp}")

    def test_states_go_there_and_back_without_a_change(self):
        """In all types for one method; others store no value in another way."""
        cases = [(name, dtype) for name in METHODS for dtype in (("bf16", "f32", "f64") if name == "switchlora" else ("bf16",))]

        def file(case, state):
            return self.folder / f"{'_'.join(case)}_{state}.h5"

        def moves(start, end, steps=0, tp=1):
            return [run_of(steps, *METHODS[case[0]], f"--run.dtype={case[1]}", "--model.num_layers=1", tp=tp,
                           start=file(case, start) if start else "-", end=file(case, end)) for case in cases]  # fmt: skip

        self.states("first", moves(None, "begun", steps=7, tp=2 if RANKS % 2 == 0 else 1))
        self.states("other", moves("begun", "there") + moves("begun", "grown", steps=2))
        self.states("first", moves("there", "back", tp=RANKS) + moves("grown", "grown_back"))
        for case in cases:
            for mine, its in (("begun", "there"), ("begun", "back"), ("grown", "grown_back")):
                self.assert_identical(file(case, mine), file(case, its), recomputed=".row_scale")

    def test_a_run_goes_on_with_the_same_numbers_on_the_other_back_end(self):
        arguments, begun = [*METHODS["switchlora"], "--run.dtype=f64"], self.folder / "begun.h5"
        self.states("first", [run_of(5, *arguments, end=begun)])
        both = [self.states(back_end, [run_of(10, *arguments, start=begun)])[0] for back_end in PROGRAMS]
        self.assert_close(both, TOLERANCE["f64"], "resumed")


if __name__ == "__main__":
    unittest.main()
