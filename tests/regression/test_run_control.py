#!/usr/bin/python3
"""How a run ends, starts and is refused: signals, time limit, status.json, exit codes, locks, what a resumed run may change.

--ranks=1 (one process) or --ranks=2 (mpirun).
"""
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

RANKS = int(program.option("ranks", 1))


class Ends(program.Test):
    def test_finished(self):
        run = self.run_of(**{"run.steps": 6})
        self.assert_trains(run, ranks=RANKS)
        self.assert_status(run, "finished", "run.steps", 6)
        output = self.assert_trains(run, ranks=RANKS)  # again: nothing left to do
        self.assertIn("resuming from step 6", output)
        self.assert_status(run, "finished", "run.steps", 6)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, 7)))

    def test_a_refused_start_leaves_a_finished_run_finished(self):
        run = self.run_of(**{"run.steps": 6})
        self.assert_trains(run, ranks=RANKS)
        code, output = run.train(RANKS, **{"model.init_std": 0.5})
        self.assertEqual(code, 1, output)
        self.assertIn("model.init_std", output)
        self.assert_status(run, "finished", "run.steps", 6)

    def test_sigusr1_saves_and_asks_for_another_start(self):
        run = self.run_of()
        launch = run.start(RANKS)
        self.wait_until(launch, lambda: run.last_step() >= 3)
        self.assert_status(run, "running", step=0)
        launch.signal(signal.SIGUSR1)
        self.assert_ends(launch, 75)
        step = run.checkpoints()[-1]
        self.assertEqual(run.last_step(), step)
        self.assert_status(run, "requeue", "SIGUSR1", step)
        self.assert_verifies(run.checkpoint())
        self.assertEqual([(e["step"], e["reason"]) for e in run.events("signal")], [(step, "SIGUSR1")])
        self.assertIn(f"requeue at step {step} (SIGUSR1), start the same command again to go on", launch.output())

    def test_signals_without_end_change_nothing(self):
        """Every rank gets signals from the moment that the run directory is there until its process has ended. (mpirun itself
        stops catching signals before it ends.)"""
        run = self.run_of()
        launch = run.start(RANKS)
        self.wait_until(launch, lambda: (run.path / "lock").exists())
        ranks = [program.Process(pid) for pid in launch.ranks()]
        while launch.running():
            for rank in ranks:
                rank.signal(signal.SIGUSR1)
            time.sleep(0.001)
        self.assertEqual(launch.wait(), 75, launch.output())
        self.assert_status(run, "requeue", "SIGUSR1", run.checkpoints()[-1])
        self.assert_verifies(run.checkpoint())
        self.assertEqual(len(run.events("signal")), 1)
        self.assertEqual(len(run.events("finish")), 1)

    def test_wall_limit(self):
        run = self.run_of(**{"run.wall_limit": 2})
        code, output = run.train(RANKS)
        self.assertEqual(code, 75, output)
        first = run.checkpoints()[-1]
        self.assert_status(run, "requeue", "run.wall_limit", first)
        code, output = run.train(RANKS)
        self.assertEqual(code, 75, output)
        self.assertGreater(run.checkpoints()[-1], first)

    def test_a_file_named_stop(self):
        run = self.run_of()
        launch = run.start(RANKS)
        self.wait_until(launch, lambda: run.last_step() >= 2)
        (run.path / "save").touch()
        self.wait_until(launch, lambda: run.checkpoints())
        (run.path / "stop").touch()
        self.assertEqual(launch.wait(), 0, launch.output())
        self.assertEqual(len(run.checkpoints()), 2)
        self.assert_status(run, "stopped", "stop file", run.checkpoints()[-1])

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_sigterm_and_sigint_save_and_stop(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            run = self.run_of(number.name)
            launch = run.start()
            self.wait_until(launch, lambda: run.last_step() >= 3)
            launch.signal(number)
            self.assertEqual(launch.wait(), 0, launch.output())
            self.assert_status(run, "stopped", "SIGTERM or SIGINT", run.checkpoints()[-1])
            self.assertEqual(run.last_step(), run.checkpoints()[-1])

    def test_a_suspended_run_goes_on(self):
        """As with Slurm's `scontrol suspend` and `resume`, for longer than a rank may be silent."""
        run = self.run_of(**{"run.hang_timeout": 8})
        launch = run.start(RANKS)
        self.wait_until(launch, lambda: run.last_step() >= 3)
        ranks = [program.Process(pid) for pid in launch.ranks()]
        for rank in ranks:
            rank.signal(signal.SIGSTOP)
        time.sleep(12)
        before = run.last_step()
        for rank in ranks:
            rank.signal(signal.SIGCONT)
        self.wait_until(launch, lambda: run.last_step() > before + 3)
        (run.path / "stop").touch()
        self.assertEqual(launch.wait(), 0, launch.output())
        self.assert_status(run, "stopped", "stop file")

    @unittest.skipUnless(RANKS == 2, "of --ranks=2")
    def test_sigusr1_to_one_rank_is_agreed_by_all(self):
        for rank in range(RANKS):
            run = self.run_of(f"rank{rank}")
            launch = run.start(RANKS)
            self.wait_until(launch, lambda: run.last_step() >= 3)
            program.Process(launch.ranks()[rank]).signal(signal.SIGUSR1)
            self.assertEqual(launch.wait(), 75, launch.output())
            self.assert_status(run, "requeue", "SIGUSR1", run.checkpoints()[-1])
            self.assert_verifies(run.checkpoint())

    @unittest.skipUnless(RANKS == 2, "of --ranks=2")
    def test_sigterm_to_mpirun_leaves_a_checkpoint(self):
        """mpirun kills its ranks soon; what was saved before, or in time, counts."""
        run = self.run_of(**{"run.save_interval": 3})
        launch = run.start(RANKS)
        self.wait_until(launch, lambda: run.last_step() >= 5)
        launch.signal(signal.SIGTERM)
        launch.wait()
        self.assertIn(run.status()["outcome"], ("stopped", "running"))
        self.assert_verifies(run.checkpoint())
        end = run.checkpoints()[-1] + 1
        self.assert_trains(run, ranks=RANKS, run__stop_step=end)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, end + 1)))


