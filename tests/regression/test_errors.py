#!/usr/bin/python3
"""Help, errors of users, and failures: one rank gives one clear message, the exit code is 1, every rank has ended, the run
directory says `failed`, and what was saved before still verifies.

--build=DIRECTORY is where the program is; other arguments are unittest's. Exits 77 when all that was asked for is skipped.
"""
import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import unittest

import h5py

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support.program import BUILD, ENVIRONMENT, MPIRUN, PATIENCE_S, ROOT, SWITCHING, Launch, Run, Test, arguments, make_tokens, switchyard

MESSAGE = re.compile(r"^\[rank (\d+)\] (.*)$", re.M)
FORM = re.compile(r"\S.* \(.+\); \S")  # problem (why it matters); what to do
CRASH = re.compile(r"terminate called|Segmentation|Signal:|Assertion|std::|internal error")


def launch(ranks, words, fault=None, before=()):
    """Runs to the end: (exit code, output). `before`: a command that starts what follows it."""
    variables = [f"SWITCHYARD_TEST_FAULT={fault}"] if fault else []
    launcher = [*MPIRUN, "-n", ranks] if ranks > 1 else []
    process = Launch([*launcher, "env", *variables, *before, BUILD / "switchyard", *words])
    return process.wait(), process.output()


def under_limit(limit):
    """A command for `before` that sets a limit with ulimit."""
    return ["bash", "-c", f'ulimit {limit} && exec "$@"', "bash"]


class Errors(Test):
    def assert_refused(self, outcome, *parts, rank=0, status=None):
        """One message of the form, with all parts, from that rank (None: any); exit code 1; nobody left."""
        code, output = outcome
        self.assertEqual(code, 1, output)
        messages = MESSAGE.findall(output)
        self.assertEqual(len(messages), 1, output)
        speaker, text = messages[0]
        if rank is not None:
            self.assertEqual(int(speaker), rank, output)
        self.assertRegex(text, FORM)
        self.assertNotRegex(output, CRASH)
        for part in parts:
            self.assertIn(part, text)
        if status is not None:
            self.assert_status(status, "failed", reason=text[:60])
        self.assert_nobody_left()

    def assert_nobody_left(self):
        """No process has this test's folder on its command line."""
        end = time.monotonic() + PATIENCE_S
        while left := self.processes():
            self.assertLess(time.monotonic(), end, f"still there: {left}")
            time.sleep(0.05)

    def processes(self):
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if "switchyard" in words[0].decode(errors="replace") and str(self.folder).encode() in b" ".join(words):
                found.append(b" ".join(words).decode(errors="replace"))
        return found

    def refusals(self, cases):
        """cases: (ranks, words, parts). Several run at once, because a start of MPI is mostly waiting."""
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            outcomes = list(pool.map(lambda case: launch(case[0], case[1]), cases))
        for (ranks, words, parts), outcome in zip(cases, outcomes):
            with self.subTest(ranks=ranks, words=" ".join(map(str, words))):
                self.assert_refused(outcome, *parts)


