"""What each method needs at the sizes that people train: the table of tools/compare_methods.py --plans, all of it from `switchyard plan`."""
import argparse
import json

import method_rows
import method_runs

SIZES = "1b:1,1b:16,7b:64"  # presets, and data-parallel ranks
SETTINGS = {"run.dtype": "bf16", "model.vocab_size": "32000", "model.recompute": "true", "data.seq_len": "2048", "data.micro_batch": "1",
            "data.global_batch": "512"}
GIB = 2**30


def sizes(text):
    """[(preset, ranks)] of an argument like SIZES."""
    try:
        return [(preset, int(ranks)) for preset, ranks in (size.split(":") for size in text.split(","))]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of SIZE:RANKS (each size is planned for a number of ranks); example: {SIZES}") from None


def planned(program, method, preset, ranks, *more):
    settings = {"model.preset": preset, "method.name": method} | SETTINGS
    words = ["plan", "--json", f"--ranks={ranks}", *(f"--{key}={value}" for key, value in settings.items()), *more]
    result = method_runs.run_program(program, *words)
    if result.returncode:
        raise SystemExit(f"{method}: the plan for {preset} failed: {result.stderr.strip()[-300:]}")
    return json.loads(result.stdout)


def needs(plan):
    """[GiB of the largest rank, GiB a rank sends a step], as text."""
    return [f"{plan['largest_memory']['total'] / GIB:.1f}", f"{sum(plan['bytes_mean'].values()) / GIB:.2f}"]


def line(program, method, preset, ranks):
    plan = planned(program, method, preset, ranks)
    flops = plan["flops_per_step"]
    sharded = ["", ""]
    if plan["largest_memory"]["frozen"] and ranks > 1:
        sharded = needs(planned(program, method, preset, ranks, "--parallel.shard_frozen=true"))
    return [method, f"{plan['parameters']['trainable'] / 1e9:.2f}", *needs(plan), *sharded, f"{flops['executed'] / flops['dense']:.2f}"]


def tables(program, methods, wanted):
    """Markdown, one table for each (preset, ranks)."""
    lines = []
    for preset, ranks in wanted:
        lines += [f"`{preset}` on {ranks} data-parallel rank{'s' if ranks > 1 else ''}; values trained in thousands of millions; memory of the largest rank and what it sends a step, "
                  "mean of the first 100, in GiB, then both with `parallel.shard_frozen`; operations over those of a dense step without recomputation:", "",
                  *method_rows.table(["method", "trained", "memory", "sent", "memory, sharded", "sent, sharded", "operations"],
                                     [line(program, method, preset, ranks) for method in methods])]
    return "\n".join(lines)