@unittest.skipUnless(RANKS == 1, "of --ranks=1")
class Directory(program.Test):
    def test_in_use_is_refused_and_harmless(self):
        run = self.run_of()
        first = run.start()
        self.wait_until(first, lambda: run.last_step() >= 2)
        code, output = run.train()
        self.assertEqual(code, 1)
        self.assertIn(f"run directory `{run.path}` is in use by pid {first.process.pid} on host", output)
        self.assert_status(run, "running")
        first.kill()  # the lock goes with its owner
        self.assert_trains(run, run__stop_step=4)
        self.assert_status(run, "stopped", "run.stop_step", 4)

    def test_log_beyond_the_checkpoint_is_moved_aside(self):
        run = self.run_of(**{"run.save_interval": 4})
        launch = run.start()
        self.wait_until(launch, lambda: run.checkpoints() and run.last_step() >= run.checkpoints()[-1] + 2)
        launch.kill()
        saved, before = run.checkpoints()[-1], run.log()
        self.assert_trains(run, run__stop_step=saved + 1)
        resume = run.events("resume")[0]
        beyond = [entry for entry in before if entry["step"] > saved]
        self.assertEqual((resume["step"], resume["checkpoint"]), (saved, str(run.checkpoint(saved))))
        self.assertEqual(resume["superseded_lines"], len(beyond))
        self.assertEqual(run.log("log.superseded.jsonl")[: len(beyond)], beyond)
        kept = [entry for entry in before if entry["step"] <= saved]
        self.assertEqual(run.log()[: len(kept)], kept)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, saved + 2)))

    def test_start_without_a_checkpoint_begins_a_new_log(self):
        run = self.run_of()
        launch = run.start()
        self.wait_until(launch, lambda: run.last_step() >= 3)
        launch.kill()
        self.assert_trains(run, run__stop_step=2)
        self.assertEqual(sorted(run.steps("loss")), [1, 2])
        self.assertEqual(run.log()[0]["event"], "start")

    def test_retention(self):
        run = self.run_of(**{"run.save_interval": 1, "run.keep_last": 2, "run.keep_every": 4})
        self.assert_trains(run, run__stop_step=10)
        self.assertEqual(run.checkpoints(), [4, 8, 9, 10])
        self.assert_trains(run, run__stop_step=13, run__keep_last=1, run__keep_every=0)
        self.assertEqual(run.checkpoints(), [13])
        self.assertEqual(run.events("resume")[0]["changes"], [
            "run.stop_step: 10 -> 13", "run.keep_last: 2 -> 1", "run.keep_every: 4 -> 0"])  # fmt: skip

    def test_tokens_without_validation(self):
        tokens = program.make_tokens(self.folder, validation=0)
        run = self.run_of(**{"data.tokens": tokens, "run.eval_interval": 1})
        output = self.assert_trains(run, run__stop_step=3)
        self.assertEqual(output.count(f"`{tokens}` has no validation tokens"), 1, output)
        self.assertNotRegex(output.replace(str(self.folder), ""), r"(?i)\bnan\b")
        self.assertTrue(all("val_loss" not in entry for entry in run.log()))