class Help(Errors):
    def test_every_command_explains_itself_whichever_way_it_is_asked(self):
        code, general = launch(1, ["--help"])
        commands = re.findall(r"^  ([a-z]+) {2,}", general, re.M)
        self.assertEqual(code, 0)
        self.assertIn("train", commands)
        for command in commands:
            code, text = launch(1, [command, "--help"])
            self.assertEqual(code, 0, text)
            self.assertTrue(text.startswith(f"switchyard {command} "), text)
            self.assertEqual(launch(1, ["help", command]), (0, text))
        self.assertEqual(launch(1, ["help"]), (0, general))
        self.assert_refused(launch(1, ["help", "trian"]), "unknown command 'trian'", "did you mean 'train'")

    def test_methods_are_listed_with_what_they_cost_beside_full(self):
        code, text = launch(1, ["train", "--list-methods"])
        self.assertEqual(code, 0, text)
        self.assertEqual(launch(1, ["--list-methods"]), (0, text))
        methods = dict(re.findall(r"^(\w+): .+\n((?:  .+\n)+)", text, re.M))
        rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "methods.md").read_text(), re.M)
        self.assertEqual(list(methods), rows)
        costs = {}
        for name, lines in methods.items():
            with self.subTest(method=name):
                parts = dict(line.strip().split(maxsplit=1) for line in lines.splitlines())
                self.assertEqual(list(parts), ["equation", "keys", "rates", "cost", "use", "validated", "source"])
                costs[name] = [float(x) for x in re.findall(r"\d+\.\d+", parts["cost"])]
                code, config = launch(1, ["train", f"--method.name={name}", "--dump-config"])
                for key in re.findall(r"(\w+) = ", parts["keys"]):
                    self.assertRegex(config, rf"(?m)^{key} = ")
        self.assertEqual(costs["full"], [1, 1, 1])
        self.assertLess(costs["switchlora"][2], 0.7, "sent; the second number is memory with frozen weights sharded")


