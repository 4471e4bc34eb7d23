#!/usr/bin/env python3
"""Draws loss and throughput of one or more runs from their log.jsonl. A run may still be running.

tools/plot_run.py RUN... -o PICTURE.png [--csv TABLE.csv]     RUN: a run directory or a log.jsonl
"""
import argparse
import csv
import pathlib
import sys

from python_modules import need

need("matplotlib", "numpy")
import numpy as np  # noqa: E402

from pictures import plt  # noqa: E402
from run_data import label as legend, read_runs, smooth  # noqa: E402

COLUMNS = ["step", "tokens", "loss", "val_loss", "lr", "grad_norm", "step_s", "tokens_per_s"]


def draw(runs, output):
    figure, (loss_axes, rate_axes) = plt.subplots(
        2, 1, sharex=True, figsize=(9, 6.5), height_ratios=[2, 1], layout="constrained"
    )
    for index, run in enumerate(runs):
        colour = f"C{index}"
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        steps, loss = run.series("loss")
        window = max(1, len(loss) // 50)
        loss_axes.plot(steps, loss, color=colour, alpha=0.25, linewidth=0.8)
        label = f"{prefix}training" + (f" (mean of {2 * (window // 2) + 1} steps)" if window > 1 else "")
        loss_axes.plot(steps, smooth(loss, window), color=colour, linewidth=1.6, label=legend(label))
        steps, validation = run.series("val_loss")
        if len(validation):
            shade = "C3" if len(runs) == 1 else colour
            loss_axes.plot(steps, validation, "o--", color=shade, markersize=4, linewidth=1,
                           label=legend(f"{prefix}validation"))
        steps, rate = run.series("tokens_per_s")
        if len(rate):
            rate_axes.plot(steps, rate, color=colour, alpha=0.25, linewidth=0.8)
            middle = f"{prefix}median {np.median(rate):,.0f} tokens/s"
            rate_axes.plot(steps, smooth(rate, window), color=colour, linewidth=1.6, label=legend(middle))
        for number, (step, text) in enumerate(run.restarts()):
            style = dict(color="black" if len(runs) == 1 else colour, linestyle=":", linewidth=1.2)
            shown = legend(prefix + text) if number < 3 else None  # every restart has a line, the first three a legend
            loss_axes.axvline(step, label=shown, **style)
            rate_axes.axvline(step, **style)
    loss_axes.set_ylabel("loss (nats per token)")
    loss_axes.set_title("Switchyard: " + ", ".join(run.name for run in runs))
    rate_axes.set_ylabel("tokens/s")
    rate_axes.set_xlabel("step")
    rate_axes.set_ylim(bottom=0)
    for axes in (loss_axes, rate_axes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    figure.savefig(output, dpi=120)


def write_csv(runs, output):
    with open(output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["run", *COLUMNS], extrasaction="ignore", restval="")
        writer.writeheader()
        for run in runs:
            writer.writerows({"run": run.name, **step} for step in run.steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN")
    parser.add_argument("-o", "--output", default="run.png", help="picture to write (default: run.png)")
    parser.add_argument("--csv", help="also write the steps as a table")
    arguments = parser.parse_args()
    runs = read_runs(arguments.runs)
    try:
        draw(runs, arguments.output)
        if arguments.csv:
            write_csv(runs, arguments.csv)
    except (OSError, ValueError) as problem:  # matplotlib's for an ending that it does not know
        sys.exit(f"plot_run.py: {problem} (nothing was written there); give another -o or --csv")
    for run in runs:
        last = run.steps[-1]
        validation = run.series("val_loss")[1]
        print(
            f"{run.name}: step {last['step']}, loss {run.series('loss')[1][-1]:.3f}"
            + (f", validation {validation[-1]:.3f}" if len(validation) else "")
            + f", {len(run.restarts())} restart(s) -> {arguments.output}"
        )


if __name__ == "__main__":
    main()
