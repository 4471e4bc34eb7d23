#!/usr/bin/env python3
"""Checks what nvcc made of the CUDA kernels: nothing spills but what `SPILLS` allows, on every architecture of the build, and
each tensor-core kernel of attention multiplies by mma and copies 16 bytes at a time.

Reads what the build left: the report of ptxas beside each object (tools/keep_ptxas_report.sh) and attention's PTX. --list
prints registers of all kernels; --self-test plants faults and fails unless each is reported.
"""
import argparse
import pathlib
import re
import subprocess
import sys

# Two reasons. FULL: what a thread must hold fills the 255 registers that there are. STEP: with the registers that ptxas
# stops at (40, 48, 64, 128, 168) one more block is resident, which it prefers to saving a few bytes.
FULL, STEP = "full", "step"
# file, kernel, architecture: bytes that may be stored and loaded, and the reason. An entry that nothing needs is an error.
SPILLS = {
    # Operands and sums alone fill 192 registers: the kernel's comment says what the other way would cost.
    ("attention/mma_backward", "key_gradients<128>", 80): (32, 76, FULL),
    ("attention/mma_backward", "key_gradients<128>", 90): (24, 64, FULL),
    ("attention/mma_backward", "key_gradients<128>", 100): (32, 72, FULL),
    # Exponentials in f64, which are calls in all but name; not on the way of a run in bf16.
    ("cross_entropy", "group_statistics<double, 1>", 90): (40, 40, STEP),
    ("cross_entropy", "group_statistics<double, 2>", 90): (48, 48, STEP),
    ("cross_entropy", "group_statistics<double, 1>", 100): (40, 40, STEP),
    ("cross_entropy", "group_statistics<double, 2>", 100): (16, 16, STEP),
    # Outside of the inner loops.
    ("attention/mma_backward", "key_gradients<64>", 100): (8, 12, STEP),
    ("attention/mma_backward", "query_gradient<16, 2>", 80): (8, 12, STEP),
    ("embedding", "add_to_table<bf16, 8>", 80): (8, 8, STEP),
    ("frozen/frozen_weight", "form_tiles<bf16, float, float>", 80): (16, 16, STEP),
    ("norm", "backward<bf16, 8>", 80): (4, 12, STEP),
    ("norm", "normalise<float, 4>", 80): (4, 4, STEP),
}

