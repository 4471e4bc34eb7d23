#!/usr/bin/python3
"""Checks the pages: every key and method is in them, links lead somewhere, and the checksum recipe works."""
import pathlib
import re
import sys
import tempfile

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def missing_keys():
    """Keys of the option table that are missing from their section's row in docs/running.md."""
    keys = re.findall(r'add\("(\w+)\.(\w+)"', read("src/config/keys.cpp"))
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", read("docs/running.md"), re.M))
    if len(keys) < 30:
        yield f"src/config/keys.cpp: only {len(keys)} keys found: the check no longer reads it"
    for section, key in keys:
        if f"`{key}`" not in rows.get(section, ""):
            yield f"docs/running.md: section {section} lacks `{key}`"


def missing_methods():
    """Methods of the registry, their keys and their sources, that are missing from the table in docs/methods.md."""
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", read("docs/methods.md"), re.M))
    for name in re.findall(r"^    X\((\w+)\)", read("src/methods/registry.cpp"), re.M):
        source = "".join(p.read_text() for p in (ROOT / "src/methods").rglob(f"{name}.cpp"))
        keys = re.findall(r'\.key = "(\w+)"', source)
        for text in re.findall(r'\.source = "([^"]+)"', source):
            if text not in rows.get(name, text):
                yield f"docs/methods.md: the row of {name} lacks the source '{text}'"
        keys += [key for key in ("rank", "alpha") if f"{key}_option(" in source]
        for key in keys if name in rows else []:
            if f"`{key}`" not in rows[name]:
                yield f"docs/methods.md: the row of {name} lacks `{key}`"
        if name not in rows:
            yield f"docs/methods.md: no row for {name}"


def dead_links():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(page)):
            if not target.startswith("http") and not (ROOT / page).parent.joinpath(target).exists():
                yield f"{page}: link to {target}, which does not exist"


def wrong_checksum_recipe():
    """Runs the recipe of docs/checkpoints.md on a file whose checksums are computed with Python's integers."""
    recipe = next(c for c in re.findall(r"```python\n(.*?)```", read("docs/checkpoints.md"), re.S) if "def checksum" in c)

    def expected(values):
        total = 0
        for i, bits in enumerate(values.ravel().view(f"u{values.dtype.itemsize}").tolist()):
            x = (i * 0x9E3779B97F4A7C15 + bits) % 2**64
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
            total += x ^ (x >> 31)
        return total % 2**64

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "file.h5"
        with h5py.File(path, "w") as file:
            for name, dtype in (("f32", np.float32), ("f64", np.float64), ("i64", np.int64)):
                values = (100 * np.sin(np.arange(35.0))).reshape(5, 7).astype(dtype)
                file[f"model/{name}"] = values
                file[f"model/{name}"].attrs["checksum"] = np.uint64(expected(values))
            file["model/bad"] = values
            file["model/bad"].attrs["checksum"] = np.uint64(expected(values) ^ 1)
        printed = []
        code = recipe.replace("FILE.h5", str(path))
        exec(code, {"print": lambda *words: printed.append(" ".join(words))})
    if sorted(printed) != ["BAD model/bad", "ok  model/f32", "ok  model/f64", "ok  model/i64"]:
        yield f"docs/checkpoints.md: the checksum recipe says {printed}"


def main():
    problems = [p for check in (missing_keys, missing_methods, dead_links, wrong_checksum_recipe) for p in check()]
    print("\n".join(problems) or "pages: true as far as can be checked")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
