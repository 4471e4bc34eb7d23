#!/usr/bin/python3
"""Damaged files and full disks: earlier checkpoints are never lost, and the run goes on from them with a message.

--ranks=1 (one process) or --ranks=2 (mpirun).
"""
import errno
import os
import pathlib
import resource
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import disk_faults, program  # noqa: E402
from support.disk_faults import rule  # noqa: E402

RANKS = int(program.option("ranks", 1))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@unittest.skipUnless(RANKS == 1, "of --ranks=1")
class Damage(program.Test):
    """Every single byte: tests/io/checkpoint/test_checkpoint_damage.cpp."""

    def place_of(self, file, dataset):
        with program.h5py.File(file) as opened:
            return opened[dataset].id.get_offset() + 5

    def saved_run(self, *steps):
        run = self.run_of(**program.SWITCHING, **{"run.keep_last": 9})
        for step in steps:
            self.assert_trains(run, run__stop_step=step)
        self.assertEqual(run.checkpoints(), list(steps))
        return run

    def test_falls_back_to_the_file_before(self):
        run, twin = self.saved_run(3, 5, 7), self.run_of("twin", **program.SWITCHING)
        newest, second = run.checkpoint(7), run.checkpoint(5)
        flip(newest, self.place_of(newest, "method/model.layers.1.mlp.up_proj/bank_B"))
        flip(second, 100)  # structure
        damaged = newest.read_bytes()
        output = self.assert_trains(run, run__stop_step=9)
        self.assertIn(f"warning: checkpoint is damaged: checkpoint {newest} is damaged (dataset "
                      "/method/model.layers.1.mlp.up_proj/bank_B does not fit its checksum)", output)  # fmt: skip
        self.assertIn(f"it is kept as {newest}.damaged", output)
        self.assertIn(f"it is kept as {second}.damaged", output)
        self.assertIn("resuming from step 3", output)
        self.assertEqual(pathlib.Path(f"{newest}.damaged").read_bytes(), damaged)
        self.assertEqual(run.files(), [f"step_{n:08d}.h5{s}" for n, s in ((3, ""), (5, ".damaged"), (7, ".damaged"), (9, ""))])
        self.assertEqual(sorted(run.steps("loss")), list(range(1, 10)))
        self.assert_trains(twin, run__stop_step=9)
        self.assertEqual(run.steps("loss"), twin.steps("loss"))
        self.assert_identical(run.checkpoint(9), twin.checkpoint(9))

    def test_cut_off_and_lengthened_files(self):
        run = self.saved_run(2, 3, 4, 5)
        os.truncate(run.checkpoint(5), run.checkpoint(5).stat().st_size - 1)
        os.truncate(run.checkpoint(4), 0)
        with open(run.checkpoint(3), "ab") as file:
            file.write(b"\0")
        output = self.assert_trains(run, run__stop_step=6)
        self.assertEqual(output.count("warning: checkpoint is damaged"), 3)
        self.assertEqual(run.events("resume")[-1]["step"], 2)

    def test_all_damaged_never_starts_anew(self):
        run = self.saved_run(2, 3)
        for step in (2, 3):
            flip(run.checkpoint(step), 60)
        for launch in ("first", "second"):  # the second start finds them set aside
            code, output = run.train()
            self.assertEqual(code, 1, output)
            self.assertIn(f"all 2 checkpoints in `{run.path}/checkpoints` are damaged", output, launch)
            self.assert_status(run, "failed", "are damaged")
        self.assertEqual(len(run.files()), 2)
        self.assertEqual(run.last_step(), 3)

    def test_eval_of_a_damaged_file_says_so(self):
        run = self.saved_run(2)
        file = run.checkpoint(2)
        flip(file, self.place_of(file, "model/lm_head.weight"))
        result = program.switchyard("eval", file)
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"checkpoint {file} is damaged (dataset /model/lm_head.weight does not fit", result.stderr)
        self.assertTrue(file.exists())


