#!/usr/bin/python3
"""tools/new_method.py: the skeleton compiles in a copy of the sources, keeps the layers, and refuses bad names.

--build=DIRECTORY is a configured build of this tree; its compile commands are used (-fsyntax-only, nothing is built).
"""
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from support.program import BUILD, ROOT  # noqa: E402


class NewMethod(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        for name in ("src", "io"):
            shutil.copytree(ROOT / name, self.root / name)
        (self.root / "docs").mkdir()
        shutil.copy(ROOT / "docs" / "methods.md", self.root / "docs")
        shutil.copy(ROOT / ".clang-format", self.root)

    def tearDown(self):
        self.folder.cleanup()

    def generate(self, name):
        command = [sys.executable, ROOT / "tools" / "new_method.py", name, f"--root={self.root}"]
        return subprocess.run(command, capture_output=True, text=True)

    def syntax_errors(self, file):
        """The compiler's output for a file of the copy, with the build's flags for src/methods."""
        commands = json.loads((BUILD / "compile_commands.json").read_text())
        entry = next(c for c in commands if c["file"].endswith("src/methods/registry.cpp"))
        words = shlex.split(entry["command"].replace(str(ROOT), str(self.root)))
        if pathlib.Path(words[0]).name == "ccache":
            words = words[1:]
        skip = {words.index("-o"), words.index("-o") + 1, len(words) - 1}
        if "-include" in words:  # precompiled headers of the build
            skip |= {words.index("-include"), words.index("-include") + 1}
        words = [w for i, w in enumerate(words) if i not in skip and w != "-c"]
        result = subprocess.run(
            [*words, "-fsyntax-only", self.root / file], cwd=entry["directory"], capture_output=True, text=True
        )
        return result.stderr if result.returncode or "warning" in result.stderr else ""

    def test_skeleton_compiles_and_is_registered(self):
        result = self.generate("two_words")
        self.assertEqual(result.returncode, 0, result.stderr)
        files = ["src/methods/two_words.cpp", "tests/methods/test_method_two_words.cpp", "src/methods/registry.cpp"]
        for file in files:
            self.assertEqual(self.syntax_errors(file), "", file)
        registry = (self.root / files[2]).read_text()
        names = re.findall(r"^    X\((\w+)\)( *\\)?$", registry, re.M)
        self.assertEqual(names[-1], ("two_words", ""))
        self.assertTrue(all(slash for _, slash in names[:-1]))
        original = re.findall(r"^    X\((\w+)\)", (ROOT / files[2]).read_text(), re.M)
        self.assertEqual([n for n, _ in names], original + ["two_words"])
        rows = re.findall(r"^\| `(\w+)` \|", (self.root / "docs/methods.md").read_text(), re.M)
        self.assertEqual(rows, original + ["two_words"])

        layers = subprocess.run(
            [sys.executable, ROOT / "tests" / "check_layers.py", f"--root={self.root}"], capture_output=True, text=True
        )
        self.assertNotIn("two_words", layers.stdout)

        again = self.generate("two_words")
        self.assertEqual(again.returncode, 1)
        self.assertIn("exists already", again.stderr)
        self.assertEqual((self.root / files[2]).read_text(), registry)

    def test_a_broken_skeleton_would_be_seen(self):
        self.assertEqual(self.generate("broken").returncode, 0)
        file = self.root / "src/methods/broken.cpp"
        file.write_text(file.read_text().replace("void before_update(", "void before_updates("))
        self.assertIn("override", self.syntax_errors("src/methods/broken.cpp"))

    def test_refuses_bad_names(self):
        before = (self.root / "src/methods/registry.cpp").read_text()
        for name in ("lora", "CamelCase", "two-words", "2fast", "_x", ""):
            result = self.generate(name)
            self.assertEqual(result.returncode, 1, name)
            self.assertIn("error:", result.stderr)
        self.assertEqual((self.root / "src/methods/registry.cpp").read_text(), before)


if __name__ == "__main__":
    unittest.main()
