#!/usr/bin/python3
"""Checks the layers: a folder includes itself and the folders before it, and some words are used in their place only.

Prints file:line, what is wrong and where it belongs, and exits 1. --self-test plants one violation of each rule in a
temporary tree and fails unless exactly that rule reports it.
"""
import argparse
import pathlib
import re
import sys
import tempfile

# Folders in include order; those of one line do not include each other.
ORDER = [
    ["core"],
    ["comm"],
    ["config"],
    ["kernels"],
    ["kernels/checks"],
    ["core/cpu", "comm/cpu", "kernels/cpu", "kernels/cpu/attention", "cuda", "cuda/kernels", "cuda/kernels/adamw", "cuda/kernels/attention", "cuda/kernels/attention/cudnn", "cuda/kernels/frozen", "cuda/kernels/moments", "cuda/comm"],  # back ends: nothing includes them
    ["io/files"],
    ["io/tokens", "io/checkpoint", "io/run"],
    ["io/hugging_face"],
    ["model"],
    ["optim"],
    ["methods/parts"],
    ["methods"],
    ["methods/switchlora", "methods/galore", "methods/muon", "methods/pclora", "methods/loft"],
    ["train"],
    ["plan", "inference", "saving"],
    ["run", "convert"],
    ["selftest"],
    ["commands"],
    ["main"],
]
LEVEL = {folder: level for level, folders in enumerate(ORDER) for folder in folders}
BACK_ENDS = set(ORDER[LEVEL["cuda"]])
BACK_END_MAY_INCLUDE = {"core", "comm", "kernels", "kernels/checks"}
# The default of method.name is a value of the configuration, not a decision about a method.
METHOD_NAME_ALLOWED = re.compile(r'std::string name = "\w+";')
PREPROCESSOR_FREE = {"model", "optim", "methods", "train", "plan", "inference", "saving", "run", "convert",
                     "selftest", "commands"}
MAX_LINES = 500
# Lines of one folder of src/. A larger one is more than a person can keep in mind and should be divided.
MAX_FOLDER_LINES, MAX_BACK_END_LINES = 2000, 3500

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
REGISTERED = re.compile(r"^#define SWITCHYARD_METHODS\(X\)((?:.*\\\n)*.*)", re.M)
CONDITIONAL = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b")
# abort and _exit are allowed, because the watchdog needs them for a process that is stuck.
EXIT_CALL = re.compile(r"(?<![\w.>])(?:std::|::)?(?:exit|quick_exit)\s*\(")
# Results, progress and errors are printed by one file, which decides what a failed write means.
PRINT = re.compile(r"\b(?:fmt::print|cout|cerr|clog|stdout|stderr)\b|\b(?:v?f?printf|f?puts|perror)\s*\(")
PRINTS = "src/core/output.cpp"
CUDA_INCLUDE = re.compile(r'^\s*#\s*include\s+[<"](cuda|cublas|cudnn|nccl)')


def folder_of(path):
    """The folder of a path relative to the root: src/model/x.hpp -> model, io/run/x.hpp -> io/run, src/main.cpp -> main."""
    parts = path.parts[1:] if path.parts[0] == "src" else path.parts
    return "/".join(parts[:-1]) or "main"


def back_end_of(folder):
    """The back end of one of its folders: kernels/cpu/attention -> cpu, cuda/kernels -> cuda."""
    return "cuda" if folder.split("/")[0] == "cuda" else folder.split("/")[1]


def order_text():
    return " <- ".join(folders[0] if len(folders) == 1 else "{" + ", ".join(folders) + "}" for folders in ORDER)


