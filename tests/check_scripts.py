#!/usr/bin/python3
"""Checks the repository's scripts: `syntax` (bash -n, Python compiles, strict mode set) or `shellcheck`.

Exits 77 (a visible skip in CTest) where shellcheck is not installed.
"""
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("tools", "tests", "jobs", ".ci")


def scripts():
    """(shell scripts, Python scripts), by ending or first line."""
    shell, python = [], []
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file()):
        if path.suffix == ".py":
            python.append(path)
        elif path.suffix == ".env":  # sourced by job scripts
            shell.append(path)
        elif path.suffix in ("", ".sh", ".sbatch"):
            first = path.read_bytes().split(b"\n", 1)[0]
            if path.suffix == ".sh" or (first.startswith(b"#!") and b"bash" in first):
                shell.append(path)
    return shell, python


def check_syntax(shell, python):
    problems = []
    for path in shell:
        result = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
        problems += [result.stderr.strip()] if result.returncode else []
        # mpirun_flags.sh and sites are sourced by scripts that set it themselves.
        sourced = path.name == "mpirun_flags.sh" or path.suffix == ".env"
        if "set -euo pipefail" not in path.read_text() and not sourced:
            problems.append(f"{path}: no `set -euo pipefail`")
    for path in python:
        try:
            compile(path.read_text(encoding="utf-8"), str(path), "exec")
        except SyntaxError as error:
            problems.append(f"{path}:{error.lineno}: {error.msg}")
    return problems


def main():
    shell, python = scripts()
    if not shell or not python:
        sys.exit("no scripts found: the check looks in the wrong place")
    if sys.argv[1:] == ["shellcheck"]:
        if not shutil.which("shellcheck"):
            print("shellcheck is not installed: skipped")
            sys.exit(77)
        sys.exit(subprocess.run(["shellcheck", "-x", *shell], cwd=ROOT).returncode)
    if sys.argv[1:] != ["syntax"]:
        sys.exit(__doc__)
    problems = check_syntax(shell, python)
    print("\n".join(problems) or f"{len(shell)} shell and {len(python)} Python scripts parse")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
