#!/usr/bin/python3
"""Files of released formats stay readable: each checkpoint in tests/golden/format_N resumes and goes on like the run that
wrote it, whatever defaults have changed since; token files train. tools/make_old_files.py makes the files.
"""
import gzip
import json
import pathlib
import shutil
import sys
import unittest

import h5py

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

FORMATS = sorted((program.ROOT / "tests/golden").glob("format_*"))
TOLERANCE = 1e-10  # of losses and norms in f64: sums of products depend on the machine's vectors


class OldFiles(unittest.TestCase):
    setUp, tearDown = program.Test.setUp, program.Test.tearDown

    def run_directory(self, golden, method):
        """A run whose newest checkpoint is the old file, and the token file of that time."""
        run, tokens = self.folder / f"{golden.name}_{method}", self.folder / f"{golden.name}.h5"
        tokens.write_bytes(gzip.decompress((golden / "tokens.h5.gz").read_bytes()))
        (run / "checkpoints").mkdir(parents=True)
        shutil.copy(golden / f"{method}.h5", run / "checkpoints/step_00000010.h5")
        return run, tokens

    def assert_goes_on(self, run, expected, words, ranks=1):
        launcher = [*program.MPIRUN, "-n", ranks] if ranks > 1 else []
        launch = program.Launch([*launcher, program.BUILD / "switchyard", "train", *words])
        self.assertEqual(launch.wait(), 0, launch.output())
        steps = {r["step"]: r for r in program.Run(run, "").log() if "event" not in r}
        self.assertEqual(sorted(steps), [r["step"] for r in expected], run.name)
        for record in expected:
            for key in ("loss", "grad_norm", "lr"):
                step, value = record["step"], record[key]
                self.assertLess(abs(steps[step][key] - value), TOLERANCE * abs(value), f"{run.name}, {key} of step {step}")

    def for_each(self):
        self.assertTrue(FORMATS)
        for golden in FORMATS:
            for method, made in json.loads((golden / "expected.json").read_text())["runs"].items():
                yield golden, method, made

    def test_resumes_with_the_settings_of_then(self):
        for golden, method, made in self.for_each():
            run, tokens = self.run_directory(golden, method)
            settings = json.loads((golden / "expected.json").read_text())["settings"] + made["settings"]
            ranks = 2 if method == "switchlora" else 1
            self.assert_goes_on(run, made["steps"], [f"--run.dir={run}", f"--data.tokens={tokens}", *settings], ranks)

    def test_resumes_with_the_configuration_of_then(self):
        for golden, method, made in self.for_each():
            run, tokens = self.run_directory(golden, method)
            with h5py.File(golden / f"{method}.h5") as file:
                text = file.attrs["config"]
            (run / "config.cfg").write_text(text.decode() if isinstance(text, bytes) else text)
            self.assert_goes_on(run, made["steps"], [run, f"--data.tokens={tokens}", "--run.stop_step=0"])

    def test_other_commands_read_them(self):
        for golden, method, _ in self.for_each():
            run, tokens = self.run_directory(golden, method)
            file = run / "checkpoints/step_00000010.h5"
            for words in (["verify", file, tokens], ["inspect", file], ["diff", file, golden / f"{method}.h5"],
                          ["eval", file, f"--data.tokens={tokens}"], ["export", file, self.folder / f"hf_{golden.name}_{method}", f"--data.tokens={tokens}"]):
                result = program.switchyard(*words)
                self.assertEqual(result.returncode, 0, f"{words[0]} {golden.name}/{method}.h5: {result.stderr}")


if __name__ == "__main__":
    unittest.main()
