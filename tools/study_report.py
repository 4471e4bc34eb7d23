"""The page of a scaling study: time, throughput, efficiency, phases, bytes and memory by ranks, and where efficiency is lost."""
import math

import matplotlib.ticker
import numpy as np

from html_page import Page, bytes_text
from pictures import plt
from run_data import label as legend
from study_results import PHASES

PHASE_WORDS = {"communication": "communication that was not hidden"}


def by_series(rows):
    """{series: rows by ranks}"""
    series = {}
    for row in rows:
        series.setdefault(row["series"], []).append(row)
    return {name: sorted(members, key=lambda r: r["ranks"]) for name, members in series.items()}


def base_of(row, rows):
    """The base of a point: the fastest point of the same problem on the fewest ranks, in any layout."""
    same = [r for r in rows if all(r[k] == row[k] for k in ("problem", "method", "model", "dtype", "threads"))]
    fewest = min(r["ranks"] for r in same)
    return max((r for r in same if r["ranks"] == fewest), key=lambda r: r["tokens_per_s"])


def efficiency(row, rows):
    """Throughput per rank relative to the base: t1 N1 / (tN N) in strong scaling, t1 / tN in weak."""
    base = base_of(row, rows)
    return row["tokens_per_s"] / row["ranks"] / (base["tokens_per_s"] / base["ranks"])


def ideal_step_s(row, rows):
    base = base_of(row, rows)
    return base["step_s"] * (row["tokens_per_step"] / row["ranks"]) / (base["tokens_per_step"] / base["ranks"])


def losses(row, rows):
    """[(phase, seconds of a step beyond the ideal share of the base)], largest first."""
    base = base_of(row, rows)
    share = (row["tokens_per_step"] / row["ranks"]) / (base["tokens_per_step"] / base["ranks"])
    return sorted(((phase, row[f"{phase}_s"] - base[f"{phase}_s"] * share) for phase in PHASES), key=lambda x: -x[1])


def ranks_text(ranks):
    return f"{ranks} rank{'s' if ranks > 1 else ''}"


def ms(seconds):
    """Milliseconds with three digits or more."""
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"


def named_in(rows, key):
    """The revisions or processors that ran any of the points."""
    return sorted({name for row in rows for name in row[key].split(", ")})


def sentences(rows):
    """Sentences on where efficiency is lost at the largest rank count of every series, and on doubtful figures."""
    lines = []
    for name, members in by_series(rows).items():
        last, base = members[-1], base_of(members[-1], rows)
        if last["ranks"] == base["ranks"]:
            continue
        lost = last["step_s"] - ideal_step_s(last, rows)
        text = (f"{name}: on {last['ranks']} ranks {efficiency(last, rows):.0%} of the throughput per rank on {base['ranks']} "
                f"({ms(last['step_s'])} a step, {ms(ideal_step_s(last, rows))} would be ideal).")
        if lost > 0:
            parts = [f"{ms(s)} in {PHASE_WORDS.get(phase, phase)}" for phase, s in losses(last, rows) if s > 0.05 * lost][:3]
            text += f" Of the {ms(lost)} lost, " + ", ".join(parts) + "." if parts else ""
        else:
            text += " Nothing is lost."
        lines.append(text)
    crowded = [r for r in rows if 0 < r["cores"] < r["ranks"] * r["threads"]]
    if crowded:
        where = ", ".join(dict.fromkeys(f"{ranks_text(r['ranks'])} x {r['threads']} on {r['cores']:.0f}" for r in crowded))
        lines.append(f"Some points share cores ({where} cores): they show sharing, not scaling.")
    for key, what in (("revisions", "revisions of the program"), ("processors", "kinds of processors")):
        found = named_in(rows, key)
        if len(found) > 1:
            lines.append(f"The points were run by several {what} ({', '.join(found)}): differences between them may be theirs.")
    spreads = [(r, (r["step_s_high"] - r["step_s_low"]) / r["step_s"]) for r in rows]
    wide = [f"{spread:.0%} ({r['series']}, {ranks_text(r['ranks'])})" for r, spread in spreads if spread > 0.1]
    if wide:
        lines.append(f"Repetitions differ by {', '.join(wide)}. Differences smaller than that mean nothing.")
    return lines


def rank_axes(height=4.0):
    figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.set_xlabel("ranks")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def line_figure(rows, value, low_high, ideal, ylabel, scale="log"):
    """One line per series with its spread; `ideal` (row -> value, or None) is drawn dashed."""
    figure, axes = rank_axes()
    for number, (name, members) in enumerate(by_series(rows).items()):
        ranks, values = [r["ranks"] for r in members], np.array([value(r) for r in members])
        limits = np.array([low_high(r) for r in members]).T
        spread = np.maximum(0, [values - limits[0], limits[1] - values])  # rounding may make it negative
        axes.errorbar(ranks, values, yerr=spread, color=f"C{number}", marker="o", capsize=3, label=legend(name))
        if ideal:
            axes.plot(ranks, [ideal(r) for r in members], "--", color=f"C{number}", linewidth=1, alpha=0.7)
    if ideal:
        axes.plot([], [], "--", color="grey", label="ideal")
    axes.set_yscale(scale)
    if scale == "log":
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))  # decades alone would leave one number
        axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({r["ranks"] for r in rows}), minor=False)
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False, fontsize=9)
    return figure


def spread_of(rows, key, values, factor):
    """[below, above] for error bars; rounding may make them negative."""
    low, high = (factor * np.array([r[f"{key}_{end}"] for r in rows]) for end in ("low", "high"))
    return np.maximum(0, [values - low, high - values])