class FoundTogether(disk_faults.Test):
    """All ranks read a file once, and that tells whether it is damaged; what the system refuses is not damage."""

    def setUp(self):
        super().setUp()
        self.saved = self.saving_run("saved")
        self.assert_trains(self.saved, ranks=RANKS, run__stop_step=8)

    def assert_goes_back(self, run):
        """To step 4, with one warning."""
        output = self.assert_trains(run, ranks=RANKS, run__stop_step=10)
        self.assertEqual(output.count("warning: "), 1, output)
        self.assertEqual(output.count(f"it is kept as {run.checkpoint(8)}.damaged"), 1, output)
        self.assertIn("resuming from step 4", output)
        self.assertEqual(run.files(), [f"step_{n:08d}.h5{s}" for n, s in ((4, ""), (8, ""), (8, ".damaged"), (10, ""))])
        self.assert_identical(run.checkpoint(8), self.saved.checkpoint(8))
        return output

    def test_a_damaged_file_is_read_once(self):
        """By all ranks together, every value by one of them; nobody looks a second time."""
        run = self.copy_of(self.saved, "run")
        datasets = []
        with program.h5py.File(run.checkpoint(8)) as file:
            file.visititems(lambda _, item: datasets.append((item.id.get_offset(), item.nbytes, item.dtype))
                            if isinstance(item, program.h5py.Dataset) else None)  # fmt: skip
            damaged = file["model/lm_head.weight"].id.get_offset() + 5
        # Rank 0 reads tables of whole numbers with the structure, wanted or not.
        tables = [range(at, at + count) for at, count, dtype in datasets if dtype == "int64"]
        values = [(at, count) for at, count, dtype in datasets if dtype != "int64"]
        flip(run.checkpoint(8), damaged)
        output = self.assert_goes_back(run)
        self.assertIn("(dataset /model/lm_head.weight does not fit its checksum)", output)
        renamed = run.disk.calls(call="rename", name="step_00000008.h5")
        self.assertEqual([(c.rank, c.result) for c in renamed], [("0", "ok")])
        before = run.disk.calls()[: run.disk.calls().index(renamed[0])]
        reads = [c for c in before if c.call == "pread" and c.name == "step_00000008.h5" and c.thread == "main"]
        reads = [c for c in reads if not any(c.offset in table for table in tables)]
        self.assertEqual({c.rank for c in reads}, {str(rank) for rank in range(RANKS)})
        stretches = sorted((c.offset, c.offset + c.bytes) for c in reads)
        for one, next in zip(stretches, stretches[1:]):
            self.assertLessEqual(one[1], next[0], "read twice")
        self.assertEqual(sum(end - begin for begin, end in stretches), sum(count for _, count in values))

    def reads(self):
        """(rank, who reads, which of its reads): of the structure, of a table and of values."""
        with program.h5py.File(self.saved.checkpoint(8)) as file:
            kinds = []
            file.visititems(lambda _, item: kinds.append(item.dtype.kind) if isinstance(item, program.h5py.Dataset) else None)
        tables = kinds.count("i")
        return [(0, "child.pread", 3), (0, "main.pread", 2), *((rank, "main.pread", tables + 2) for rank in range(RANKS))]

    def test_what_the_disk_cannot_return_is_damage(self):
        for rank, call, number in self.reads():
            with self.subTest(rank=rank, call=call, number=number):
                run = self.copy_of(self.saved, f"{call}{number}.{rank}")
                run.disk.obeys(rule(rank, call, errno.EIO, "step_00000008.h5", number))
                output = self.assert_goes_back(run)
                self.assertTrue(run.disk.calls(result=errno.EIO))
                if "main" in call:
                    self.assertIn(os.strerror(errno.EIO), output)

    def test_what_the_system_refuses_is_not_damage(self):
        refused = [(rank, "open", 1, error) for rank in range(RANKS) for error in (errno.EACCES, errno.ESTALE)]
        refused += [(*read, errno.ESTALE) for read in self.reads()]
        for rank, call, number, error in refused:
            with self.subTest(rank=rank, call=call, number=number, error=error):
                run = self.copy_of(self.saved, f"{call}{number}.{error}.{rank}")
                run.disk.obeys(rule(rank, call, error, "step_00000008.h5", number))
                code, output = run.train(RANKS, run__stop_step=10)
                self.assertTrue(run.disk.calls(result=error))
                self.assertEqual(code, 1, output)
                self.assertIn(os.strerror(error), output)
                self.assertIn(str(run.checkpoint(8)), output)
                self.assertEqual(output.count("[rank "), 1, output)
                self.assertNotIn("damaged", output)
                self.assert_kept(run, 4, 8)
                self.assert_status(run, "failed", os.strerror(error))
                run.disk.obeys()
                self.assertIn("resuming from step 8", self.assert_trains(run, ranks=RANKS, run__stop_step=10))


class DiskFull(program.Test):
    """By a limit on the size of files; a full file system: test_disk_full.py."""

    def assert_fails_to_save(self, run, limit, message, victims=(0,)):
        """The limit is set on the victims' processes in the middle of the run; then the run is asked to save."""
        self.assert_trains(run, run__stop_step=2)
        before = run.checkpoint(2).read_bytes()
        launch = run.start(RANKS)
        self.wait_until(launch, lambda: run.last_step() > 4)
        for victim in victims:
            resource.prlimit(launch.ranks()[victim], resource.RLIMIT_FSIZE, (limit, limit))
        program.Process(launch.ranks()[0]).signal(signal.SIGUSR1)  # saves after this step
        self.assertEqual(launch.wait(), 1, launch.output())
        output = launch.output()
        self.assertEqual(output.count(f"cannot write {run.path}/checkpoints/step_"), 1, output)
        self.assertEqual(output.count("[rank "), 1, output)
        self.assertIn(message, output)
        self.assertEqual(run.files(), ["step_00000002.h5"])
        self.assertEqual(run.checkpoint(2).read_bytes(), before)
        self.assert_verifies(run.checkpoint(2))
        self.assert_status(run, "failed", "cannot write", run.last_step())
        self.assert_trains(run, run__stop_step=5)  # with space again
        self.assertEqual(run.events("resume")[-1]["step"], 2)

    def test_seen_before_writing(self):
        run = self.run_of(**program.SWITCHING)
        self.assert_fails_to_save(run, 200000, "files are limited to 195 KiB); raise `ulimit -f`")

    def test_met_while_writing(self):
        """The values alone would fit, the whole file does not; on any rank, each of which writes windows near the end."""
        sizes = self.run_of("sizes", **program.SWITCHING)
        self.assert_trains(sizes, run__stop_step=1)
        with program.h5py.File(sizes.checkpoint()) as file:
            datasets = []
            file.visititems(lambda _, item: datasets.append(item) if isinstance(item, program.h5py.Dataset) else None)
            values = sum(d.size * d.dtype.itemsize for d in datasets)
        limit = (values + sizes.checkpoint().stat().st_size) // 2
        for victims in ([0],) if RANKS == 1 else ([0], [1], [0, 1]):
            with self.subTest(victims=victims):
                run = self.run_of(f"run{victims}", **program.SWITCHING, **{"io.window": 4096})
                self.assert_fails_to_save(run, limit, "File too large", victims)


if __name__ == "__main__":
    unittest.main()