class Settings(Errors):
    """Errors that are found before anything is made."""

    def words(self, **changes):
        changes = {key.replace("__", "."): value for key, value in changes.items()}
        return ["train", *arguments({**self.run_of().settings, **changes})]

    def test_one_process(self):
        config = self.folder / "run.cfg"
        config.write_text("# mine\n[run]\nstep = 3\n")
        self.refusals([
            (1, self.words(optim__warmup_step=3), ["unknown key optim.warmup_step", "command line", "optim.warmup_steps?"]),
            (1, ["train", config], ["unknown key run.step", f"{config}:3", "did you mean run.steps?"]),
            (1, self.words(method__name="full", method__switch_interval=3),
             ["method.switch_interval", "not used by method.name = full", "switchlora"]),
            (1, self.words(method__name="switchlore"), ["'switchlore'", "did you mean 'switchlora'?"]),
            (1, self.words(model__preset="61m"), ["61m", "60m"]),
            (1, self.words(run__steps="ten"), ["run.steps = 'ten'", "a whole number"]),
            (1, self.words(run__steps="1.5"), ["run.steps = '1.5'", "a whole number"]),
            (1, self.words(optim__beta1=1.5), ["optim.beta1 = 1.5", "at most 0.99"]),
            (1, self.words(optim__lr="nan"), ["optim.lr = 'nan'", "a number"]),
            (1, self.words(run__keep_last=0), ["run.keep_last = 0", "at least 1"]),
            (1, self.words(model__recompute="maybe"), ["'maybe'", "true or false"]),
            (1, self.words(run__wall_limit="1:70:00"), ["1:70:00", "H:M:S"]),
            (1, self.words(run__dtype="fp32"), ["'fp32'", "did you mean 'f32'?"]),
            (1, self.words(model__num_heads=7), ["model.hidden_size = 24", "model.num_heads = 7"]),
            (1, self.words(model__num_kv_heads=5), ["model.num_heads = 12", "model.num_kv_heads = 5"]),
            (1, self.words(run__stop_step=200000), ["run.stop_step = 200000", "run.steps = 100000"]),
            (1, self.words(run__steps=3), ["optim.warmup_steps = 4", "run.steps = 3"]),
            (1, self.words(**{"method.name": "lora", "method.rank": 25}), ["method.rank = 25", "24 x 24", "use 1 to 24"]),
            (1, self.words(model__vocab_size=200), ["model.vocab_size = 200", "300 tokens"]),
            (1, self.words(data__seq_len=9999999), ["10000000", "data.seq_len"]),
            (1, self.words(data__micro_batch=10**9, data__seq_len=16), ["1000000000 x 16", "data.micro_batch"]),
            (1, self.words(model__num_layers=10**8), ["model.num_layers = 100000000", "at most"]),
        ])  # fmt: skip
        self.assertFalse((self.folder / "run").exists())

    def test_ranks_that_do_not_fit(self):
        heads = {"model.num_heads": 3, "model.num_kv_heads": 3, "parallel.tp": 2}
        kv_heads = {"model.num_heads": 6, "model.num_kv_heads": 3, "parallel.tp": 2}
        self.refusals([
            (2, self.words(**heads), ["model.num_heads = 3", "parallel.tp = 2"]),
            (2, self.words(**kv_heads), ["model.num_kv_heads = 3", "parallel.tp = 2"]),
            (3, self.words(parallel__tp=2), ["3 ranks", "parallel.tp = 2"]),
            (2, self.words(parallel__tp=4), ["2 ranks", "parallel.tp = 4"]),
            (2, self.words(data__micro_batch=4), ["data.global_batch = 12", "2 x 4 = 8", "8 or 16"]),
            (2, self.words(optim__warmup_step=3), ["unknown key optim.warmup_step"]),
        ])  # fmt: skip
        self.assertFalse((self.folder / "run").exists())

    def test_commands(self):
        (self.folder / "a.txt").write_text("ka lo mi\n\nten sur\n")
        (self.folder / "b.jsonl").write_text('{"text": "ka lo"}\n{"txt": 1}\n')
        (self.folder / "empty.txt").write_text("")
        (self.folder / "one.txt").write_text("ka lo mi\n")
        (self.folder / "mine.txt").write_text("not to be lost")
        text, numbers = self.folder / "a.txt", itertools.count()
        out = lambda: f"--output={self.folder}/out{next(numbers)}.h5"  # noqa: E731  (some run at once)
        tokenizer = f"--tokenizer={self.tokens}"
        self.refusals([
            (1, ["trian"], ["'trian'", "did you mean 'train'?"]),
            (1, ["train", "-n", "4"], ["-n is not an option"]),
            (1, ["train", "--dump-config=1"], ["--dump-config", "switch"]),
            (1, ["train", text, text], ["2 configuration files", "give one"]),
            (1, ["train", self.folder / "no.cfg"], ["no.cfg", "check the path"]),
            (1, ["train", text], ["a.txt:1", "'ka lo mi'"]),
            (1, ["eval"], ["0 files", "checkpoint or run directory"]),
            (1, ["eval", self.folder / "no"], ["no", "No such file"]),
            (1, ["eval", self.folder], ["has no checkpoint"]),
            (1, ["eval", self.tokens], ["is a token file"]),
            (1, ["eval", text], ["a.txt", "as a checkpoint"]),
            (1, ["eval", text, "--optim.lr=1"], ["--optim.lr=1 has no effect", "data.tokens"]),
            (1, ["generate", text, "--prompt"], ["--prompt=TEXT"]),
            (1, ["generate", text, "--temperature=-1"], ["--temperature=-1", "from 0"]),
            (1, ["generate", text, "--max_token=3"], ["--max_token", "did you mean --max_tokens?"]),
            (1, ["plan", "--ranks=0"], ["--ranks=0", "from 1"]),
            (1, ["plan", "--ranks=6", "--parallel.tp=4"], ["6 ranks", "parallel.tp = 4"]),
            (1, ["inspect", self.folder], ["is a folder"]),
            (1, ["inspect", self.folder / "no"], ["No such file"]),
            (1, ["verify"], ["no file given"]),
            (1, ["verify", text, "--fast"], ["--fast"]),
            (1, ["inspect", text, "--run.dir=x"], ["--run.dir=x is not an option"]),
            (1, ["tokenize", text, out()], ["--vocab_size=N"]),
            (1, ["tokenize", text, tokenizer], ["--output is missing"]),
            (1, ["tokenize", out(), tokenizer], ["no text given"]),
            (1, ["tokenize", self.folder / "no.txt", out(), tokenizer], ["no.txt", "No such file"]),
            (1, ["tokenize", self.folder, out(), tokenizer], ["is a folder"]),
            (1, ["tokenize", self.tokens, out(), tokenizer], ["HDF5 file"]),
            (1, ["tokenize", self.folder / "b.jsonl", out(), tokenizer], ["b.jsonl` line 2", "\"text\""]),
            (1, ["tokenize", self.folder / "empty.txt", out(), tokenizer], ["no text"]),
            (1, ["tokenize", self.folder / "one.txt", out(), tokenizer], ["one document", "--validation=0"]),
            (1, ["tokenize", text, f"--output={self.folder}/mine.txt", tokenizer], ["mine.txt` exists"]),
            (1, ["tokenize", text, f"--output={text}", tokenizer], ["both input and output"]),
            (1, ["tokenize", text, f"--output={self.folder}/no/x.h5", tokenizer], ["does not exist"]),
            (1, ["tokenize", text, out(), f"--tokenizer={text}"], ["is not a SentencePiece model"]),
            (1, ["tokenize", text, out(), f"--tokenizer={self.folder}/no.model"], ["no.model", "--vocab_size=N"]),
            (1, ["tokenize", text, out(), tokenizer, "--vocab_size=300"], ["both given"]),
            (1, ["tokenize", text, out(), tokenizer, "--document_separator=page"], ["`page`", "blank-lines"]),
            (1, ["tokenize", text, out(), "--vocab_size=90"], ["vocab_size = 90", "too small"]),
            (1, ["tokenize", text, out(), "--vocab_size=9000"], ["vocab_size = 9000", "at most"]),
            (2, ["tokenize", text, out(), "--vocab_size=9000"], ["vocab_size = 9000", "at most"]),
        ])  # fmt: skip
        self.assertEqual((self.folder / "mine.txt").read_text(), "not to be lost")
        self.assertEqual([p for p in self.folder.iterdir() if p.suffix in (".h5", ".partial")], [])

    def test_diff_ends_with_2(self):
        for words in ([self.tokens], [self.tokens, self.folder / "no"], [self.folder, self.tokens]):
            result = switchyard("diff", *words)
            self.assertEqual((result.returncode, result.stdout), (2, ""), words)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)


