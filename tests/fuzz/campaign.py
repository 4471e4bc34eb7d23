#!/usr/bin/env python3
"""Fuzzes every target for an equal share of the time, with libFuzzer if clang has it, else with the seeded mutator.

    campaign.py --build=DIRECTORY [--seconds=3600] [--seed=N]

Prints a line for each target, as in docs/robustness.md; exits with 1 when an input did harm (it is kept in
DIRECTORY/fuzz). Targets whose files are parsed in child processes (HDF5) always use the mutator, because libFuzzer does
not see the coverage of a child.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
IN_CHILDREN = {"checkpoint", "checkpoint_repaired", "token_file", "token_file_repaired"}


def clang_with_fuzzer():
    """A clang++ that links libFuzzer, or None."""
    probe = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'
    for name in ["clang++", *(f"clang++-{version}" for version in range(22, 13, -1))]:
        if not shutil.which(name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [name, "-x", "c++", "-", "-fsanitize=fuzzer,address", "-o", f"{folder}/probe"]
            if subprocess.run(command, input=probe, text=True, capture_output=True).returncode == 0:
                return name
    return None


def build_libfuzzer(compiler):
    folder = ROOT / "build" / "fuzz"
    configure = ["cmake", "--preset", "fuzz", f"-DCMAKE_CXX_COMPILER={compiler}"]
    build = ["cmake", "--build", folder, "--target", "fuzz_libfuzzer", "--parallel", str(os.cpu_count())]
    for command in (configure, build):
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stdout[-4000:]}{result.stderr[-4000:]}")
    return folder / "tests" / "fuzz_libfuzzer"


def run_mutator(build, target, seconds, seed, folder):
    command = [build / "tests" / "fuzz", target, f"--seconds={seconds}", f"--seed={seed}"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = re.search(r": (\d+) inputs", result.stdout)
    return result.returncode, int(found[1]) if found else 0, result.stdout + result.stderr


def run_libfuzzer(binary, target, seconds, seed, folder):
    corpus, seeds = folder / "corpus" / target, folder / "seeds" / target
    corpus.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "SWITCHYARD_FUZZ_TARGET": target, "SWITCHYARD_FUZZ_SEEDS": str(seeds),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    seeds.mkdir(parents=True, exist_ok=True)
    command = [binary, corpus, seeds, f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=30", "-rss_limit_mb=4096",
               "-max_len=65536", "-print_final_stats=1", f"-artifact_prefix={folder}/{target}-", "-close_fd_mask=1"]  # fmt: skip
    subprocess.run([binary, "-runs=0"], env=environment, cwd=folder, capture_output=True)  # writes the seeds
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, errors="replace")
    found = re.search(r"stat::number_of_executed_units: (\d+)", result.stderr)
    return result.returncode, int(found[1]) if found else 0, result.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    names = subprocess.run([build / "tests" / "fuzz", "--list"], capture_output=True, text=True, check=True).stdout.split()
    compiler = clang_with_fuzzer()
    binary = build_libfuzzer(compiler) if compiler else None
    folder = build / "fuzz"
    folder.mkdir(exist_ok=True)
    share, failures = max(1, int(arguments.seconds / len(names))), 0
    print(f"seed {arguments.seed}, {share} s for each target\n\n| target | engine | inputs | harm |\n|---|---|---|---|")
    for name in names:
        if binary and name not in IN_CHILDREN:
            engine, (code, inputs, text) = "libFuzzer", run_libfuzzer(binary, name, share, arguments.seed, folder)
        else:
            engine, (code, inputs, text) = "mutator", run_mutator(build, name, share, arguments.seed, folder)
        print(f"| {name} | {engine} | {inputs:,} | {'none' if code == 0 else 'YES'} |", flush=True)
        if code != 0:
            failures += 1
            print(text[-6000:], flush=True)
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
