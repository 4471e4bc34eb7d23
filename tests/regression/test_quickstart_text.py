#!/usr/bin/python3
"""tools/quickstart_text.py: what is kept and what is stripped of dictionary entries, and the size asked for."""
import gzip
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import quickstart_text  # noqa: E402

ENTRY = r"""Enterprise \En"ter*prise\, n. [F. enterprise, fr. entreprendre
   to undertake; cf. ent['e]rologie. See {Inter}.] (Zo["o]l.)
   1. That which is undertaken; something attempted;
      as, a {warlike} enterprise. --Shak.
      [1913 Webster]

            Their hands can not perform their enterprise. --Job
                                                  v. 12.
      [1913 Webster]

   2. (Nat. Hist.) Willingness to engage in labor , boldly.
      [1913 Webster]

   Syn: undertaking; adventure.
        [1913 Webster]
"""


class QuickstartText(unittest.TestCase):
    def test_an_entry_becomes_a_sentence(self):
        self.assertEqual(
            quickstart_text.plain(ENTRY.rstrip("\n").split("\n")),
            "Enterprise: That which is undertaken; something attempted; as, a warlike enterprise. "
            "Willingness to engage in labor, boldly.",
        )

    def test_drops_what_is_not_prose(self):
        for body in ("   Short.", "   See {Enterprise} for all of that.", "   Gr. \u03b1\u03b2\u03b3 a long enough meaning.",
                     "   What does it mean ? Nobody knows that."):  # fmt: skip
            self.assertEqual(quickstart_text.plain(["Word \\Word\\, n.", body]), "", body)
        self.assertEqual(quickstart_text.plain(["3D \\3D\\, n.", "   Having three dimensions."]), "")

    def test_whole_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)

            def convert(entries, megabytes):
                with gzip.open(path / "gcide.dict.dz", "wt", encoding="utf-8") as file:
                    file.write("Preface\n   of the dictionary\n\n" + (ENTRY + "\n") * entries)
                script = ROOT / "tools" / "quickstart_text.py"
                command = [sys.executable, script, path / "gcide.dict.dz", path / "text.txt", f"--megabytes={megabytes}"]
                return subprocess.run(command, capture_output=True, text=True)

            self.assertEqual(convert(12000, 100).returncode, 0)
            paragraphs = (path / "text.txt").read_text().strip().split("\n\n")
            self.assertEqual(len(paragraphs), 12000)
            self.assertTrue(all(p.startswith("Enterprise: That") for p in paragraphs))
            self.assertEqual(convert(12000, 12000 * len(paragraphs[0]) / 3e6).returncode, 0)
            self.assertEqual(len((path / "text.txt").read_text().strip().split("\n\n")), 4000)
            result = convert(20, 100)
            self.assertEqual(result.returncode, 1)
            self.assertIn("only 20 entries", result.stderr)


if __name__ == "__main__":
    unittest.main()