@unittest.skipUnless(RANKS == 1, "of --ranks=1")
class Contract(program.Test):
    """What a resumed run may be asked for; the keys one by one: tests/train/test_resume_contract.cpp."""

    def assert_refused(self, run, *parts, **changes):
        before = run.checkpoints()
        code, output = run.train(**changes)
        self.assertEqual(code, 1, output)
        for part in parts:
            self.assertIn(part, output)
        self.assertEqual(output.count("[rank "), 1, output)
        self.assert_status(run, "failed", parts[0])
        self.assertEqual(run.checkpoints(), before)

    def test_changes_are_logged_or_refused_by_name(self):
        run = self.run_of(**{"run.steps": 50})
        self.assert_trains(run, run__stop_step=4)
        output = self.assert_trains(run, run__stop_step=6, data__micro_batch=2, run__log_interval=3)
        changes = ["data.micro_batch: 1 -> 2", "run.stop_step: 4 -> 6", "run.log_interval: 10 -> 3"]
        self.assertEqual(run.events("resume")[0]["changes"], changes)
        for change in changes:
            self.assertIn("changed     " + change, output)
        self.assert_refused(run, "run.steps: 50 -> 60", run__steps=60)
        self.assert_refused(
            run, "optim.lr: 0.01 -> 0.02", "method.name: switchlora -> full", "method.rank: 6 -> ",
            optim__lr=0.02, method__name="full")  # fmt: skip
        self.assert_refused(run, "model.hidden_size: 24 -> 48", model__hidden_size=48)
        self.assert_trains(run, run__stop_step=7)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, 8)))

    def test_token_file(self):
        run = self.run_of()
        self.assert_trains(run, run__stop_step=3)
        copy = self.folder / "copy.h5"
        shutil.copy(self.tokens, copy)
        self.assert_trains(run, run__stop_step=4, data__tokens=copy)
        self.assertIn(f"data.tokens: {self.tokens} -> {copy}", run.events("resume")[0]["changes"])
        other = program.make_tokens(self.folder, seed=2, tokenizer=self.tokens)
        self.assert_refused(run, f"token file `{other}` holds different tokens from that of checkpoint", data__tokens=other)
        foreign = program.make_tokens(self.folder, seed=3)
        self.assert_refused(
            run, f"token file `{foreign}` was made with a different tokenizer from that of checkpoint", data__tokens=foreign)

    def test_run_directory_may_move(self):
        run = self.run_of()
        self.assert_trains(run, run__stop_step=3)
        moved = self.run_of("moved")
        run.path.rename(moved.path)
        self.assert_trains(moved, run__stop_step=5)
        self.assertIn(f"run.dir: {run.path} -> {moved.path}", moved.events("resume")[0]["changes"])
        self.assertEqual(sorted(moved.steps("loss")), [1, 2, 3, 4, 5])

    def test_init_from(self):
        """Only weights are taken; that they keep their function: tests/train/test_restart.cpp."""
        source = self.run_of("source", **program.SWITCHING)
        self.assert_trains(source, run__stop_step=3)
        file = source.checkpoint()
        run = self.run_of("new", **program.METHODS["full"], **{"run.init_from": file, "run.save_interval": 2})
        self.assert_trains(run, run__stop_step=2, optim__lr=0.003, run__seed=5)
        start = run.events("start")[0]
        self.assertEqual((start["init_from"], start["lr"], start["dense_lr"]), (str(file), 0.003, 0.003))
        self.assertEqual(sorted(run.steps("loss")), [1, 2])
        self.assertEqual(run.steps("tokens")[1], (96,))
        file.unlink()  # a resumed run does not need it
        self.assert_trains(run, run__stop_step=3, optim__lr=0.003, run__seed=5)
        self.assert_refused(run, f"run.init_from: {file} -> ", optim__lr=0.003, run__seed=5, run__init_from="")

    def test_init_from_what_does_not_fit(self):
        source = self.run_of("source", **program.SWITCHING)
        self.assert_trains(source, run__stop_step=1)
        file = source.checkpoint()
        start = {"run.init_from": file}
        self.assert_refused(
            self.run_of("a", **start), f"checkpoint `{file}` is of another model: model.ffn_size is 37 there and 41 here",
            model__ffn_size=41)  # fmt: skip
        foreign = program.make_tokens(self.folder, seed=3)
        self.assert_refused(
            self.run_of("b", **start), f"checkpoint `{file}` was trained with a different tokenizer", data__tokens=foreign)
        self.assert_refused(self.run_of("c"), f"cannot open `{self.folder}/none.h5`", run__init_from=self.folder / "none.h5")
        self.assert_refused(self.run_of("d"), str(self.tokens), run__init_from=self.tokens)


