#!/usr/bin/env python3
"""How people go on: after a run that diverged, with more steps, with a lower rate, from another run's state; and a run whose
token file has nothing to evaluate on.

--build=DIRECTORY and --ranks=N: where the program is and how many ranks train; other arguments are unittest's.
"""
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import unittest

import h5py

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

RANKS = int(program.option("ranks", 1))
SETTINGS = {**program.SWITCHING, "run.steps": 12, "run.save_interval": 4, "run.keep_last": 9, "optim.schedule": "constant"}


class GoingOn(program.Test):
    def refused(self, run, *parts, **changes):
        code, output = run.train(RANKS, **changes)
        self.assertEqual(code, 1, output)
        for part in parts:
            self.assertIn(part, output)
        return output

    def launch_with_fault(self, run, fault):
        launcher = [*program.MPIRUN, "-n", RANKS] if RANKS > 1 else []
        return program.Launch([*launcher, "env", f"SWITCHYARD_TEST_FAULT={fault}", program.BUILD / "switchyard", "train",
                               *program.arguments(run.settings)])  # fmt: skip

    def losses(self, run):
        return run.steps("loss", "lr")


class Diverged(GoingOn):
    def test_finding_12_the_advice_can_be_followed(self):
        settings = {**program.METHODS["full"], **{k: v for k, v in SETTINGS.items() if k.startswith(("run.", "optim."))}}
        run = self.run_of(**{**settings, "optim.warmup_steps": 0, "run.save_interval": 1, "optim.lr": 1e25, "optim.clip_norm": 0})
        output = self.refused(run, "is not finite", "there is no good checkpoint before it", "start anew in another run.dir")
        self.assertNotIn("last checkpoint is good", output)
        # A checkpoint that leads to divergence at once does not count any more, and no run starts anew in silence.
        self.assertEqual(run.checkpoints(), [])
        if any(name.endswith(".diverged") for name in run.files()):
            self.refused(run, "no checkpoint in", "diverged", "use another run.dir")
        self.assert_status(run, "failed")

    def test_finding_12_the_one_before_is_named_and_taken(self):
        run = self.run_of(**SETTINGS, **{"optim.warmup_steps": 0})
        self.assert_trains(run, ranks=RANKS, run__stop_step=8)
        self.assertEqual(run.checkpoints(), [4, 8])
        # The step after the checkpoint of step 8 is not finite: planted in memory, before that step.
        launch = self.launch_with_fault(run, "0:8:nan")
        self.assertEqual(launch.wait(), 1, launch.output())
        bad, good = run.path / "checkpoints/step_00000008.h5", run.path / "checkpoints/step_00000004.h5"
        message = launch.output()
        for part in ("step 9: loss nan", f"checkpoint `{bad}` leads here", ".diverged", f"the newest good checkpoint is `{good}` of step 4", "; start"):
            self.assertIn(part, message)
        self.assertNotIn("-nan", message)
        self.assertEqual(run.files(), ["step_00000004.h5", "step_00000008.h5.diverged"])
        # Both ways that the message names.
        words = re.search(r"--run\.dir=OTHER (--run\.init_from=\S+) (--run\.init_state=all)", message)
        other = self.run_of("other", **SETTINGS, **{"optim.warmup_steps": 0, "run.init_from": words[1].split("=")[1], "run.init_state": "all"})
        self.assert_trains(other, ranks=RANKS, optim__clip_norm=0.1)
        output = self.assert_trains(run, ranks=RANKS, optim__lr=0.001)
        self.assertIn("resuming from step 4", output)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, 13)))

    def test_finding_12_a_good_checkpoint_stays(self):
        run = self.run_of(**SETTINGS)
        launch = self.launch_with_fault(run, "0:6:nan")
        self.assertEqual(launch.wait(), 1, launch.output())
        self.assertIn(f"the newest good checkpoint is `{run.checkpoint(4)}` of step 4", launch.output())
        self.assertEqual(run.files(), ["step_00000004.h5"])

    def test_finding_12_weights_that_are_not_finite_are_not_saved(self):
        full = {**program.METHODS["full"], **{k: v for k, v in SETTINGS.items() if k.startswith(("run.", "optim."))}}
        # After one step at that rate no f32 can hold the weights; the loss of the step itself is finite.
        other = self.run_of("other", **{**full, "run.save_interval": 1, "optim.lr": 1e300, "optim.warmup_steps": 0})
        self.refused(other, "step 1: weight ", "is not finite after the update, and is not saved", "start anew in another run.dir")
        self.assertEqual(other.files(), [])


