#!/usr/bin/env python3
"""A hostile or broken environment: output that nobody reads, pipes and endless files instead of regular files, links
under predictable names, signals at any time.

    test_hostile_surroundings.py --build=DIRECTORY [unittest arguments]
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program
from support.program import switchyard

PROGRAM = program.BUILD / "switchyard"


def in_shell(line, *words, **options):
    """Runs the command in bash; `line` uses it as "$@"."""
    options = {"env": program.ENVIRONMENT, "timeout": program.PATIENCE_S, "capture_output": True, "text": True, **options}
    return subprocess.run(["bash", "-c", line, "bash", PROGRAM, *map(str, words)], **options)


class Streams(program.Test):
    def test_finding_17_errors_keep_their_code_where_nobody_hears_them(self):
        for line in ('"$@" 2>&-', '"$@" 2>/dev/full', '"$@" >&- 2>&-', '"$@" <&- >&- 2>&-', '"$@" >/dev/full 2>/dev/full'):
            for words in (["verify", self.folder / "none.h5"], ["train", self.folder / "none.cfg"], ["unknown"],
                          ["train", "--run.steps=x"], ["eval", self.folder / "none.h5"]):  # fmt: skip
                with self.subTest(line=line, words=words):
                    self.assertEqual(in_shell(line, *words).returncode, 1)

    def test_finding_17_results_that_are_lost_are_errors(self):
        for line in ('"$@" >&-', '"$@" >/dev/full', '"$@" >&- 2>&-'):
            for words in (["--version"], ["inspect", self.tokens], ["verify", self.tokens], ["plan", "--json"],
                          ["train", "--help"]):  # fmt: skip
                with self.subTest(line=line, words=words):
                    self.assertEqual(in_shell(line, *words).returncode, 1)
        self.assertEqual(in_shell('"$@" >&-', "diff", self.tokens, self.tokens).returncode, 2)

    def without_reader(self, *words):
        """The command, with a pipe as standard output that nobody reads any more: (exit code, standard error)."""
        reading, writing = os.pipe()
        os.close(reading)
        result = switchyard(*words, stdout=writing, stderr=subprocess.PIPE, capture_output=False)
        os.close(writing)
        return result.returncode, result.stderr

    def test_finding_17_a_reader_that_closes_the_pipe_ends_nothing(self):
        """As in `switchyard inspect FILE | head`: no complaint, and the exit code says what the command found."""
        run = self.run_of()
        words = ["train", *program.arguments({**run.settings, "run.stop_step": 2})]
        self.assertEqual(self.without_reader(*words)[0], 0)
        file, damaged = run.checkpoint(2), self.folder / "damaged.h5"
        self.assert_verifies(file)
        self.assert_trains(run, run__stop_step=3)
        damaged.write_bytes(file.read_bytes()[:-1000])
        for code, words in ((0, ["--version"]), (0, ["--help"]), (0, ["train", "--help"]), (0, ["train", "--dump-config"]),
                            (0, ["inspect", self.tokens]), (0, ["inspect", file]), (0, ["plan", "--json"]), (0, ["plan"]),
                            (0, ["get", "optim.lr"]), (0, ["verify", file, self.tokens]), (1, ["verify", damaged, file]),
                            (0, ["diff", file, file]), (1, ["diff", file, run.checkpoint(3)]),
                            (0, ["eval", file]), (0, ["export", file, self.folder / "out"])):  # fmt: skip
            with self.subTest(words=words):
                self.assertEqual(self.without_reader(*words), (code, ""))
        self.assertTrue((self.folder / "out/config.json").exists())

    def test_finding_17_generation_ends_with_its_reader(self):
        """A billion tokens would take days. The most likely token is never the end of the text here."""
        run = self.run_of()
        self.assert_trains(run, run__stop_step=1)
        words = ["generate", run.checkpoint(1), "--prompt=ka", "--temperature=0"]
        short, long = (switchyard(*words, f"--max_tokens={count}").stdout for count in (100, 200))
        self.assertLess(len(short), len(long))
        self.assertEqual(self.without_reader(*words, f"--max_tokens={10**9}"), (0, ""))

    def test_finding_17_closed_streams_do_not_become_files(self):
        """A file that got the number of standard error would receive its messages."""
        run = self.run_of(**{"run.log_interval": 1})
        words = program.arguments({**run.settings, "run.stop_step": 2})
        self.assertEqual(in_shell('"$@" <&- >&- 2>&-', "train", *words).returncode, 0)
        self.assert_verifies(run.checkpoint(2))
        output = self.folder / "t.h5"
        text = self.folder / "text.txt"
        text.write_bytes(b"ka lo\xff mi\n\nten sur\n")  # tokenize warns of the byte
        code = in_shell('"$@" >&- 2>&-', "tokenize", text, f"--output={output}", f"--tokenizer={self.tokens}").returncode
        self.assertEqual(code, 1, "the closing line is a result")
        self.assert_verifies(output)

    def test_finding_17_a_run_falls_back_though_nobody_hears_it(self):
        run = self.run_of(**{"run.save_interval": 1})
        self.assert_trains(run, run__stop_step=2)
        last = run.checkpoint(2)
        last.write_bytes(last.read_bytes()[:5000])
        words = program.arguments({**run.settings, "run.stop_step": 3})
        self.assertEqual(in_shell('"$@" 2>/dev/full', "train", *words).returncode, 0)
        self.assertIn("step_00000002.h5.damaged", run.files())
        self.assertEqual(run.last_step(), 3)


class NotFiles(program.Test):
    def cases(self, run, path):
        text, model = self.folder / "text.txt", self.folder / "model"
        text.write_text("ka lo mi\n\nten sur\n")
        out = f"--output={self.folder / 'out.h5'}"
        settings = {**run.settings, "run.stop_step": 1}
        return [["train", path], ["train", *program.arguments({**settings, "data.tokens": path})],
                ["train", *program.arguments({**settings, "run.init_from": path})], ["verify", path], ["inspect", path],
                ["eval", path], ["diff", path, path], ["export", path, self.folder / "x"], ["generate", path, "--prompt=a"],
                ["tokenize", text, f"--tokenizer={path}", out], ["plan", path]]  # fmt: skip

    def test_finding_23_what_is_not_a_file_is_refused_at_once(self):
        run, pipe, zeros = self.run_of(), self.folder / "pipe", self.folder / "zeros"
        os.mkfifo(pipe)
        zeros.symlink_to("/dev/zero")
        for path in (pipe, zeros):
            for words in self.cases(run, path):
                with self.subTest(words=words[:1], path=path.name):
                    result = switchyard(*words)
                    text = result.stdout + result.stderr
                    self.assertIn(result.returncode, (1, 2), text)
                    self.assertIn("not a regular file", text)

    def test_finding_23_endless_files_are_refused(self):
        """A sparse file of a terabyte, which takes no room."""
        run, endless = self.run_of(), self.folder / "endless"
        endless.touch()
        os.truncate(endless, 1 << 40)
        for words in self.cases(run, endless):
            with self.subTest(words=words[:1]):
                result = switchyard(*words)
                self.assertIn(result.returncode, (1, 2), result.stdout + result.stderr)

    def test_finding_23_a_model_directory_of_pipes(self):
        for name in ("config.json", "model.safetensors", "tokenizer.model"):
            folder = self.folder / name.replace(".", "_")
            folder.mkdir()
            (folder / "config.json").write_text("{}")
            (folder / name).unlink(missing_ok=True)
            os.mkfifo(folder / name)
            result = switchyard("import", folder, f"--output={self.folder / 'out.h5'}")
            self.assertEqual(result.returncode, 1, result.stdout + result.stderr)

    def test_finding_23_a_run_directory_of_pipes(self):
        for name, refused in (("log.jsonl", True), ("lock", True), ("config.cfg", False), ("status.json", False),
                              (".write_test", False), ("environment.json", False), ("status.json.partial", False)):  # fmt: skip
            with self.subTest(name=name):
                run = self.run_of(name)
                run.path.mkdir()
                os.mkfifo(run.path / name)
                code, output = run.train(run__stop_step=1)
                self.assertEqual(code, 1 if refused else 0, output)
                if refused:
                    self.assertIn("not a regular file", output)

    def test_finding_22_links_in_the_way_are_not_written_through(self):
        other = self.folder / "other"
        other.write_text("not to be lost")
        checkpoint = "checkpoints/step_00000001.h5.partial"
        for name in (".write_test", "checkpoints/.write_test", "config.cfg", "config.cfg.partial", "environment.json.partial",
                     "status.json", checkpoint, "lock", "log.jsonl", "checkpoints/step_00000001.h5"):  # fmt: skip
            with self.subTest(name=name):
                run = self.run_of(name.replace("/", "_"))
                (run.path / "checkpoints").mkdir(parents=True)
                (run.path / name).symlink_to(other)
                code, output = run.train(run__stop_step=1)
                self.assertEqual(other.read_text(), "not to be lost", output)
                self.assertIn(code, (0, 1), output)
        text, output = self.folder / "text.txt", self.folder / "new.h5"
        text.write_text("ka lo mi\n\nten sur\n")
        output.with_name("new.h5.partial").symlink_to(other)
        result = switchyard("tokenize", text, f"--tokenizer={self.tokens}", f"--output={output}")
        self.assertEqual((result.returncode, other.read_text()), (0, "not to be lost"), result.stderr)
        self.assert_verifies(output)


class Closed(program.Test):
    """Folders that may not be entered, and links that lead to themselves."""

    def as_another(self, *words):
        command = ["setpriv", "--reuid=65534", "--clear-groups", PROGRAM, *map(str, words)]
        result = subprocess.run(command, env=program.ENVIRONMENT, timeout=program.PATIENCE_S, capture_output=True, text=True)
        return result.returncode, result.stdout + result.stderr

    def test_what_cannot_be_looked_at_is_told_so(self):
        for folder in (self.folder, self.folder.parent):
            folder.chmod(0o777)
        if os.geteuid() != 0 or self.as_another("--version")[0] != 0:
            self.skipTest("another user cannot be taken here")
        closed, loop, mine, config = (self.folder / name for name in ("closed", "loop", "mine.h5", "mine.cfg"))
        shutil.copy(self.tokens, mine)
        mine.chmod(0o644)
        config.write_text("[run]\nsteps = 3\n")
        loop.symlink_to(loop)
        closed.mkdir(mode=0o700)
        output = f"--output={self.folder}/o.h5"
        for path, reason in ((closed / "a.h5", "Permission denied"), (loop, "Too many levels of symbolic links")):
            for words in (["train", f"--data.tokens={path}", f"--run.dir={self.folder}/r"], ["inspect", path], ["diff", path, mine],
                          ["train", path], ["get", "run.steps", path], ["eval", path], ["import", path, output],
                          ["tokenize", config, f"--tokenizer={path}", output], ["tokenize", config, "--vocab_size=300", f"--output={path}/o.h5"],
                          ["train", f"--data.tokens={mine}", f"--run.dir={path}"]):  # fmt: skip
                with self.subTest(path.name, words=words[0]):
                    code, said = self.as_another(*words)
                    self.assertEqual(code, 2 if words[0] == "diff" else 1, said)
                    self.assertIn(reason, said)
                    for part in ("does not exist", "filesystem error", "std::"):
                        self.assertNotIn(part, said)
            code, said = self.as_another("verify", path, mine)
            self.assertEqual(code, 1, said)
            self.assertIn(reason, said)
            self.assertIn(f"{mine}: verifies\n", said)


class Signals(program.Test):
    def launch(self, *words, **options):
        process = subprocess.Popen([PROGRAM, *map(str, words)], env=program.ENVIRONMENT, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, **options)  # fmt: skip
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def assert_ended_by(self, process, number):
        self.assertEqual(process.wait(program.PATIENCE_S), -number)

    def test_finding_23_sigterm_ends_a_command_that_waits(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        out = f"--output={self.folder / 'out.h5'}"
        for number in (signal.SIGTERM, signal.SIGINT):
            waiting = self.launch("tokenize", "-", f"--tokenizer={self.tokens}", out, stdin=subprocess.PIPE)
            self.wait_for(lambda: (self.folder / "out.h5.partial").exists())
            waiting.send_signal(number)
            self.assert_ended_by(waiting, number)
            waiting.stdin.close()
            (self.folder / "out.h5.partial").unlink()

    def wait_for(self, condition):
        self.wait_until(type("Always", (), {"running": lambda _: True, "kill": lambda _: None, "output": lambda _: ""})(),
                        condition)  # fmt: skip

    def test_finding_23_sigterm_ends_a_run_that_waits_for_a_lock(self):
        """A holder on another machine is given 35 s for a sign of life."""
        run = self.run_of()
        run.path.mkdir()
        (run.path / "lock").write_text("pid 1 on host elsewhere\nelsewhere/boot 0123456789abcdef 000000000001")
        launch = run.start(run__stop_step=1)
        self.wait_until(launch, lambda: "waiting 35 s" in launch.output())
        launch.signal(signal.SIGTERM)
        self.assertEqual(launch.wait(), -signal.SIGTERM)


class Ports(program.Test):
    def test_finding_24_a_process_alone_listens_on_no_port(self):
        run = self.run_of()
        launch = run.start()
        self.wait_until(launch, lambda: run.last_step() >= 1)
        listening = set()
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in pathlib.Path(f"/proc/{launch.process.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] in ("0A", "07"):  # listens; udp waits
                    listening.add(f"socket:[{fields[9]}]")
        folder = pathlib.Path(f"/proc/{launch.process.pid}/fd")
        links = {os.readlink(entry) for entry in folder.iterdir()}
        (run.path / "stop").touch()
        self.assertEqual(launch.wait(), 0, launch.output())
        self.assertEqual(links & listening, set())


class Names(program.Test):
    def test_finding_24_a_run_directory_that_begins_with_a_dash(self):
        run = program.Run("-dash", self.tokens)
        words = ["train", *program.arguments({**run.settings, "run.stop_step": 1})]
        for _ in range(2):
            result = switchyard(*words, cwd=self.folder)
            self.assertEqual(result.returncode, 0, result.stderr)
        result = switchyard("eval", "-dash", cwd=self.folder)
        self.assertEqual(result.returncode, 1)
        self.assertIn("./-dash", result.stderr)
        self.assertEqual(switchyard("eval", "./-dash", cwd=self.folder).returncode, 0)


if __name__ == "__main__":
    unittest.main()