def include_problem(folder, target):
    """What is wrong if a file of `folder` includes one of `target`, or None."""
    if target == folder:
        return None
    if folder in BACK_ENDS:
        same = target in BACK_ENDS and back_end_of(target) == back_end_of(folder)
        if target in BACK_END_MAY_INCLUDE or same:
            return None
        return (f"{folder} includes {target}/, but a back end includes {', '.join(sorted(BACK_END_MAY_INCLUDE))} only; "
                "pass what it needs as an argument")
    if target in BACK_ENDS:
        return f"{folder} includes {target}/, which is private to a back end; declare what is needed in {target.split('/')[0]}/"
    if LEVEL[target] < LEVEL[folder]:
        return None
    if LEVEL[target] == LEVEL[folder]:
        return f"{folder} includes {target}/, its neighbour; move what both need into a folder before them"
    return f"{folder} includes {target}/, which comes after it; move what is needed before {folder}, or the caller to {target}"


def without_comments(text):
    """The text without comments, with the same number of lines; string literals stay."""

    def blank(match):
        found = match.group(0)
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', blank, text, flags=re.S)


def check_file(path, text, method_names):
    """Yields (line number, problem) for one file; `path` is relative to the root."""
    folder = folder_of(path)
    if folder not in LEVEL:
        yield 1, f"folder {folder} has no place in the include order; add it to ORDER or move the file: {order_text()}"
        return
    top = folder.split("/")[0]
    lines = without_comments(text).split("\n")
    if len(lines) > MAX_LINES + 1:
        yield len(lines), f"{len(lines) - 1} lines (more than {MAX_LINES}); split the file by responsibility"
    for number, line in enumerate(lines, 1):
        include = INCLUDE.match(line)
        target = include and "/".join(include.group(1).split("/")[:-1])
        if target in LEVEL and (problem := include_problem(folder, target)):
            yield number, problem
        if top != "cuda" and CUDA_INCLUDE.match(line):
            yield number, f"a CUDA header in {folder}; it belongs into cuda/"
        if top not in ("methods", "cuda") and method_names.search(line) and not METHOD_NAME_ALLOWED.search(line):
            yield number, f"{folder} names a training method; ask the Method or the registry, or move it to src/methods"
        if top in PREPROCESSOR_FREE and CONDITIONAL.match(line):
            yield number, f"conditional compilation in {folder}; differences between machines belong into kernels"
        if top not in ("comm", "main") and re.search(r"\bMPI_COMM_WORLD\b", line):
            yield number, f"MPI_COMM_WORLD in {folder}; take a Comm or the Topology by reference"
        if str(path) != PRINTS and PRINT.search(line):
            yield number, f"prints by itself; use core/output.hpp ({PRINTS} alone knows standard output and error)"
        if folder != "main" and EXIT_CALL.search(line):
            yield number, "ends the process in library code; throw, main ends the run"


