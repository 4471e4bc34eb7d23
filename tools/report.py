#!/usr/bin/env python3
"""Writes one self-contained HTML page about one or several runs; a run may still be going.

tools/report.py RUN... [-o report.html]      RUN: a run directory
"""
import argparse
import pathlib
import sys

from python_modules import need

need("matplotlib", "numpy")
import numpy as np  # noqa: E402

from html_page import Page, bytes_text, count_text, duration_text  # noqa: E402
from pictures import plt  # noqa: E402
from run_data import is_number, label, read_runs, shown, smooth  # noqa: E402

MOST_POINTS = 2000  # of one curve
LOCAL_KEYS = {"run.dir", "data.tokens"}  # places, which do not change what is trained


def thinned(x, y):
    """At most MOST_POINTS points, the last one kept."""
    stride = max(1, -(-len(x) // MOST_POINTS))
    keep = np.arange(len(x) - 1, -1, -stride)[::-1]
    return x[keep], y[keep]


def training_seconds(run):
    """Seconds spent in steps up to each logged step, by step; pauses between restarts do not count."""
    total, result = 0.0, {}
    for step in run.steps:
        total += step.get("step_s", 0.0)
        result[step["step"]] = total
    return result


def median(run, key):
    values = run.series(key)[1]
    return float(np.median(values)) if len(values) else None


def show(value, format_text="{:.4g}"):
    return "-" if value is None else format_text.format(value)


def steps_text(step, steps):
    return f"{step:,} of {int(steps):,}" if steps.isascii() and steps.isdigit() else f"{step:,}"


def layouts(run):
    """dp x tp of every part of the run, in order."""
    parts = [f"{e['dp']} x {e['tp']}" for e in run.events if e["event"] in ("start", "resume") and "dp" in e]
    return ", ".join(p for i, p in enumerate(parts) if i == 0 or p != parts[i - 1]) or "-"


def summary_rows(runs):
    def column(run):
        last, settings, status = run.steps[-1], run.settings(), run.status()
        validation = run.series("val_loss")[1]
        seconds = training_seconds(run)[last["step"]]
        return {
            "method": settings.get("method.name", "-"),
            "model": settings.get("model.preset", "-"),
            "type": settings.get("run.dtype", "-"),
            "layout (dp x tp)": layouts(run),
            "state": status.get("outcome", "-") + (f" ({status['reason']})" if status.get("reason") else ""),
            "steps": steps_text(last["step"], settings.get("run.steps", "")),
            "tokens": count_text(last.get("tokens", 0)),
            "loss (mean of the last 20)": f"{np.mean(run.series('loss')[1][-20:]):.4f}",
            "validation loss, last": show(validation[-1] if len(validation) else None, "{:.4f}"),
            "validation loss, best": show(validation.min() if len(validation) else None, "{:.4f}"),
            "tokens/s, median": show(median(run, "tokens_per_s"), "{:,.0f}"),
            "MFU, median (dense / executed)": f"{show(median(run, 'mfu'), '{:.3f}')} / {show(median(run, 'mfu_executed'), '{:.3f}')}",
            "time in steps": duration_text(seconds),
            "restarts": len(run.restarts()),
            "checkpoints saved": sum(e["event"] == "save" for e in run.events),
            "code": run.environment().get("revision", "-"),
        }

    columns = [column(run) for run in runs]
    return [[name, *(c[name] for c in columns)] for name in columns[0]]


def new_figure(height=3.6, **options):
    return plt.subplots(figsize=(9, height), layout="constrained", **options)


def finish(axes, xlabel, ylabel):
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)


def mark_restarts(axes, run, colour, position):
    for number, (step, text) in enumerate(run.restarts()):
        axes.axvline(position(step), color=colour, linestyle=":", linewidth=1.1,
                     label=label(f"{run.name}: {text}") if number < 3 else None)


def loss_figure(runs, xlabel, position):
    """position(run) maps a step to the horizontal axis."""
    figure, axes = new_figure(4.2)
    for index, run in enumerate(runs):
        at, colour = position(run), f"C{index}"
        steps, loss = run.series("loss")
        x = np.array([at(s) for s in steps])
        window = max(1, len(loss) // 50)
        axes.plot(*thinned(x, loss), color=colour, alpha=0.2, linewidth=0.7)
        axes.plot(*thinned(x, smooth(loss, window)), color=colour, label=label(f"{run.name}: training"))
        steps, validation = run.series("val_loss")
        if len(validation):
            axes.plot([at(s) for s in steps], validation, "o--", color=colour, markersize=4, linewidth=1,
                      markerfacecolor="white", label=label(f"{run.name}: validation"))
        mark_restarts(axes, run, colour, at)
    finish(axes, xlabel, "loss (nats per token)")
    return figure


def steps_figure(runs, key, ylabel, scale="linear", smoothed=False):
    """A figure of the runs that have the key with other values than 0; None if there is no such run."""
    figure, axes = new_figure(2.8)
    drawn = False
    for index, run in enumerate(runs):
        steps, values = run.series(key)
        if not values.any():
            continue
        drawn, colour = True, f"C{index}"
        if smoothed:
            axes.plot(*thinned(steps, values), color=colour, alpha=0.25, linewidth=0.7)
            values = smooth(values, max(1, len(values) // 50))
        axes.plot(*thinned(steps, values), color=colour, label=label(run.name))
        mark_restarts(axes, run, colour, lambda step: step)
    axes.set_yscale(scale)
    finish(axes, "step", ylabel)
    return figure if drawn else None


def phases_figure(runs):
    names = list(dict.fromkeys(name for run in runs for step in run.steps for name in step.get("phases", {})))
    if not names:
        return None
    figure, axes = new_figure(1.2 + 0.5 * len(runs))
    left = np.zeros(len(runs))
    for name in names:
        mean = np.array([np.mean([s["phases"].get(name, 0.0) for s in run.steps if "phases" in s] or [0.0]) for run in runs])
        axes.barh([run.name for run in runs], 1e3 * mean, left=1e3 * left, label=label(name))
        left += mean
    axes.invert_yaxis()
    finish(axes, "mean time of a step (ms)", "")
    axes.legend(frameon=False, fontsize=9, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, 1.25 if len(runs) == 1 else 1.15))
    return figure


def bytes_rows(runs):
    names = list(dict.fromkeys(name for run in runs for step in run.steps for name in step.get("bytes", {})))
    mean = lambda run, name: np.mean([s["bytes"].get(name, 0) for s in run.steps if "bytes" in s] or [0])  # noqa: E731
    return [[name, *(bytes_text(mean(run, name)) for run in runs)] for name in names]


def memory_rows(run):
    event = run.last_event("finish")
    memory = event.get("memory", {}) if event else {}
    planned, arena = (memory.get(key) if isinstance(memory.get(key), dict) else {} for key in ("planned", "arena"))
    rows = [[name, bytes_text(planned[name]), bytes_text(arena.get(name, 0))] for name in planned if planned[name]]
    if is_number(memory.get("process")) and memory["process"]:
        rows.append(["process less start-up", bytes_text(planned.get("total", 0)), bytes_text(memory["process"])])
    return rows


def event_rows(runs):
    def details(event):
        if event["event"] == "resume":
            return "; ".join([event.get("checkpoint", ""), *event.get("changes", [])])
        return event.get("reason") or event.get("checkpoint") or ""

    shown = [(run.name, e) for run in runs for e in run.events if e["event"] != "save"]
    return [[name, e.get("time", ""), e["event"], e["step"], layout_of(e), details(e)] for name, e in shown]


def layout_of(event):
    return f"{event['dp']} x {event['tp']}" if "dp" in event else ""


def settings_rows(runs):
    """(rows of the settings in which runs differ, numbers of the rows that say what was trained)."""
    settings = [run.settings() for run in runs]
    keys = [k for k in dict.fromkeys(k for s in settings for k in s) if len({s.get(k) for s in settings}) > 1]
    return [[key, *(s.get(key, "-") for s in settings)] for key in keys], [i for i, k in enumerate(keys) if k not in LOCAL_KEYS]


def switching_sections(page, runs):
    counts = steps_figure(runs, "vectors_switched", "vectors switched per step")
    if not counts:
        return
    page.heading("Switches")
    page.figure(counts, "Vectors switched in each step, both sides of all matrices.")
    residual = steps_figure(runs, "residual", "relative residual", "log")
    if residual:
        page.figure(residual, "Largest change of the effective weight at a switch, relative to its largest value, on the "
                              "matrix sampled in that step. Rounding is near 1e-7 in f32 and bf16 runs; a run stops by itself "
                              "when a switch changes the function.")
    rows = [[run.name, f"{int(run.series('vectors_switched')[1].sum()):,}", f"{int(run.series('moments_reset')[1].sum()):,}",
             show(max(run.series("residual")[1], default=None), "{:.2e}")] for run in runs]
    page.table(["run", "vectors switched", "moments reset", "largest residual"], rows)


def state_of(runs):
    """Which runs have not ended, in a sentence; empty when all have."""
    running = [run for run in runs if run.says_running()]
    going = ["Written while training was going on."] if any(run.shows_life() for run in running) else []
    dead = [f"{run.name} ended without a word: its status says running, but nothing holds its directory."
            for run in running if not run.shows_life()]
    return " ".join(going + dead)


def write_report(runs, output):
    names = ", ".join(run.name for run in runs)
    page = Page(f"Switchyard: {names}", state_of(runs))
    page.table(["", *(run.name for run in runs)], summary_rows(runs))

    page.heading("Loss")
    tokens = {id(run): {s["step"]: s.get("tokens", 0) for s in run.steps} for run in runs}

    def by_tokens(run):
        per_step = run.steps[-1].get("tokens", 0) / max(1, run.steps[-1]["step"])
        return lambda step: tokens[id(run)].get(step, per_step * step)

    def by_time(run):
        seconds = training_seconds(run)
        return lambda step: seconds.get(step, 0.0) / 60

    page.figure(loss_figure(runs, "tokens", by_tokens), "Loss against tokens. Thin: every step; thick: mean over 2 % of the run.")
    page.figure(loss_figure(runs, "minutes in steps", by_time), "Loss against time spent in steps (evaluation, saving and waiting "
                                                               "between restarts not counted).")
    page.heading("Optimization")
    for key, ylabel, scale, caption in (
        ("lr", "learning rate", "linear", "Learning rate of factors and dense linears."),
        ("grad_norm", "gradient norm", "log", "Global gradient norm before clipping."),
    ):
        figure = steps_figure(runs, key, ylabel, scale, smoothed=key == "grad_norm")
        if figure:
            page.figure(figure, caption)

    page.heading("Speed")
    figure = steps_figure(runs, "tokens_per_s", "tokens/s", smoothed=True)
    if figure:
        figure.axes[0].set_ylim(bottom=0)
        page.figure(figure, "Throughput of each step.")
    figure = phases_figure(runs)
    if figure:
        page.figure(figure, "Where the time of a step goes; communication is what was waited for.")
    rows = bytes_rows(runs)
    if rows:
        page.text("Bytes sent by rank 0 in a step, mean:")
        page.table(["", *(run.name for run in runs)], rows)
    for run in runs:
        rows = memory_rows(run)
        if rows:
            page.text(f"Memory of rank 0, {run.name}:")
            page.table(["", "predicted", "measured"], rows)

    switching_sections(page, runs)

    page.heading("History")
    page.table(["run", "time", "event", "step", "dp x tp", ""], event_rows(runs), text_columns=(0, 1, 2, 5))

    page.heading("Settings")
    if len(runs) > 1:
        rows, marked = settings_rows(runs)
        page.text("Settings that differ; highlighted: what changes the training itself." if rows else "All runs have the same settings.")
        if rows:
            page.table(["key", *(run.name for run in runs)], rows, marked, text_columns=range(1 + len(runs)))
    for run in runs:
        page.details(f"All settings of {run.name}", "\n".join(f"{k} = {v}" for k, v in run.settings().items()) or "no config.cfg")
        environment = run.environment()
        if environment:
            shown = {k: v for k, v in environment.items() if k not in ("ranks", "variables")}
            page.details(f"Environment of {run.name}", "\n".join(f"{k} = {v}" for k, v in shown.items()))
    page.write(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN")
    parser.add_argument("-o", "--output", default="report.html", help="page to write (default: report.html)")
    arguments = parser.parse_args()
    runs = read_runs(arguments.runs)
    for run in runs:  # runs of the same name are told apart by their folders
        if sum(other.name == run.name for other in runs) > 1:
            run.full_name = shown(run.folder)
    for run in runs:
        run.name = getattr(run, "full_name", run.name)
    try:
        write_report(runs, arguments.output)
    except OSError as problem:
        sys.exit(f"report.py: {problem} (nothing was written there); give another -o")
    print(f"{len(runs)} run(s), {sum(len(run.steps) for run in runs):,} steps -> {arguments.output}")


if __name__ == "__main__":
    main()