class Start(program.Test):
    def test_single_processes_share_no_folder_of_open_mpi(self):
        """Each process would remove the folder at its end, also while another one starts and needs it."""
        folder = self.folder / "temporary"
        result = program.switchyard("--version", env={**program.ENVIRONMENT, "TMPDIR": str(folder)})
        self.assertEqual((result.returncode, folder.exists()), (0, False), result.stdout + result.stderr)

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_commands_of_one_process_start_no_mpi(self):
        """They must work on login nodes, some of which refuse MPI_Init."""
        source, library = self.folder / "refuse.c", self.folder / "refuse.so"
        refuse = '{ fputs("MPI was started\\n", stderr); _exit(99); }\n'
        source.write_text(
            "#include <stdio.h>\n#include <unistd.h>\n"
            f"int MPI_Init(int *argc, char ***argv) {refuse}"
            f"int MPI_Init_thread(int *argc, char ***argv, int wanted, int *given) {refuse}")  # fmt: skip
        subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
        run = self.run_of()
        self.assert_trains(run, run__stop_step=2)
        file = run.checkpoint(2)
        text = self.folder / "a.txt"
        text.write_text("ka lo mi\n\nten sur\n")

        def start(*words, launcher=()):
            command = [*launcher, "env", f"LD_PRELOAD={library}", program.BUILD / "switchyard", *words]
            return subprocess.run(command, env=program.ENVIRONMENT, capture_output=True, text=True, timeout=program.PATIENCE_S)

        plan = ["plan", *program.arguments({**run.settings, "parallel.tp": 2}), "--ranks=4"]
        for words in (["tokenize", text, f"--output={self.folder}/a.h5", f"--tokenizer={self.tokens}"], plan,
                      ["inspect", file], ["inspect", self.tokens], ["verify", file, self.tokens], ["diff", file, file],
                      ["diff", self.tokens, self.tokens], ["help"], ["--help"], ["help", "train"], ["--version"],
                      ["train", "--help"], ["train", f"--data.tokens={self.tokens}", "--dump-config"], ["--dump-config"],
                      ["eval", "--help"]):  # fmt: skip
            for launcher in ((), (*program.MPIRUN, "-n", "1")):
                with self.subTest(words=words[:2], launched=bool(launcher)):
                    result = start(*words, launcher=launcher)
                    self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
                    if words[0] == "tokenize":
                        (self.folder / "a.h5").unlink()
        wrong = start("inspect", self.folder / "none.h5")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("[rank 0] ", wrong.stderr)
        for words in (["eval", file], plan[:1] + ["--ranks=0"]):
            launcher = () if words[0] == "eval" else (*program.MPIRUN, "-n", "2")
            self.assertEqual(start(*words, launcher=launcher).returncode, 99, "where MPI is needed it is started")

    @unittest.skipUnless(RANKS == 1, "of --ranks=1")
    def test_another_librarys_mpirun_is_refused(self):
        """Each of its processes would be rank 0 of 1. The test sets a variable that neither MPI library here reads."""
        run = self.run_of()
        launch = program.Launch(["env", "MV2_COMM_WORLD_SIZE=2", program.BUILD / "switchyard", "train", *program.arguments(run.settings)])
        self.assertEqual(launch.wait(), 1, launch.output())
        self.assertIn("mpirun started 2 processes, but MPI knows of one (", launch.output())
        self.assertFalse(run.path.exists())

    @unittest.skipUnless(RANKS == 2, "of --ranks=2")
    def test_commands_of_one_process_speak_once_on_several(self):
        launcher = [*program.MPIRUN, "-n", "2", program.BUILD / "switchyard"]
        for words in (["--version"], ["help", "train"], ["inspect", self.tokens], ["verify", self.tokens], ["plan"]):
            with self.subTest(words=words):
                result = subprocess.run([*launcher, *words], env=program.ENVIRONMENT, capture_output=True, text=True, timeout=program.PATIENCE_S)
                alone = program.switchyard(*words)
                self.assertEqual(result.returncode, 0, result.stderr)
                if words[0] != "plan":
                    self.assertEqual(result.stdout, alone.stdout)
                self.assertEqual(result.stdout.count("\nlayout ") + result.stdout.startswith("layout "), words[0] == "plan")


if __name__ == "__main__":
    unittest.main()