def uncounted_kernels(root):
    """Yields (file, line number, name) for each kernel of a back end that does not begin with count_kernel(__func__)."""
    headers = "".join(p.read_text(encoding="utf-8") for p in sorted((root / "src/kernels").glob("*.hpp")))
    declared = set(re.findall(r"^void (\w+)\(", headers, re.M)) - {"upload", "download",  # which have counts of their own
        "use_fused_attention", "use_own_attention"}  # which compute nothing
    fine = re.compile(r"\s*count_kernel\(__func__\)|.*\b(" + "|".join(declared) + r")\(", re.S)  # or calls a kernel that does
    for path in (p for glob in ("src/kernels/*/*.cpp", "cuda/kernels/**/*.c*") for p in sorted(root.glob(glob))):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^(?<!>\n)void (\w+)\([^{;]*\) \{\n(.*?)^\}", text, re.M | re.S):
            if match.group(1) in declared and not fine.match(match.group(2)):
                yield path.relative_to(root), text.count("\n", 0, match.start()) + 1, match.group(1)


def registered_methods(root):
    """A pattern for the names of all registered methods as string literals."""
    registry = root / "src/methods/registry.cpp"
    found = REGISTERED.search(registry.read_text(encoding="utf-8")) if registry.exists() else None
    names = re.findall(r"X\((\w+)\)", found.group(1)) if found else []
    return re.compile('"(' + "|".join(names) + ')"') if names else None


def circles(includes):
    """Yields each circle of files that include each other once; includes: {file: [files]}."""
    done, path = set(), []

    def visit(file):
        if file in path:
            yield " -> ".join(path[path.index(file) :] + [file])
            return
        if file in done:
            return
        path.append(file)
        for other in includes.get(file, []):
            yield from visit(other)
        done.add(path.pop())

    for file in sorted(includes):
        yield from visit(file)


def check_tree(root):
    """All violations under `root` as 'file:line: problem'."""
    method_names = registered_methods(root)
    if not method_names:
        return ["src/methods/registry.cpp:1: no list SWITCHYARD_METHODS(X) of methods found; this check reads it"]
    problems, includes, folder_lines = [], {}, {}
    for path in (p for top in ("src", "io", "cuda") for p in sorted((root / top).rglob("*"))):
        if path.suffix not in (".hpp", ".cpp", ".cu", ".cuh"):
            continue
        relative = path.relative_to(root)
        text = path.read_text(encoding="utf-8")
        problems += [f"{relative}:{number}: {problem}" for number, problem in check_file(relative, text, method_names)]
        name = str(relative).removeprefix("src/")
        includes[name] = [m.group(1) for m in map(INCLUDE.match, text.split("\n")) if m]
        if relative.parts[0] in ("src", "cuda"):
            folder = folder_of(relative)
            folder_lines[folder] = folder_lines.get(folder, 0) + text.count("\n")
    for file, number, name in uncounted_kernels(root):
        problems.append(f"{file}:{number}: {name} does not begin with count_kernel(__func__) (SWITCHYARD_COUNT_CALLS would miss it)")
    problems += [f"{circle.split(' ')[0]}:1: files include each other: {circle}" for circle in circles(includes)]
    for folder, lines in folder_lines.items():
        limit = MAX_BACK_END_LINES if folder in BACK_ENDS else MAX_FOLDER_LINES
        if lines > limit and folder.split("/")[0] != "methods":
            problems.append(f"{folder}: {lines} lines (more than {limit}); it holds more than one trade, split it")
    if not any(name.endswith(".cpp") for name in includes):
        problems.append(f"{root}: no sources found")
    return problems


PLANTED = [  # file, text, part of the expected message; None: no violation
    ("src/core/a.hpp", '#include "core/b.hpp"\n#include <mpi.h>\n', None),
    ("src/train/a.cpp", '#include "io/run/x.hpp"\n#include "methods/x.hpp"\n', None),
    ("src/config/config.hpp", '    std::string name = "switchlora";\n', None),
    ("src/methods/lora.cpp", 'const char* name = "lora";\n', None),
    ("src/methods/switchlora/a.cpp", '#include "methods/parts/x.hpp"\nauto n = "switchlora";\n', None),
    ("src/train/e.cpp", 'getenv("OMPI_COMM_WORLD_SIZE");\n', None),
    ("src/comm/a.cpp", "MPI_Comm_dup(MPI_COMM_WORLD, &c);\n", None),
    ("src/main.cpp", "int main() { MPI_Abort(MPI_COMM_WORLD, 1); std::exit(1); }\n", None),
    ("src/model/b.cpp", '// "lora", MPI_COMM_WORLD and exit(1) in a comment\nx.exit(1);\n', None),
    ("src/kernels/cpu/a.cpp", '#include "kernels/x.hpp"\n#include "kernels/cpu/gemm.hpp"\n', None),
    ("src/kernels/cpu/b.cpp", '#include "core/cpu/x.hpp"\n', None),
    ("cuda/c.cu", '#include "core/cpu/x.hpp"\n', "a back end includes"),
    ("cuda/a.cu", '#include "kernels/x.hpp"\n#include <cuda_runtime.h>\n', None),
    ("io/files/b.cpp", "\n" * MAX_LINES, None),
    ("src/convert/a.cpp", '#include "inference/x.hpp"\n', None),
    ("src/train/c.cpp", "std::abort();\n", None),
    ("src/core/output.cpp", "std::fputs(text, stderr);\n", None),
    ("src/run/d.cpp", 'std::snprintf(text, 9, "%d", STDOUT_FILENO);\n', None),
    ("src/run/f.cpp", "fmt::print(text);\n", "prints by itself"),
    ("io/tokens/a.cpp", "std::cerr << 1;\n", "prints by itself"),
    ("src/core/c.hpp", '#include "comm/x.hpp"\n', "core includes comm/, which comes after it"),
    ("io/checkpoint/a.cpp", '#include "model/x.hpp"\n', "io/checkpoint includes model/"),
    ("io/checkpoint/b.cpp", '#include "io/tokens/x.hpp"\n', "its neighbour"),
    ("src/methods/a.cpp", '#include "train/x.hpp"\n', "methods includes train/"),
    ("src/methods/parts/a.cpp", '#include "methods/method.hpp"\n', "methods/parts includes methods/"),
    ("src/inference/a.cpp", '#include "plan/x.hpp"\n', "its neighbour"),
    ("src/run/a.cpp", '#include "convert/x.hpp"\n', "its neighbour"),
    ("src/optim/a.cpp", '#include "kernels/cpu/gemm.hpp"\n', "private to a back end"),
    ("src/kernels/e.cpp", '#include "kernels/cpu/gemm.hpp"\n', "private to a back end"),
    ("src/comm/cpu/a.cpp", '#include "config/x.hpp"\n', "a back end includes"),
    ("cuda/b.cu", '#include "model/x.hpp"\n', "cuda includes model/"),
    ("src/kernels/c.cpp", "#include <cuda_runtime.h>\n", "CUDA header"),
    ("src/train/b.cpp", 'if (name == "lora") return;\n', "names a training method"),
    ("src/commands/b.cpp", 'if (name == "newest") return;\n', "names a training method"),
    ("src/model/c.cpp", "#ifdef __AVX512F__\n", "conditional compilation"),
    ("src/optim/c.cpp", "  # if X\n", "conditional compilation"),
    ("src/run/c.cpp", "#ifdef X\n", "conditional compilation"),
    ("src/model/d.cpp", "f(MPI_COMM_WORLD);\n", "MPI_COMM_WORLD"),
    ("src/core/d.cpp", "    std::exit(2);\n", "ends the process"),
    ("io/files/c.cpp", "if (x) exit(1);\n", "ends the process"),
    ("src/kernels/d.cpp", "\n" * (MAX_LINES + 1), "501 lines"),
    ("src/core/fine.cpp", '#include "core/fine.cpp"\n', "include each other"),
    ("src/extras/a.cpp", "\n", "has no place in the include order"),
    ("src/methods/registry.cpp", "\n", "no list SWITCHYARD_METHODS"),
]
REGISTRY = "#define SWITCHYARD_METHODS(X) \\\n    X(lora) \\\n    X(switchlora) \\\n    X(newest)\n"


def judge(files):
    """The problems of a tree of {name: text}."""
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        for file, content in files.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(content, encoding="utf-8")
        return check_tree(root)


def self_test():
    failures = 0
    crowd = {f"src/model/m{i}.cpp": "\n" * 500 for i in range(5)}
    cases = [({name: text}, expected) for name, text, expected in PLANTED]
    cases.append((crowd, "more than one trade"))
    kernel = {"src/kernels/x.hpp": "void scale(Tensor,\n           double);\n"}
    counted = "void scale(Tensor x,\n           double y) {\n    count_kernel(__func__);\n}\ntemplate <class T>\nvoid scale(T x) {\n}\n"
    cases.append(({**kernel, "src/kernels/cpu/x.cpp": counted}, None))
    cases.append(({**kernel, "src/kernels/cpu/x.cpp": counted.replace("count_kernel", "count")}, "scale does not begin with count_kernel"))
    for files, expected in cases:
        problems = judge({"src/core/fine.cpp": "int x;\n", "src/methods/registry.cpp": REGISTRY, **files})
        right = problems == [] if expected is None else len(problems) == 1 and expected in problems[0]
        if not right:
            failures += 1
            print(f"{next(iter(files))}: expected {expected or 'no problem'}, got {problems}")
    print(f"{len(cases) - failures} of {len(cases)} planted trees judged as they should be")
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
