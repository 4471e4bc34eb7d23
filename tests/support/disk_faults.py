"""Checkpoint files that fail, or wait, at the call that a test names (disk_faults.cpp, preloaded into the run).

Tests of saving in the background know from it what has happened and what has not, without a clock.
"""
import collections
import os
import pathlib
import shutil
import signal
import subprocess

from support import program

SOURCE = pathlib.Path(__file__).resolve().parent / "disk_faults.cpp"
# thread: main, writer, or child (it parses the structure of a file); call: open, pread, pwrite, fsync, rename; result: ok, waits or an errno.
Call = collections.namedtuple("Call", "rank pid thread call result name bytes offset")


def rule(rank, call, error, name=".partial", first=1):
    """On that rank the first-th `call` ("fsync", "writer.pwrite") and later ones on files whose name holds `name` fail.

    error: an errno, or "wait": until the rule has gone.
    """
    return f"{rank} {call} {first} {error} {name}"


def partial(step):
    return f"step_{step:08d}.h5.partial"


class Disk:
    def __init__(self, folder, library):
        self.folder, self.library = pathlib.Path(folder), library
        self.folder.mkdir()

    @staticmethod
    def build(folder):
        library = pathlib.Path(folder) / "disk_faults.so"
        subprocess.run(["c++", "-std=c++20", "-O1", "-shared", "-fPIC", SOURCE, "-o", library, "-ldl"], check=True)
        return library

    def environment(self):
        return {"LD_PRELOAD": ":".join(filter(None, [str(self.library), os.environ.get("LD_PRELOAD")])),
                "SWITCHYARD_TEST_DISK": str(self.folder)}  # fmt: skip

    def obeys(self, *rules):
        """From now on these; what waits for a rule that has gone goes on."""
        new = self.folder / "rules.new"
        new.write_text("".join(line + "\n" for line in rules))
        new.replace(self.folder / "rules")

    def calls(self, **wanted):
        """In their order on all ranks; those with these values only."""
        path = self.folder / "trace"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        found = [Call(*fields[:6], int(fields[6]), int(fields[7])) for fields in map(str.split, lines)]
        wanted = {key: str(value) for key, value in wanted.items()}
        return [call for call in found if all(getattr(call, key) == value for key, value in wanted.items())]

    def waits(self, **wanted):
        """Whether a call waits for its rule to go, or has done so."""
        return bool(self.calls(result="waits", **wanted))


class Test(program.Test):
    """Runs of many small windows, which every rank writes some of, on a disk with faults."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.library = Disk.build(cls._class_folder.name)

    def saving_run(self, name="run", **settings):
        """Saves every 4 steps; run.disk has its faults."""
        run = self.run_of(name, **{**program.SWITCHING, "io.window": 4096, "run.save_interval": 4, "run.keep_last": 99, **settings})
        run.disk = Disk(self.folder / f"{pathlib.Path(name).name}.disk", self.library)
        run.environment = run.disk.environment()
        return run

    def copy_of(self, run, name):
        copy = self.saving_run(name, **{key: value for key, value in run.settings.items() if key != "run.dir"})
        shutil.copytree(run.path, copy.path)
        return copy

    def story(self, run):
        """The log in short: numbers of steps, "begun 4", "saved 4", "failed 4", and the names of other events."""
        names = {"save_begun": "begun {step}", "save": "saved {of_step}", "save_failed": "failed {of_step}"}
        return [names.get(line["event"], line["event"]).format(**line) if "event" in line else line["step"] for line in run.log()]

    def assert_kept(self, run, *steps):
        """These files and nothing else; they verify."""
        self.assertEqual(run.files(), [f"step_{step:08d}.h5" for step in steps])
        self.assert_verifies(*map(run.checkpoint, steps))

    def assert_failed_and_went_on(self, run, launch):
        """Ends the run by SIGUSR1. Each save from step 4 on failed with one warning, until those that are kept. Returns the output
        and the steps that were not saved."""
        program.Process(launch.ranks()[0]).signal(signal.SIGUSR1)
        self.assertEqual(launch.wait(), 75, launch.output())
        output, failed = launch.output(), [event["of_step"] for event in run.events("save_failed")]
        self.assertEqual(failed, list(range(4, 4 * len(failed) + 1, 4)))
        for step in failed:
            self.assertEqual(output.count(f"warning: step {step} was not saved: cannot write "), 1, output)
        self.assertEqual(output.count("warning: "), len(failed), output)
        self.assert_kept(run, *run.checkpoints())
        self.assert_status(run, "requeue", "SIGUSR1", run.checkpoints()[-1])
        return output, failed

    def assert_saves_in_order(self, run, ranks):
        """No file is begun before the one before has its name, or has failed; none gets it before all ranks have synced."""
        last_calls, now = {}, None
        for call in run.disk.calls():
            if not call.name.endswith(".partial") or call.result == "waits":
                continue
            if call.name != now:
                self.assertNotIn(call.name, last_calls, "a file is written again while another one is")
                now, last_calls[call.name] = call.name, None
            last_calls[call.name] = call
        for name, last in last_calls.items():
            if (last.call, last.result) != ("rename", "ok"):
                continue
            calls = [c for c in run.disk.calls(name=name, result="ok") if c.call in ("pwrite", "fsync", "rename")]
            synced = {}  # rank: when its values were
            for i, call in enumerate(calls):
                if call.call == "fsync":
                    synced.setdefault(int(call.rank), i)
            self.assertEqual(sorted(synced), list(range(ranks)), name)
            structure = calls[max(synced.values()) + 1 :]
            self.assertEqual([c.call for c in structure], ["pwrite"] * (len(structure) - 2) + ["fsync", "rename"], name)
            self.assertGreater(len(structure), 2, name)
            self.assertEqual({(c.rank, c.thread) for c in structure}, {("0", "main")}, name)
