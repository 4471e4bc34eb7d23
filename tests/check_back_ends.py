#!/usr/bin/python3
"""Checks that every test of what back ends do runs on every back end of a build that is executed here.

A test of tests/{comm,inference,kernels,methods,model,optim,train} must have the label `back_end` on each back end, or a
line "// BACK ENDS: cpu. Reason" with a reason. Prints what is missing and exits 1.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

FOLDERS = ("comm", "inference", "kernels", "methods", "model", "optim", "train")
LINE = re.compile(r"^// BACK ENDS: ([a-z-]+)(?:\. (.+))?$", re.M)


def labelled_tests(build):
    """The names of all tests with the label `back_end`."""
    shown = subprocess.run(["ctest", "--show-only=json-v1"], cwd=build, check=True, capture_output=True, text=True)
    for test in json.loads(shown.stdout)["tests"]:
        for name_value in test.get("properties", []):
            if name_value["name"] == "LABELS" and "back_end" in name_value["value"]:
                yield test["name"]


def problems(tests, back_ends, names):
    """tests: {name without back end: text of its source}; names: all labelled tests as CTest calls them."""
    without_ranks = {name.split("/")[0] for name in names}
    for name, text in sorted(tests.items()):
        line = LINE.search(text)
        if line and line.group(1) != "all":
            if not line.group(2):
                yield f"{name} runs on {line.group(1)} alone without a reason; write // BACK ENDS: {line.group(1)}. Reason"
            continue
        for position, back_end in enumerate(back_ends):
            wanted = name if position == 0 else f"{back_end}.{name}"
            if wanted not in without_ranks:
                yield f"{name} does not run on {back_end} with the label back_end; see tests/programs.cmake"


def self_test():
    names = ["train.test_a/1", "emulated.train.test_a/1", "kernels.test_b"]
    tests = {"train.test_a": "// A.\n", "kernels.test_b": "// B.\n"}
    found = list(problems(tests, ["cpu", "emulated"], names))
    right = len(found) == 1 and found[0].startswith("kernels.test_b does not run on emulated")
    reasons = {"x": "// BACK ENDS: cpu\n", "y": "// BACK ENDS: cpu. It looks inside.\n"}
    found = list(problems(reasons, ["cpu", "emulated"], []))
    right = right and len(found) == 1 and found[0].startswith("x runs on cpu alone without a reason")
    print("self-test:", "passed" if right else "FAILED")
    return 0 if right else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--back-ends", required=True, help="those whose tests run here, the first one first, with commas")
    arguments = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parent
    tests = {}
    for folder in FOLDERS:
        for path in (root / folder).rglob("test_*.cpp"):
            parts = path.relative_to(root).parent.parts
            if folder in ("kernels", "comm") and len(parts) > 1:
                continue  # of the inside of one back end
            tests[".".join(parts + (path.stem,))] = path.read_text(encoding="utf-8")
    found = list(problems(tests, arguments.back_ends.split(","), list(labelled_tests(arguments.build))))
    print("\n".join(found) or f"{len(tests)} tests run on {arguments.back_ends}, or say why not")
    sys.exit(1 if found or not tests or self_test() else 0)


if __name__ == "__main__":
    main()
