#!/usr/bin/python3
"""Runs each fault of the program `detectors` in one flavour: sound, it must end quietly; planted, it must be found.

usage: test_detectors.py plain|address|thread PROGRAM [LAUNCHER...]
A fault of chance may hide from one order of threads: most of the seeds must find it.
"""
import os
import pathlib
import re
import subprocess
import sys

SEEDS = (1, 2, 3, 4)
MISSES_ALLOWED = 1
FOLDER = pathlib.Path(__file__).resolve().parent
NO_START = re.compile(r"unexpected memory mapping|failed to set personality|personality to")


def run(command, seed=1):
    """Exit status and everything printed."""
    environment = dict(os.environ, CUDA_EMULATION_SEED=str(seed), ASAN_OPTIONS="detect_leaks=0",
                       TSAN_OPTIONS="halt_on_error=1:atexit_sleep_ms=0", UBSAN_OPTIONS="print_stacktrace=0")
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            errors="replace", timeout=120, check=False)
    return result.returncode, result.stdout


def marked_lines(name):
    """The places "file:line" marked as those of a fault, as a regular expression. A statement may begin a line before."""
    places = [re.escape(f"{path.name}:{at}") + r"\b" for path in sorted(FOLDER.glob("*.cpp"))
              for number, line in enumerate(path.read_text().split("\n"), 1)
              if re.search(rf"planted: {name}\b", line) for at in (number - 1, number)]
    return "(?:" + "|".join(places or ["no line is marked"]) + ")"


def complaints(flavour, program):
    """What is wrong, a line each."""
    status, text = run(program + ["--list"])
    if status != 0:
        yield f"{' '.join(program)} --list ends with {status}: {text}"
        return
    rows = [line.split("\t") for line in text.splitlines()]
    for name in sorted({row[0] for row in rows}):
        for seed in SEEDS[:2]:
            status, text = run(program + [name, "sound"], seed)
            if status != 0 or text != "nothing found\n":
                yield f"{name}: the sound version ends with {status} (seed {seed}): {text[:2000]}"
    orders = [run(program + ["--order"], seed)[1] for seed in (7, 7, 8)]
    if sorted(map(int, orders[0].split())) != list(range(64)) or orders[0] != orders[1] or orders[0] == orders[2]:
        yield f"a seed does not repeat the order of threads, or another one does: {orders}"
    found = 0
    for name, _, says in (row for row in rows if row[1] == flavour):
        says = says.replace("{line}", marked_lines(name))
        misses, hits = [], 0
        for seed in SEEDS:
            status, text = run(program + [name, "planted"], seed)
            if status == 0 or not re.search(says, text):
                misses.append(f"seed {seed}, status {status}: {text[:600]}")
            else:
                hits += 1
            if hits == len(SEEDS) - MISSES_ALLOWED or len(misses) > MISSES_ALLOWED:
                break  # the other seeds cannot change the verdict
        if len(misses) > MISSES_ALLOWED:
            yield f"{name}: the planted fault is missed with {len(misses)} of {len(misses) + hits} seeds; {misses[0]}"
        else:
            found += 1
    print(f"{found} planted faults found in the {flavour} flavour")
    if found == 0:
        yield f"no fault is found in the {flavour} flavour"


def main():
    flavour, program = sys.argv[1], sys.argv[3:] + [sys.argv[2]]
    status, text = run(program + ["--list"])
    if status != 0 and NO_START.search(text):
        print(f"SKIPPED: the program does not start here: {text[:300]}")
        return 77
    problems = list(complaints(flavour, program))
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