class Longer(GoingOn):
    def test_finding_13_a_constant_rate_has_no_end(self):
        for schedule, changes in (("constant", {}), ("wsd", {"optim.decay_ratio": 0.25})):
            with self.subTest(schedule):
                settings = {**SETTINGS, "optim.schedule": schedule, "method.name": "lora", **changes}
                for key in ("method.switch_interval", "method.freeze_steps"):
                    settings.pop(key)
                run, whole = self.run_of(schedule, **settings), self.run_of(f"{schedule} whole", **settings)
                self.assert_trains(run, ranks=RANKS, run__stop_step=8)
                output = self.assert_trains(run, ranks=RANKS, run__steps=24)
                self.assertIn("changed     run.steps: 12 -> 24 (", output)
                self.assertIn("not bit for bit the one that was interrupted", output)
                self.assertEqual([(e["key"], e["stored"], e["requested"]) for e in run.events("change")], [("run.steps", "12", "24")])
                self.assert_trains(whole, ranks=RANKS, run__steps=24)
                self.assertEqual(self.losses(run), self.losses(whole))  # of lora nothing else follows run.steps
                self.assertIn("run.steps may only grow", self.refused(run, run__steps=20))

    def test_finding_13_what_has_a_shape_stays(self):
        cosine = self.run_of("cosine", **{**SETTINGS, "optim.schedule": "cosine"})
        self.assert_trains(cosine, ranks=RANKS, run__stop_step=8)
        self.refused(cosine, "run.steps: 12 -> 24", "a cosine over 24 steps differs at every step", f"--run.init_from={cosine.checkpoint()}",
                     "--run.init_state=all", run__steps=24)  # fmt: skip
        wsd = self.run_of("wsd", **{**SETTINGS, "optim.schedule": "wsd", "optim.decay_ratio": 0.5})
        self.assert_trains(wsd, ranks=RANKS, run__stop_step=8)  # the decay begins with step 7
        self.refused(wsd, "run.steps: 12 -> 24", "had begun by step 8", run__steps=24)

    def test_finding_13_rates_may_fall(self):
        run = self.run_of(**SETTINGS)
        self.assert_trains(run, ranks=RANKS, run__stop_step=4)
        self.refused(run, "optim.lr: 0.01 -> 0.02", "optim.lr may be lowered, not raised", optim__lr=0.02)
        self.refused(run, "optim.dense_lr may be lowered, not raised", optim__dense_lr=0.02)
        output = self.assert_trains(run, ranks=RANKS, optim__lr=0.005, optim__dense_lr=0.0025, run__stop_step=8)
        self.assertIn("changed     optim.lr: 0.01 -> 0.005 (updates after step 4", output)
        self.assertEqual([(e["key"], e["requested"], e["step"]) for e in run.events("change")],
                         [("optim.lr", "0.005", 4), ("optim.dense_lr", "0.0025", 4)])  # fmt: skip
        self.assertEqual({s: lr for s, (lr,) in run.steps("lr").items()}, {s: 0.01 * min(s / 4, 1) if s <= 4 else 0.005 for s in range(1, 9)})
        # From here on that is the run's rate.
        self.refused(run, "optim.lr: 0.005 -> 0.01")
        self.assert_trains(run, ranks=RANKS, optim__lr=0.005, optim__dense_lr=0.0025)
        self.assertEqual(len(run.events("change")), 2)