TENSOR_CORE_KERNELS = {f"{name}<{size}>" for size in (16, 32, 48, 64, 80, 96, 128) for name in ("forward", "query_gradient", "key_gradients")}
INSTRUCTIONS = {  # of each of them, as PTX
    "products by tensor cores": re.compile(r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32\b"),
    "operands from shared memory, four matrices at once": re.compile(r"ldmatrix\.sync\.aligned\.m8n8\.x4\b"),
    "copies of 16 bytes in the background": re.compile(r"cp\.async\.cg\.shared\.global\s*\[[^]]+\],\s*\[[^]]+\],\s*16\b"),
}

ENTRY = re.compile(
    r"Compiling entry function '(?P<name>[^']+)' for 'sm_(?P<architecture>\d+)\w*'\n(?:.*\n)??"
    r"\s+(?P<frame>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r"ptxas info\s*: Used (?P<registers>\d+) registers")


def readable(names):
    """{mangled: name without namespaces, arguments and return type}"""
    shown = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.splitlines()
    bare = [re.sub(r"\(anonymous namespace\)::|\b(?:switchyard|kernels|attention|cuda)::|^void ", "", name) for name in shown]
    return {name: re.sub(r"\(.*", "", text) for name, text in zip(names, bare)}


def read_reports(reports):
    """[(file, kernel, architecture, frame, stores, loads, registers)] of {file: report}."""
    found = [(file, match) for file, text in reports.items() for match in ENTRY.finditer(text)]
    names = readable(sorted({match["name"] for _, match in found}))
    return [(file, names[m["name"]], *(int(m[key]) for key in ("architecture", "frame", "stores", "loads", "registers"))) for file, m in found]


def spill_problems(kernels, architectures, allowed):
    unused = {key for key in allowed if key[2] in architectures}
    for file, name, architecture, frame, stores, loads, _ in kernels:
        key = (file, name, architecture)
        if frame == stores == loads == 0:
            continue
        if key not in allowed:
            yield (f"{file}.cu: {name} on sm_{architecture} has {frame} bytes of stack, spills {stores} and loads {loads} "
                   "(registers go through memory); let a thread hold less, or give the reason in SPILLS")  # fmt: skip
        elif stores > allowed[key][0] or loads > allowed[key][1]:
            yield f"{file}.cu: {name} on sm_{architecture} spills {stores} bytes and loads {loads}, {allowed[key][:2]} are allowed"
        unused.discard(key)
    for file, name, architecture in sorted(unused):
        yield f"{file}.cu: {name} on sm_{architecture} does not spill any more; take it out of SPILLS"
    files = {file for file, *_ in kernels}
    for file in sorted(files):
        for architecture in sorted(architectures - {kernel[2] for kernel in kernels if kernel[0] == file}):
            yield f"{file}.cu: no report of a kernel for sm_{architecture}; build again"


def ptx_entries(text):
    """{kernel: its instructions}"""
    parts = re.split(r"\.entry\s+(\w+)", text)
    names = readable(parts[1::2])
    return {names[name]: body for name, body in zip(parts[1::2], parts[2::2])}


def instruction_problems(entries, expected):
    """The number of sets of queries, a second parameter of some kernels, is not of interest."""
    by_size = {re.sub(r", \d+>", ">", name): body for name, body in entries.items()}
    for name in sorted(expected - by_size.keys()):
        yield f"attention: there is no kernel {name}"
    for name in sorted(expected & by_size.keys()):
        for what, pattern in INSTRUCTIONS.items():
            if not pattern.search(by_size[name]):
                yield f"attention: {name} has no {what}"


def self_test():
    def report(name, architecture, frame, stores, loads):
        return (f"ptxas info    : Compiling entry function '{name}' for 'sm_{architecture}'\nptxas info    : Function properties for {name}\n"
                f"    {frame} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads\nptxas info    : Used 64 registers\n")  # fmt: skip

    kernel, allowed = "_Z1fILi4EEvv", {("norm", "f<4>", 90): (8, 8, STEP)}  # void f<4>()
    good = (".entry _Z1fILi4EEvv mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {} ldmatrix.sync.aligned.m8n8.x4.shared.b16 {} "
            "cp.async.cg.shared.global [%r1],[%rd1],16,%r2;")  # fmt: skip
    cases = [(list(spill_problems(read_reports({"norm": text}), {90}, allowed)), expected) for text, expected in (
        (report(kernel, 90, 8, 8, 8), []),
        (report(kernel, 90, 16, 12, 8), ["spills 12 bytes and loads 8, (8, 8) are allowed"]),
        (report("_Z1gv", 90, 16, 0, 0) + report(kernel, 90, 8, 8, 8), ["g on sm_90 has 16 bytes of stack"]),
        (report(kernel, 90, 0, 0, 0), ["take it out of SPILLS"]),
        (report("_Z1gv", 80, 0, 0, 0), ["take it out of SPILLS", "no report of a kernel for sm_90"]),
    )]  # fmt: skip
    cases += [(list(instruction_problems(ptx_entries(text), {"f<4>"})), expected) for text, expected in (
        (good, []),
        (good.replace("],16,", "],4,"), ["f<4> has no copies of 16 bytes"]),
        (good.replace("mma.sync", "fma"), ["f<4> has no products by tensor cores"]),
        ("", ["there is no kernel f<4>"]),
    )]  # fmt: skip
    for found, expected in cases:
        if len(found) != len(expected) or any(part not in problem for part, problem in zip(expected, found)):
            sys.exit(f"self-test: {expected} was expected, found {found}")
    print(f"{len(cases)} planted reports were judged rightly")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", default="", help="of all .cu files, with colons")
    parser.add_argument("--ptx", default="", help="of attention's tensor-core kernels, one file an architecture and source, with colons")
    parser.add_argument("--architectures", default="", help="those of the build, with commas")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    reports = {re.search(r"\.dir/(?:\./)?cuda/(?:kernels/)?(.+)\.cu\.o$", path).group(1): pathlib.Path(path + ".ptxas").read_text()
               for path in arguments.objects.split(":")}  # fmt: skip
    architectures = {int(re.match(r"\d+", name).group()) for name in arguments.architectures.split(",")}
    kernels = read_reports(reports)
    found = list(spill_problems(kernels, architectures, SPILLS))
    by_folder = {}
    for path in map(pathlib.Path, filter(None, arguments.ptx.split(":"))):
        by_folder.setdefault(path.parent.as_posix(), {}).update(ptx_entries(path.read_text()))
    for entries in by_folder.values():
        found += instruction_problems(entries, TENSOR_CORE_KERNELS)
    if len(by_folder) != len(architectures):
        found.append(f"PTX of {len(by_folder)} architectures, not of {len(architectures)}")
    if arguments.list:
        for file, name, architecture, frame, stores, loads, registers in sorted(kernels):
            print(f"{file:<24}{name[:90]:<92}sm_{architecture:<5}{registers:>4} registers, spills {stores}")
    print("\n".join(found) or f"{len(kernels)} kernels on {len(architectures)} architectures: no spills beyond {len(SPILLS)} with a reason; attention's instructions are there")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
