#!/usr/bin/env python3
"""Every numbered finding of the field has a test named after it: test_finding_01_... to test_finding_24_...

A finding is an input or a situation of a user that went wrong once; its test checks the right result.
"""
import pathlib
import re
import sys

TESTS = pathlib.Path(__file__).resolve().parent
NUM_FINDINGS = 24
# A test that runs is a Python function or a GoogleTest of this name.
NAMED = re.compile(r"def test_finding_(\d\d)_\w+\(|TEST(?:_F|_P)?\(\s*\w+,\s*test_finding_(\d\d)_\w+\)")


def main():
    registered = (TESTS / "CMakeLists.txt").read_text(encoding="utf-8")
    found, problems = {}, []
    for path in sorted([*TESTS.rglob("test_*.py"), *TESTS.rglob("test_*.cpp")]):
        numbers = {int(a or b) for a, b in NAMED.findall(path.read_text(encoding="utf-8"))}
        if numbers and path.suffix == ".py" and str(path.relative_to(TESTS)) not in registered:
            problems.append(f"{path.relative_to(TESTS)}: it tests findings {sorted(numbers)} and CTest does not start it")
        for number in numbers:
            found.setdefault(number, []).append(path.name)
    problems += [f"finding {number:02}: no test has a name that begins with test_finding_{number:02}_"
                 for number in range(1, NUM_FINDINGS + 1) if number not in found]
    print("\n".join(problems) or f"{NUM_FINDINGS} findings are tested in {len({f for fs in found.values() for f in fs})} files.")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
