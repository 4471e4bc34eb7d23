"""Makes one row per point from the logs of a study's runs: medians over repetitions, of the main loop only."""
import math
import statistics

from run_data import Run
from study_files import read_json

COLUMNS = ["series", "method", "model", "dtype", "ranks", "dp", "tp", "threads", "tokens_per_step", "repetitions", "steps", "step_s",
           "step_s_low", "step_s_high", "tokens_per_s", "mfu", "data_s", "forward_s", "backward_s", "communication_s", "optimizer_s",
           "switching_s", "cores", "sent_bytes", "sent_bytes_planned", "memory_bytes", "memory_bytes_planned", "process_bytes", "revisions", "processors"]
SPREAD = ["step_s", "phases_s", "sent_bytes", "memory_bytes", "process_bytes"]  # with _low and _high over repetitions
PHASES = ["data", "forward", "backward", "communication", "optimizer", "switching"]


def run_figures(study, run):
    """Medians over the counted steps of one finished run."""
    steps = [s for s in run.steps if s["step"] > study.drop_steps]
    median = lambda values: statistics.median(values) if values else 0.0  # noqa: E731
    figures = {"steps": len(steps), "step_s": median([s["step_s"] for s in steps]), "mfu": median([s.get("mfu", 0.0) for s in steps]),
               "sent_bytes": statistics.mean(sum(s.get("bytes", {}).values()) for s in steps)}
    for phase in PHASES:
        figures[f"{phase}_s"] = median([s.get("phases", {}).get(phase, 0.0) for s in steps])
    figures["phases_s"] = sum(figures[f"{phase}_s"] for phase in PHASES)
    figures["cores"] = cores_of(run.environment())
    memory = (run.last_event("finish") or {}).get("memory", {})
    figures["memory_bytes"] = memory.get("arena", {}).get("total", 0)
    figures["process_bytes"] = memory.get("process", 0)
    start = next((e for e in run.events if e["event"] == "start"), {})
    return figures | {"dp": start.get("dp", 0), "tp": start.get("tp", 0), "tokens_per_step": steps[0]["tokens"] / steps[0]["step"]}


def cores_of(environment):
    """The number of distinct cores that the ranks of a run could use, over all hosts; 0 if not known."""
    cores = set()
    for rank in environment.get("ranks", []):
        for part in filter(None, str(rank.get("cores", "")).split(",")):
            first, _, last = part.partition("-")
            cores |= {(rank.get("host"), core) for core in range(int(first), int(last or first) + 1)}
    return len(cores)


def collect(study):
    """Rows of all points with at least one finished run, in the order of the study; not a number where a plan is missing,
    or counted other steps."""
    plans = read_json(study.dir / "plans.json")
    groups = {}
    for point in study.points:
        if point.state(study) == "done":
            groups.setdefault((point.series, point.ranks), []).append(point)
    rows = []
    for (series, ranks), points in groups.items():
        runs = [Run(p.run(study)) for p in points]
        figures, environments = [run_figures(study, r) for r in runs], [r.environment() for r in runs]
        row = {key: statistics.median(f[key] for f in figures) for key in figures[0]}
        for key in SPREAD:
            row |= {f"{key}_low": min(f[key] for f in figures), f"{key}_high": max(f[key] for f in figures)}
        plan = (plans.get(points[0].name) or {}).get("plan") or {}
        counted = plan.get("counted_bytes", math.nan) if plan.get("drop_steps") == study.drop_steps else math.nan
        rows.append(row | {
            "series": series, "method": points[0].setting("method.name"), "model": points[0].setting("model.preset"),
            "dtype": points[0].setting("run.dtype"), "ranks": ranks, "threads": points[0].threads, "repetitions": len(runs),
            "problem": points[0].problem, "tokens_per_s": row["tokens_per_step"] / row["step_s"],
            "sent_bytes_planned": counted,
            "memory_bytes_planned": plan.get("memory", {}).get("total", math.nan),
            "revisions": ", ".join(sorted({e.get("revision", "-") for e in environments})),
            "processors": ", ".join(sorted({e.get("cpu", "-") for e in environments}))})
    return rows