def predicted_text(value):
    return "missing" if math.isnan(value) else bytes_text(value)


def phases_figure(rows):
    labels = [f"{r['series']}\n{ranks_text(r['ranks'])}" for r in rows]
    figure, axes = plt.subplots(figsize=(9, 1.0 + 0.42 * len(rows)), layout="constrained")
    left = np.zeros(len(rows))
    for phase in PHASES:
        width = 1e3 * np.array([r[f"{phase}_s"] for r in rows])
        axes.barh(range(len(rows)), width, left=left, label=phase)
        left += width
    axes.errorbar(left, range(len(rows)), xerr=spread_of(rows, "phases_s", left, 1e3), fmt="none", ecolor="black", capsize=3)
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time of a step (ms)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, ncols=len(PHASES), loc="lower center", bbox_to_anchor=(0.45, 1.0))
    return figure


def pair_figure(rows, planned, measured, ylabel):
    """Predicted beside measured values, one pair of bars per point; `measured`: (label, key) of each."""
    figure, axes = plt.subplots(figsize=(9, 4.0), layout="constrained")
    bars = [("predicted", planned), *measured]
    for i, (label, key) in enumerate(bars):
        values = np.array([r[key] / 2**20 for r in rows])
        axes.bar(np.arange(len(rows)) + (i - (len(bars) - 1) / 2) * 0.8 / len(bars), values, 0.8 / len(bars), label=label,
                 yerr=None if key == planned else spread_of(rows, key, values, 2**-20), capsize=2)
    axes.set_xticks(range(len(rows)), [f"{r['series']}; {ranks_text(r['ranks'])}" for r in rows], rotation=35, ha="right", fontsize=8)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, ncols=len(bars), loc="lower center", bbox_to_anchor=(0.5, 1.0))  # bars may reach the top
    return figure


def write_report(study, rows):
    page = Page(f"Switchyard: scaling study {study.dir.name}",
                f"{study.kind.capitalize()} scaling, {len(rows)} points, medians over up to {max(r['repetitions'] for r in rows)} "
                f"repetitions; the first {study.drop_steps} steps of a run do not count, evaluation and saving neither. "
                f"Run by {', '.join(named_in(rows, 'revisions'))}.")
    page.heading("Where efficiency goes")
    page.bullets(sentences(rows))
    page.heading("Time")
    page.table(["point", "ranks", "dp x tp", "threads", "tokens a step", "ms a step (lowest to highest)", "tokens/s", "efficiency", "MFU"],
               [[r["series"], r["ranks"], f"{r['dp']:.0f} x {r['tp']:.0f}", r["threads"], f"{r['tokens_per_step']:,.0f}",
                 f"{1e3 * r['step_s']:.4g} ({1e3 * r['step_s_low']:.4g} to {1e3 * r['step_s_high']:.4g})", f"{r['tokens_per_s']:,.0f}",
                 f"{efficiency(r, rows):.0%}", f"{r['mfu']:.3f}"] for r in rows])
    tokens = lambda r, seconds: r["tokens_per_step"] / seconds  # noqa: E731
    base_rate = lambda r: base_of(r, rows)["tokens_per_s"] / base_of(r, rows)["ranks"] * r["ranks"]  # noqa: E731
    page.figure(line_figure(rows, lambda r: 1e3 * r["step_s"], lambda r: (1e3 * r["step_s_low"], 1e3 * r["step_s_high"]),
                            lambda r: 1e3 * ideal_step_s(r, rows), "ms a step"),
                "Time of a step against ranks; bars: lowest and highest repetition. Ideal: the fastest layout on the fewest ranks, divided evenly.",
                study.dir / "step_time.png")
    page.figure(line_figure(rows, lambda r: r["tokens_per_s"], lambda r: (tokens(r, r["step_s_high"]), tokens(r, r["step_s_low"])), base_rate,
                            "tokens/s"), "Throughput of all ranks together; bars: lowest and highest repetition.", study.dir / "throughput.png")
    scaled = lambda r, seconds: efficiency(r, rows) * r["step_s"] / seconds  # noqa: E731
    page.figure(line_figure(rows, lambda r: efficiency(r, rows), lambda r: (scaled(r, r["step_s_high"]), scaled(r, r["step_s_low"])),
                            lambda r: 1.0, "efficiency", "linear"),
                "Throughput per rank relative to the fewest ranks; bars: lowest and highest repetition.", study.dir / "efficiency.png")
    page.figure(phases_figure(rows), "Time of a step by part, medians; bars: lowest and highest repetition.", study.dir / "phases.png")
    page.heading("Communication and memory")
    page.figure(pair_figure(rows, "sent_bytes_planned", [("measured", "sent_bytes")], "MiB sent by rank 0 in a step"),
                "Bytes that rank 0 sends in a step, mean of the counted steps; bars: lowest and highest repetition.", study.dir / "bytes.png")
    page.figure(pair_figure(rows, "memory_bytes_planned", [("measured, arena", "memory_bytes"), ("measured, process less start-up", "process_bytes")],
                            "MiB of rank 0"), "Memory of rank 0; bars: lowest and highest repetition.", study.dir / "memory.png")
    page.table(["point", "ranks", "sent a step, predicted", "measured", "memory, predicted", "arena", "process"],
               [[r["series"], r["ranks"], predicted_text(r["sent_bytes_planned"]), bytes_text(r["sent_bytes"]),
                 predicted_text(r["memory_bytes_planned"]), bytes_text(r["memory_bytes"]), bytes_text(r["process_bytes"])] for r in rows])
    page.heading("Study")
    page.details(str(study.path), study.path.read_text(encoding="utf-8", errors="replace"))
    page.write(study.dir / "report.html")