class InitFrom(GoingOn):
    def setUp(self):
        super().setUp()
        self.source = self.run_of("source", **SETTINGS)
        self.assert_trains(self.source, ranks=RANKS, run__stop_step=8)

    def start_of(self, run):
        return run.events("start")[0]

    def test_finding_13_a_run_directory_and_what_was_left(self):
        run = self.run_of(**SETTINGS, **{"run.init_from": self.source.path})
        output = self.assert_trains(run, ranks=RANKS, run__stop_step=2)
        self.assertIn(f"init        weights of `{self.source.checkpoint(8)}` (step 8); left: optimizer, method and position in the data", output)
        start = self.start_of(run)
        self.assertEqual((start["init_from"], start["init_state"], start["init_step"], start["first_sample"]), (str(self.source.checkpoint(8)), "weights", 8, 0))
        by_file = self.run_of("file", **SETTINGS, **{"run.init_from": self.source.checkpoint(8)})
        self.assert_trains(by_file, ranks=RANKS, run__stop_step=2)
        self.assertEqual(self.losses(run), self.losses(by_file))

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_a_terminal_shows_how_far_the_weights_are_read(self):
        run = self.run_of(**SETTINGS, **{"run.init_from": self.source.path, "run.stop_step": 1})
        terminal, output = os.openpty()
        process = subprocess.Popen([program.BUILD / "switchyard", "train", *program.arguments(run.settings)],
                                   stdout=output, env=program.ENVIRONMENT)  # fmt: skip
        os.close(output)
        shown = b""
        with contextlib.suppress(OSError):  # once nobody has the other end
            while part := os.read(terminal, 4096):
                shown += part
        os.close(terminal)
        self.assertEqual(process.wait(program.PATIENCE_S), 0, shown)
        self.assertRegex(shown.decode(), r"\d KiB of \S+ KiB of the checkpoint are read \(\d+ %\)")

    def test_finding_13_all_goes_on_as_the_other_run_does(self):
        """lora at a constant rate: nothing depends on the number of the step."""
        lora = {k: v for k, v in {**SETTINGS, "method.name": "lora", "optim.warmup_steps": 0}.items() if k not in ("method.switch_interval", "method.freeze_steps")}
        source = self.run_of("lora", **lora)
        self.assert_trains(source, ranks=RANKS, run__stop_step=8)
        run = self.run_of("all", **lora, **{"run.init_from": source.path, "run.init_state": "all"})
        output = self.assert_trains(run, ranks=RANKS, run__stop_step=2)
        self.assertIn(f"init        weights, optimizer and method of `{source.checkpoint(8)}` (step 8); the data go on at sample 96", output)
        self.assert_trains(run, ranks=RANKS, run__stop_step=4)  # the new run resumes, too
        self.assert_trains(source, ranks=RANKS)
        self.assertEqual([loss for _, (loss, _) in sorted(self.losses(run).items())],
                         [loss for step, (loss, _) in sorted(self.losses(source).items()) if step > 8])  # fmt: skip
        with h5py.File(run.checkpoint(4)) as file:
            self.assertEqual(int(file["data"].attrs["next_sample"]), 96 + 4 * 12)

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_finding_13_every_method_goes_on(self):
        """Taken after an odd number of steps. Later losses follow where nothing is drawn or refreshed by the step's number."""
        settings = {k: v for k, v in SETTINGS.items() if not k.startswith("method.")} | {"optim.warmup_steps": 0, "optim.lr": 0.003, "run.save_interval": 3}
        for method in program.method_names():
            with self.subTest(method):
                own = settings | {"method.name": method} | ({"method.noise": 1e-9} if method == "flatlora" else {})
                source = self.run_of(f"{method} source", **own)
                self.assert_trains(source, run__stop_step=6)
                run = self.run_of(method, **own, **{"run.init_from": source.checkpoint(3), "run.init_state": "all"})
                if method == "pclora":
                    self.refused(run, "run.init_state = all cannot use", "(the factor of its frozen weights follows the step", "; resume the run itself")
                    continue
                self.assert_trains(run, run__stop_step=3)
                ours, theirs = ([run.steps("loss")[step][0] for run, step in ((of, first + i) for i in range(3))] for of, first in ((run, 1), (source, 4)))
                exact = 3 if method in ("full", "lora", "dora", "melora", "loft", "riemannian", "muon") else 1
                self.assertEqual(ours[:exact], theirs[:exact])
                self.assertLess(abs(ours[2] - theirs[2]), 0.05)

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_finding_13_no_way_is_named_that_is_refused(self):
        settings = {k: v for k, v in SETTINGS.items() if not k.startswith("method.")} | {"method.name": "pclora"}
        run = self.run_of(**settings)
        launch = self.launch_with_fault(run, "0:6:nan")
        self.assertEqual(launch.wait(), 1, launch.output())
        self.assertIn("; start the same run again with a lower optim.lr or optim.dense_lr to go on from there", launch.output())
        self.assertNotIn("init_state", launch.output())
        self.assertNotIn("init_from", self.refused(run, "use the stored values", method__task_weight=0.5))

    def test_finding_13_switches_go_on(self):
        run = self.run_of(**SETTINGS, **{"run.init_from": self.source.path, "run.init_state": "all"})
        self.assert_trains(run, ranks=RANKS)
        first = run.steps("loss")[1][0]
        self.assert_trains(self.source, ranks=RANKS)
        self.assertEqual(first, self.source.steps("loss")[9][0])

    def test_finding_13_the_data_begin_anew_where_they_are_others(self):
        run = self.run_of(**SETTINGS, **{"run.init_from": self.source.path, "run.init_state": "all", "run.seed": 3})
        output = self.assert_trains(run, ranks=RANKS, run__stop_step=1)
        self.assertIn("left: position in the data (run.seed, which orders the samples, differs), which begin at sample 0", output)
        self.assertEqual(self.start_of(run)["first_sample"], 0)

    def test_finding_13_a_state_of_another_method_is_refused(self):
        for name, changes in (("method.rank = 6 and this run 4", {"method__rank": 4}), ("run.dtype = f32 and this run bf16", {"run__dtype": "bf16"})):
            run = self.run_of(name[:9], **SETTINGS, **{"run.init_from": self.source.path, "run.init_state": "all"})
            self.refused(run, name, "use run.init_state = weights", **changes)