class Tokens(Errors):
    def trained(self):
        run = self.run_of()
        self.assert_trains(run, run__stop_step=2)
        return run

    def test_files_that_are_none(self):
        whole = self.tokens.read_bytes()
        (self.folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
        (self.folder / "text.h5").write_text("ka lo mi")
        checkpoint = self.trained().checkpoint()
        run = self.run_of("other")

        def words(path):
            return ["train", *arguments({**run.settings, "data.tokens": path})]

        self.refusals([
            (1, ["train", "--run.dir=" + str(run.path)], ["data.tokens is not set", "switchyard tokenize"]),
            (1, words(self.folder / "no.h5"), ["no.h5` does not exist"]),
            (2, words(self.folder / "no.h5"), ["no.h5` does not exist"]),
            (2, words(self.folder / "cut.h5"), ["cut.h5", "truncated"]),
            (1, words(self.folder / "text.h5"), ["text.h5", "not an HDF5 file"]),
            (1, words(checkpoint), ["is not an intact token file", "switchyard tokenize"]),
        ])  # fmt: skip
        self.assertFalse(run.path.exists())

    def test_another_file_than_the_runs(self):
        run = self.trained()
        other_text = make_tokens(self.folder, seed=2, tokenizer=self.tokens)
        other_tokenizer = make_tokens(self.folder, seed=3, vocab_size=310)
        for tokens, parts in ((other_text, ["holds different tokens", "fingerprints"]),
                              (other_tokenizer, ["model.vocab_size: 300 -> 310"])):  # fmt: skip
            code_and_output = launch(1, ["train", *arguments({**run.settings, "data.tokens": tokens})])
            self.assert_refused(code_and_output, *parts, status=run)
            self.assert_status(run, "failed", step=2)
        same_size = {**run.settings, "data.tokens": other_tokenizer, "model.vocab_size": 310, "run.stop_step": 2}
        second = Run(self.folder / "second", other_tokenizer, **{"model.vocab_size": 310})
        self.assert_trains(second, run__stop_step=2)
        with_first = {**second.settings, "data.tokens": self.tokens}
        self.assert_refused(launch(2, ["train", *arguments(with_first)]), "a different tokenizer", status=second)
        self.assert_refused(launch(1, ["eval", second.path, f"--data.tokens={self.tokens}"]), "a different tokenizer")
        init = {**same_size, "data.tokens": self.tokens, "run.init_from": second.checkpoint(), "run.dir": self.folder / "third"}
        self.assert_refused(launch(1, ["train", *arguments(init)]), "a different tokenizer")
        self.assert_verifies(run.checkpoint(), second.checkpoint())

    def test_id_outside_the_vocabulary(self):
        """One bad token of many: one rank reads it, at a step that depends on the order of samples, and reports
        it for those that get their batches from it."""
        bad = self.folder / "bad.h5"
        shutil.copy(self.tokens, bad)
        with h5py.File(bad, "r+") as file:
            file["training/tokens"][100] = 60000
        result = switchyard("verify", bad)
        self.assertEqual(result.returncode, 1)
        self.assertIn("outside the vocabulary", result.stdout)
        for ranks, tp in ((1, 1), (2, 1), (2, 2), (4, 2)):
            run = Run(self.folder / f"run{ranks}x{tp}", bad, **{"run.save_interval": 5, "parallel.tp": tp})
            outcome = launch(ranks, ["train", *arguments(run.settings)])
            self.assert_refused(outcome, "training token 100 has id 60000", "vocabulary of 300", rank=None, status=run)
            self.assertEqual(int(MESSAGE.search(outcome[1])[1]) % tp, 0, "the rank that reads for its group")
            self.assertEqual(run.status()["step"], run.last_step())
            self.assert_verifies(*map(run.checkpoint, run.checkpoints()), self.tokens)


class RunDirectory(Errors):
    def test_something_in_the_way(self):
        (self.folder / "file").write_text("mine")
        run = self.run_of()

        def words(path):
            return ["train", *arguments({**run.settings, "run.dir": path})]

        self.refusals([
            (1, words(self.folder / "file"), ["`" + str(self.folder / "file"), "choose another run.dir"]),
            (2, words(self.folder / "file" / "run"), ["Not a directory", "choose another run.dir"]),
            (1, words("/proc/run"), ["/proc/run", "choose another run.dir"]),
            (1, words(""), ["run.dir is empty"]),
        ])  # fmt: skip
        self.assertEqual((self.folder / "file").read_text(), "mine")

    def test_in_use(self):
        run = self.run_of(**{"run.save_interval": 10})
        first = run.start()
        self.wait_until(first, run.checkpoints)
        self.assertEqual(run.status()["outcome"], "running")
        words = ["train", *arguments(run.settings)]
        for ranks in (1, 2):
            code, output = launch(ranks, words)
            self.assertEqual(code, 1, output)
            self.assertEqual(len(MESSAGE.findall(output)), 1, output)
            self.assertRegex(output, rf"is in use by pid {first.process.pid} on host \S+ \(.+\); wait for that run")
            self.assertEqual(run.status()["outcome"], "running")
        before = run.last_step()
        self.wait_until(first, lambda: run.last_step() > before)
        first.signal(15)
        self.assertEqual(first.wait(), 0)
        self.assert_status(run, "stopped")
        self.assert_verifies(run.checkpoint())


class ReadOnly(Errors):
    """A read-only file system, as root sees one too: in a mount name space of its own."""

    def test_read_only_file_system(self):
        mount = "mount -t tmpfs tmpfs {0} && mkdir {0}/old && mount -o remount,ro {0}".format(self.folder)
        space = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
        inside = [*space, mount + ' && exec "$@"', "sh"]
        if subprocess.run([*space, mount], capture_output=True).returncode != 0:
            self.skipTest("mounting in a name space of its own is not possible here")
        for path in ("new", "old"):
            run = self.run_of(path)
            outcome = launch(1, ["train", *arguments(run.settings)], before=inside)
            self.assert_refused(outcome, "Read-only file system", "choose another run.dir")
        words = ["tokenize", __file__, f"--output={self.folder}/x.h5", f"--tokenizer={self.tokens}"]
        self.assert_refused(launch(1, words, before=inside), "Read-only file system", "choose another --output")


class Faults(Errors):
    """Planted by SWITCHYARD_TEST_FAULT=rank:updates:kind, six updates into a run that saved after four, in the foreground,
    because the step at which a save in the background ends is left to chance (test_background_save.py)."""

    def strike(self, ranks, fault, name="run", **changes):
        run = self.run_of(name, **{"run.save_interval": 4, "run.async_save": "false", **SWITCHING, **changes})
        words = ["train", *arguments(run.settings)]
        return run, launch(ranks, words, fault)

    def assert_kept(self, run):
        """Nothing that was saved is lost, and the run goes on from it."""
        self.assertEqual(run.checkpoints(), [4])
        self.assert_verifies(run.checkpoint())
        self.assertEqual(run.last_step(), 6)
        self.assert_status(run, "failed", step=6)
        self.assert_trains(run, run__stop_step=8, parallel__tp=1)
        self.assertEqual(sorted(run.steps("loss")), list(range(1, 9)))

    def test_not_finite(self):
        weight = "model.norm.weight"
        for name, ranks, fault, changes in (("one", 1, "0:6:nan", {}), ("dp", 2, "1:6:nan", {}),
                                            ("tp", 2, "1:6:nan", {"parallel.tp": 2})):  # fmt: skip
            with self.subTest(name):
                run, outcome = self.strike(ranks, fault, name, **changes)
                self.assert_refused(outcome, "step 7: loss nan", f"first bad weight: {weight}", "optim.lr", status=run)
                self.assert_kept(run)

    def test_loss_that_runs_away(self):
        """A learning rate that overflows f32; no fault is planted."""
        run = self.run_of(**{"optim.lr": 1e30, "optim.weight_decay": 0, "optim.warmup_steps": 0, "run.save_interval": 1})
        # Seen where it happens: the update overflows a weight, and the switch that follows it looks at that weight.
        self.assert_refused(launch(2, ["train", *arguments(run.settings)]), "the effective weight of model.layers.",
                            "is not finite after the update", "optim.lr", status=run)
        self.assertEqual(run.checkpoints(), [])  # nothing of such weights is kept

    def test_one_rank_throws(self):
        for ranks, rank in ((1, 0), (2, 0), (2, 1), (3, 1)):
            with self.subTest(ranks=ranks, rank=rank):
                run, outcome = self.strike(ranks, f"{rank}:6:throw", f"{ranks}.{rank}")
                self.assert_refused(outcome, "fails alone", rank=rank, status=run)
                self.assert_kept(run)

    def test_a_kernel_throws_on_one_thread(self):
        """An error within a parallel region, which no exception may leave."""
        for ranks, rank in ((1, 0), (2, 1)):
            with self.subTest(ranks=ranks, rank=rank):
                run, outcome = self.strike(ranks, f"{rank}:6:kernel", f"{ranks}.{rank}")
                self.assert_refused(outcome, "a kernel fails on one thread in step 7", "unset", rank=rank, status=run)
                self.assert_kept(run)

    def test_a_bit_flips_in_one_copy(self):
        every = {"run.check_replicas": 4, "run.async_save": "false"}
        for name, fault, changes, weight in (
            ("frozen", "1:8:flip", {}, "frozen model.layers.0.self_attn.q_proj.weight"),
            ("bf16", "1:8:flip", {"run.dtype": "bf16"}, "low words of frozen model.layers.0.self_attn.q_proj.weight"),
            ("tp", "1:8:flip", {"parallel.tp": 2, "method.name": "full"}, "model.norm.weight"),
        ):  # fmt: skip
            settings = {**SWITCHING, **changes} if "method.name" not in changes else changes
            run = self.run_of(name, **{"run.save_interval": 4, **every, **settings})
            outcome = launch(2, ["train", *arguments(run.settings)], fault)
            host = os.uname().nodename
            self.assert_refused(
                outcome, f"step 8: {weight} on rank 1 ({host}) is not what rank 0 ({host}) has; so it is on 1 of 2 ranks",
                status=run)  # fmt: skip
            self.assertEqual(run.checkpoints(), [4])
            self.assert_trains(run, ranks=2, run__stop_step=9)  # whole again, compared on the way

    def test_one_rank_is_stuck(self):
        """Every rank may say where it is; the stuck one does, and its reason or another's is in status.json."""
        run, (code, output) = self.strike(2, "1:6:hang", **{"run.hang_timeout": 5})
        self.assertEqual(code, 1, output)
        messages = dict(MESSAGE.findall(output))
        self.assertIn("last event: begin in step 7", messages.get("1", ""), output)
        self.assertEqual(len(messages), len(MESSAGE.findall(output)), output)
        for text in messages.values():
            self.assertRegex(text, r"^no progress for \d+ s, last event: [a-z ]+ in step 7 \(.+\); .*run.hang_timeout$")
        self.assertIn("last collective: ", messages["1"])
        if "0" in messages:
            self.assertRegex(messages["0"], r"\(phase \w+, last kernel: \w+, last collective: .+ over 2 ranks, the host waits for it; ")
        self.assert_nobody_left()
        self.assertIn("no progress", run.status()["reason"])
        self.assert_kept(run)

    def test_commands_that_are_stuck(self):
        """A file system that does not answer stops whoever reads there; a rank that waits for it has nothing to say."""
        run = self.run_of()
        self.assert_trains(run, run__stop_step=1)
        file, model = self.folder / "stuck.h5", self.folder / "stuck_model"
        shutil.copy(run.checkpoint(1), file)
        self.assertEqual(switchyard("export", run.checkpoint(1), model, "--no_tokenizer").returncode, 0)
        source, library = self.folder / "stuck.c", self.folder / "stuck.so"
        source.write_text("""
            #define _GNU_SOURCE
            #include <stdio.h>
            #include <string.h>
            #include <sys/syscall.h>
            #include <unistd.h>
            static ssize_t answer(int fd, void *to, size_t bytes, long at) {
                char link[64], path[4096] = "";
                snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
                if (readlink(link, path, sizeof path - 1) > 0)
                    while (strstr(path, "/stuck")) pause();
                return syscall(SYS_pread64, fd, to, bytes, at);
            }
            ssize_t pread(int fd, void *to, size_t bytes, off_t at) { return answer(fd, to, bytes, at); }
            ssize_t pread64(int fd, void *to, size_t bytes, off64_t at) { return answer(fd, to, bytes, at); }
            """)
        subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
        commands = [["eval", file], ["generate", file, "--prompt=ka"], ["export", file, self.folder / "out"],
                    ["import", model, f"--output={self.folder}/new.h5"]]  # fmt: skip
        cases = [(ranks, [*words, "--run.hang_timeout=1"]) for words in commands for ranks in (1, 2)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            preload = ["env", f"LD_PRELOAD={library}"]
            outcomes = list(pool.map(lambda case: launch(*case, before=preload), cases))
        for (ranks, words), outcome in zip(cases, outcomes):
            with self.subTest(command=words[0], ranks=ranks):
                self.assert_refused(outcome, "no progress for ", "last event: ", "run.hang_timeout")

    def test_a_fault_that_cannot_be_understood(self):
        for fault in ("1:6", "x:6:nan", "0:6:sleep"):
            _, outcome = self.strike(1, fault)
            self.assert_refused(outcome, f"SWITCHYARD_TEST_FAULT = '{fault}'", "unset it")


class Limits(Errors):
    def test_output_that_cannot_be_written(self):
        """A progress line that is lost ends nothing; a result that is lost is an error."""
        run = self.run_of()
        words = ["train", *arguments({**run.settings, "run.stop_step": 3, "run.log_interval": 1})]
        for streams in ({"stdout": "/dev/full"}, {"stdout": "/dev/full", "stderr": "/dev/full"}):
            self.assertEqual(self.code_with(words, **streams), 0)
            self.assert_status(run, "stopped", "run.stop_step", 3)
        file = run.checkpoint(3)
        prompt = ["generate", file, "--prompt=ka", "--max_tokens=2"]
        for command in (["--version"], ["help"], ["inspect", file], ["verify", file], ["eval", file], ["plan", "--json"],
                        ["train", "--dump-config"], ["train", "--help"], prompt):  # fmt: skip
            with self.subTest(command=command[0]):
                self.assertEqual(self.code_with(command, stdout="/dev/full"), 1)
        self.assertEqual(self.code_with(["diff", file, file], stdout="/dev/full"), 2)
        code, output = launch(1, ["--version"], before=["bash", "-c", '"$@" >/dev/full', "bash"])
        self.assert_refused((code, output), "cannot write to standard output: No space left on device")

    def code_with(self, words, **streams):
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(open(path, "w")) for name, path in streams.items()}
            return subprocess.run([BUILD / "switchyard", *map(str, words)], env=ENVIRONMENT, timeout=PATIENCE_S,
                                  **{"stderr": subprocess.DEVNULL, **files}).returncode  # fmt: skip

    def test_more_memory_than_there_is(self):
        big = {"model.num_heads": 16, "model.num_kv_heads": 16, "method.name": "full"}
        for name, ranks, changes, parts in (
            ("batch", 2, {"data.micro_batch": 10**8, "data.global_batch": 2 * 10**8}, ["2 ranks on", "available", "activations"]),
            ("width", 1, {**big, "model.hidden_size": 2**21}, ["TiB", "available", "trainable"]),
            ("all", 1, {**big, "model.hidden_size": 2**22, "model.ffn_size": 2**22, "model.num_layers": 4096}, ["choose smaller sizes"]),
        ):  # fmt: skip
            with self.subTest(name):
                run = self.run_of(name, **changes)
                outcome = launch(ranks, ["train", *arguments(run.settings)])
                self.assert_refused(outcome, "out of memory", *parts, status=run)

    def test_address_space(self):
        """Memory that the machine has but the process may not take (`ulimit -v`)."""
        run = self.run_of(**{"data.micro_batch": 100000, "data.global_batch": 100000})
        outcome = launch(1, ["train", *arguments(run.settings)], before=under_limit("-v 3000000"))
        self.assert_refused(outcome, "out of memory", "GiB", status=run)

    def test_file_size(self):
        """A token file beyond `ulimit -f`: nothing but the message is left."""
        text = self.folder / "long.txt"
        text.write_text("ka lo mi ten sur. " * 800000)
        out = self.folder / "out.h5"
        words = ["tokenize", text, f"--output={out}", f"--tokenizer={self.tokens}", "--validation=0", "--quiet"]
        self.assert_refused(launch(1, words, before=under_limit("-f 9000")), "cannot write the token file", "File too large")
        self.assertEqual([p.name for p in self.folder.glob("out*")], [])


if __name__ == "__main__":
    program = unittest.main(exit=False)
    result = program.result
    if result.testsRun == len(result.skipped) and result.wasSuccessful():
        sys.exit(77)
    sys.exit(not result.wasSuccessful())
