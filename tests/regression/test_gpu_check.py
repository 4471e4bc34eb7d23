#!/usr/bin/python3
"""tools/gpu_check.py on an emulated GPU at nano size: every part runs, every row is filled, and wrong numbers are found.

--build=DIRECTORY --suffix=-cuda-emulated
"""
import json
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support import program  # noqa: E402

SUFFIX = program.option("suffix", "-cuda-emulated")
SCRIPT = program.ROOT / "tools" / "gpu_check.py"


class GpuCheck(program.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = pathlib.Path(cls._class_folder.name)
        cls.references = cls.data / "references.json"
        result = cls.check("", f"--make-references={cls.references}")
        assert result.returncode == 0, result.stdout + result.stderr

    @classmethod
    def check(cls, suffix, *words):
        command = [sys.executable, SCRIPT, f"--programs={program.BUILD}", f"--suffix={suffix}", f"--references={cls.references}",
                   f"--tokens={cls.tokens}", "--model=nano", "--sizes=nano", "--no-torch", f"--output={cls.data / 'out'}", *words]
        environment = {**program.ENVIRONMENT, "GPU_CHECK_MPIRUN": " ".join(program.MPIRUN)}
        return subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, timeout=800)

    def test_results_are_checked_against_the_references(self):
        result = self.check(SUFFIX, "--correct")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertRegex(result.stdout, r"\n6 passed, 0 failed, 1 skipped\n")
        for name in ("device", "small runs", "ranks", "restart", "model", "selftest"):
            self.assertRegex(result.stdout, rf"\nok      {name} ")

    def test_wrong_numbers_fail_the_check(self):
        right = json.loads(self.references.read_text())
        wrong = json.loads(json.dumps(right))
        wrong["tiny"]["lora f64"][7][1] *= 1 + 1e-7
        self.references.write_text(json.dumps(wrong))
        self.addCleanup(self.references.write_text, json.dumps(right))
        result = self.check(SUFFIX, "--correct", "--only=device,small runs")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("\n1 passed, 1 failed\n", result.stdout)
        self.assertRegex(result.stdout, r"FAILED  small runs .*lora f64: differs by 1.0e-07")

    def test_a_check_that_there_is_not_is_refused(self):
        result = self.check(SUFFIX, "--correct", "--only=small runs,speed")
        self.assertEqual(result.returncode, 2)
        self.assertIn("--only names no check of those chosen: speed; there are: device, kernels, small runs, ", result.stderr)

    def test_every_row_of_the_benchmark_is_filled(self):
        result = self.check(SUFFIX, "--bench")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        rows = json.loads((self.data / "out" / "bench.json").read_text())
        self.assertEqual([row["method"] for row in rows], ["full", "switchlora/8", "switchlora/4"])
        for row in rows:
            self.assertGreater(row["tokens_per_s"], 0)
            self.assertGreater(row["phase_s"]["forward"], 0)


if __name__ == "__main__":
    unittest.main()