class Validation(GoingOn):
    def test_finding_14_nothing_to_evaluate_on_is_said_once(self):
        tokens = program.make_tokens(self.folder, seed=2, validation=0)
        run = program.Run(self.folder / "run", tokens, **SETTINGS, **{"run.eval_interval": 2})
        output = self.assert_trains(run, ranks=RANKS)
        self.assertEqual(output.count("has no validation tokens"), 1)
        self.assertNotRegex(output, r"\bnan\b|-nan|val_loss \d|validation \d")
        text = (run.path / "log.jsonl").read_text()
        self.assertNotIn("val_loss", text)
        self.assertNotRegex(text.replace(str(self.folder), "").lower(), r"\bnan\b|\bnull\b")
        result = program.switchyard("eval", run.path)
        self.assertEqual(result.returncode, 1)
        self.assertIn("has no validation tokens", result.stderr)


class Leftovers(GoingOn):
    def test_unfinished_status_files_are_removed(self):
        run = self.run_of(**SETTINGS)
        run.path.mkdir()
        for name in ("status.json.node1.17.partial", "status.json.node2.18.partial", "mine.partial"):
            (run.path / name).write_text("{")
        self.assert_trains(run, ranks=RANKS, run__stop_step=1)
        self.assertEqual([p.name for p in run.path.glob("*.partial")], ["mine.partial"])


if __name__ == "__main__":
    unittest.main()
