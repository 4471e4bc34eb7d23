#!/usr/bin/python3
"""Keeps the layers apart: a folder includes itself and what is left of it, and a few words stay where they belong.

Prints file:line and the rule for every violation and exits 1. --self-test plants one violation of each rule in a
temporary tree and fails unless exactly that rule reports it.
"""
import argparse
import pathlib
import re
import sys
import tempfile

ORDER = ["core", "comm", "config", "kernels", "io", "model", "optim", "methods", "train", "main"]
CUDA_MAY_INCLUDE = {"core", "comm", "kernels", "cuda"}
METHOD_NAMES = re.compile(r'"(full|lora|switchlora)"')
# The default of method.name is a value of the configuration, not a decision about a method.
METHOD_NAME_ALLOWED = re.compile(r'std::string name = "switchlora";')
PREPROCESSOR_FREE = {"model", "optim", "methods", "train"}
MAX_LINES = 500

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
CONDITIONAL = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b")
# abort and _exit stay free for the watchdog, whose process is stuck.
EXIT_CALL = re.compile(r"(?<![\w.>])(?:std::|::)?(?:exit|quick_exit)\s*\(")
CUDA_INCLUDE = re.compile(r'^\s*#\s*include\s+[<"](cuda|cublas|cudnn|nccl)')


def folder_of(path):
    """The layer of a path relative to the root: src/model/x.hpp -> model, io/x.hpp -> io, src/main.cpp -> main."""
    parts = path.parts
    if parts[0] == "src":
        return parts[1] if len(parts) > 2 else "main"
    return parts[0]


def without_comments(text):
    """Same number of lines, comments blanked; string literals stay."""

    def blank(match):
        found = match.group(0)
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', blank, text, flags=re.S)


def check_file(path, text):
    """Yields (line number, problem) for one file; `path` is relative to the root."""
    layer = folder_of(path)
    if layer not in ORDER + ["cuda"]:
        yield 1, f"folder {layer} has no place in the include order {' <- '.join(ORDER)}"
        return
    lines = without_comments(text).split("\n")
    if len(lines) > MAX_LINES + 1:
        yield len(lines), f"{len(lines) - 1} lines (more than {MAX_LINES}): split the file by responsibility"
    for number, line in enumerate(lines, 1):
        include = INCLUDE.match(line)
        if include and "/" in include.group(1):
            target = include.group(1).split("/")[0]
            if target in ORDER or target == "cuda":
                allowed = CUDA_MAY_INCLUDE if layer == "cuda" else set(ORDER[: ORDER.index(layer) + 1])
                if target not in allowed:
                    yield number, f"{layer} includes {target}/ (the order is {' <- '.join(ORDER)})"
        if layer != "cuda" and CUDA_INCLUDE.match(line):
            yield number, "a CUDA header outside cuda/"
        if layer not in ("methods", "cuda") and METHOD_NAMES.search(line) and not METHOD_NAME_ALLOWED.search(line):
            yield number, "names a training method outside src/methods (ask the Method or the registry instead)"
        if layer in PREPROCESSOR_FREE and CONDITIONAL.match(line):
            yield number, f"conditional compilation in {layer} (differences between machines belong in kernels)"
        if layer not in ("comm", "main") and re.search(r"\bMPI_COMM_WORLD\b", line):
            yield number, "MPI_COMM_WORLD outside comm/ and main (take a Comm or the Topology by reference)"
        if layer != "main" and EXIT_CALL.search(line):
            yield number, "ends the process in library code (throw; main ends the run)"


def check_tree(root):
    """All violations below `root` as 'file:line: problem'."""
    files = [p for top in ("src", "io", "cuda") for p in sorted((root / top).rglob("*"))]
    problems = []
    for path in files:
        if path.suffix in (".hpp", ".cpp", ".cu", ".cuh"):
            relative = path.relative_to(root)
            text = path.read_text(encoding="utf-8")
            problems += [f"{relative}:{number}: {problem}" for number, problem in check_file(relative, text)]
    if not any(p.suffix == ".cpp" for p in files):
        problems.append(f"{root}: no sources found")
    return problems


PLANTED = [  # file, text, part of the message it must give; None: must pass
    ("src/core/a.hpp", '#include "core/b.hpp"\n#include <mpi.h>\n', None),
    ("src/train/a.cpp", '#include "io/x.hpp"\n#include "methods/x.hpp"\n', None),
    ("src/config/config.hpp", '    std::string name = "switchlora";\n', None),
    ("src/methods/lora.cpp", 'const char* name = "lora";\n', None),
    ("src/train/e.cpp", 'getenv("OMPI_COMM_WORLD_SIZE");\n', None),
    ("src/comm/a.cpp", "MPI_Comm_dup(MPI_COMM_WORLD, &c);\n", None),
    ("src/main.cpp", "int main() { MPI_Abort(MPI_COMM_WORLD, 1); std::exit(1); }\n", None),
    ("src/model/b.cpp", '// "lora", MPI_COMM_WORLD and exit(1) in a comment\nx.exit(1);\n', None),
    ("cuda/a.cu", '#include "kernels/x.hpp"\n#include <cuda_runtime.h>\n', None),
    ("io/b.cpp", "\n" * MAX_LINES, None),
    ("src/core/c.hpp", '#include "comm/x.hpp"\n', "core includes comm/"),
    ("io/a.cpp", '#include "model/x.hpp"\n', "io includes model/"),
    ("src/methods/a.cpp", '#include "train/x.hpp"\n', "methods includes train/"),
    ("cuda/b.cu", '#include "model/x.hpp"\n', "cuda includes model/"),
    ("src/kernels/c.cpp", "#include <cuda_runtime.h>\n", "CUDA header"),
    ("src/train/b.cpp", 'if (name == "lora") return;\n', "names a training method"),
    ("src/model/c.cpp", "#ifdef __AVX512F__\n", "conditional compilation"),
    ("src/optim/c.cpp", "  # if X\n", "conditional compilation"),
    ("src/model/d.cpp", "f(MPI_COMM_WORLD);\n", "MPI_COMM_WORLD"),
    ("src/core/d.cpp", "    std::exit(2);\n", "ends the process"),
    ("io/c.cpp", "if (x) exit(1);\n", "ends the process"),
    ("src/train/c.cpp", "std::abort();\n", None),
    ("src/kernels/d.cpp", "\n" * (MAX_LINES + 1), "501 lines"),
    ("src/extras/a.cpp", "\n", "has no place in the include order"),
]


def self_test():
    failures = 0
    for name, text, expected in PLANTED:
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            for file, content in (("src/core/fine.cpp", "int x;\n"), (name, text)):
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_text(content, encoding="utf-8")
            problems = check_tree(root)
        right = problems == [] if expected is None else len(problems) == 1 and expected in problems[0]
        if not right:
            failures += 1
            print(f"{name}: expected {expected or 'no problem'}, got {problems}")
    print(f"{len(PLANTED) - failures} of {len(PLANTED)} planted files judged as they should be")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        sys.exit(1 if self_test() else 0)
    problems = check_tree(arguments.root)
    print("\n".join(problems) or "layers: in order")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
