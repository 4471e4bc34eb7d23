"""A scaling study as data: the configuration with lists, its expansion into points, and the folder of each point."""
import dataclasses
import itertools
import json
import math
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = pathlib.Path(os.environ.get("SWITCHYARD_PROGRAM", ROOT / "build/release/switchyard"))
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

# Keys of section [study] with their defaults; lists are marked by their type.
STUDY_KEYS = {
    "kind": "strong",        # strong: the problem stays the same; weak: data.global_batch grows with the ranks
    "ranks": [],             # required
    "threads": ["1"],        # per rank
    "repetitions": "3",
    "drop_steps": "5",       # first steps of a run that do not count
    "dir": "",               # required: where points, tables and pages go
    "node_memory": "",       # of a node, for instance 256GiB; empty: this machine's
    "ranks_per_node": "",    # empty: all on one node
    "time_limit": "30",      # minutes of one point, for Slurm
}
LAYOUT_KEYS = ("parallel.tp", "parallel.dp")
FIXED_RUN_KEYS = {"run.eval_interval": "0", "run.save_interval": "0"}


class StudyError(Exception):
    """An error in a study, with a message for its user."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a study; `settings` are ("section.key", value) pairs as the program takes them."""

    name: str
    ranks: int
    threads: int
    repetition: int
    settings: tuple
    series: str  # name of its line in a picture: everything that varies except ranks and repetition
    problem: str = ""  # everything that varies except the layout; only points of one problem are compared

    def folder(self, study):
        return study.dir / "points" / self.name

    def run(self, study):
        return self.folder(study) / "run"

    def setting(self, key, default=""):
        return dict(self.settings).get(key, default)

    def length(self):
        """Steps of the run."""
        return int(self.setting("run.stop_step") or self.setting("run.steps"))

    def state(self, study):
        """done, failed, running, or waiting, as the run directory tells."""
        try:
            status = json.loads((self.run(study) / "status.json").read_text())
        except (OSError, ValueError):
            return "failed" if (self.folder(study) / "failed").exists() else "waiting"
        if (status.get("outcome"), status.get("reason")) == ("stopped", "run.stop_step"):
            return "done"
        return {"finished": "done", "running": "running"}.get(status.get("outcome"), "failed")


def settings_of(config):
    """(section.key, value) of a config.cfg without its paths."""
    return {key: value for key, value in as_written(config).items() if key != "run.dir"}


def differences(study, point):
    """The differences between a started point and the present study: ["key was X, is now Y"]."""
    config = point.folder(study) / "config.cfg"
    if not config.exists():
        return []
    then, now = settings_of(config), dict(point.settings)
    try:
        environment = json.loads((point.run(study) / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        environment = {}
    for key, value in (("num_ranks", point.ranks), ("num_threads", point.threads)):
        if key in environment:
            then[key], now[key] = environment[key], value
    return [f"{key} was {then.get(key, 'not set')}, is now {now.get(key, 'not set')}" for key in sorted({*then, *now})
            if then.get(key) != now.get(key)]


def require_same_settings(study):
    """Throws if finished points belong to a different study from the present one."""
    found = {}
    for point in study.points:
        if point.state(study) == "done":
            changed = differences(study, point)
            if changed:
                found.setdefault("; ".join(changed), []).append(point)
    if found:
        text = ". ".join(f"{points[0].name}{f' and {len(points) - 1} more' if len(points) > 1 else ''}: {changed}"
                         for changed, points in found.items())
        raise StudyError(f"{study.path} was edited after points were run. {text}. Set another study.dir for the new settings, restore the old "
                         f"ones, or remove these points' folders in {study.dir / 'points'}")


@dataclasses.dataclass
class Study:
    path: pathlib.Path
    dir: pathlib.Path
    kind: str
    repetitions: int
    drop_steps: int
    node_memory: float  # bytes
    ranks_per_node: int  # 0: all on one
    time_limit: int
    points: list


def bytes_of(text):
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]i?B|B)?\s*", text)
    if not match:
        raise StudyError(f"study.node_memory = {text} is not a size (memory decides what fits); write for instance 256GiB")
    factor = {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}[(match.group(2) or "B")[0]]
    return float(match.group(1)) * factor


def machine_memory():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def split_list(value):
    return [part.strip() for part in value.split(",") if part.strip()]


def whole_number(key, text, lowest=1):
    if not re.fullmatch(r"[0-9]+", text) or int(text) < lowest:
        raise StudyError(f"{key} = {text} is not a whole number of at least {lowest}")
    return int(text)


def as_written(path):
    """{"section.key": value} of a configuration. The program reads it: there is one reader of this syntax."""
    if not os.access(PROGRAM, os.X_OK):
        raise StudyError(f"{PROGRAM} is missing (it reads the study and says what fits); build it: tools/setup.sh")
    answer = subprocess.run([PROGRAM, "get", "--as_written", path], capture_output=True, check=False, env={**os.environ, **AS_ROOT})
    if answer.returncode:
        raise StudyError(answer.stderr.decode(errors="replace").strip().removeprefix("[rank 0] "))
    return json.loads(answer.stdout)


def read_sections(path):
    """{section: {key: value}}; a section may have a dot in its name."""
    sections = {}
    for name, value in as_written(path).items():
        section, _, key = name.rpartition(".")
        sections.setdefault(section, {})[key] = value
    return sections


def read_study(path):
    """Study of a file, with all its points. Throws StudyError."""
    sections = read_sections(path)
    if "study" not in sections:
        raise StudyError(f"{path} has no section [study] (it says which ranks to study); add ranks = ... and dir = ...")
    given = sections.pop("study")
    for key in given:
        if key not in STUDY_KEYS:
            raise StudyError(f"{path}: unknown key study.{key}; known: {', '.join(STUDY_KEYS)}")
    values = {key: split_list(given[key]) if key in given and isinstance(default, list) else given.get(key, default)
              for key, default in STUDY_KEYS.items()}
    if values["kind"] not in ("strong", "weak"):
        raise StudyError(f"study.kind = {values['kind']}: use strong or weak")
    for key in ("ranks", "dir"):
        if not values[key]:
            raise StudyError(f"{path}: study.{key} is not set")
    study = Study(path=pathlib.Path(path), dir=pathlib.Path(values["dir"]), kind=values["kind"],
                  repetitions=whole_number("study.repetitions", values["repetitions"]),
                  drop_steps=whole_number("study.drop_steps", values["drop_steps"], 0),
                  node_memory=bytes_of(values["node_memory"]) if values["node_memory"] else machine_memory(),
                  ranks_per_node=whole_number("study.ranks_per_node", values["ranks_per_node"]) if values["ranks_per_node"] else 0,
                  time_limit=whole_number("study.time_limit", values["time_limit"]), points=[])
    ranks = sorted({whole_number("study.ranks", r) for r in values["ranks"]})
    threads = sorted({whole_number("study.threads", t) for t in values["threads"]})
    study.points = expand(study, sections, ranks, threads)
    return study


def expand(study, sections, ranks, threads):
    """Every combination of the listed values. Sections named `method.NAME` hold keys for that method alone."""
    own = {name[len("method."):]: keys for name, keys in sections.items() if name.startswith("method.")}
    lists = {f"{section}.{key}": split_list(value) or [""] for section, keys in sections.items()
             if not section.startswith("method.") for key, value in keys.items()}
    for key in FIXED_RUN_KEYS:
        lists.pop(key, None)
    lists.pop("run.dir", None)
    length = "run.stop_step" if "run.stop_step" in lists else "run.steps"
    if length not in lists:
        raise StudyError(f"{study.path}: run.steps is not set (a point is a run of that many steps, or up to run.stop_step)")
    for steps in lists[length]:
        if whole_number(length, steps) <= study.drop_steps:
            raise StudyError(f"{length} = {steps} leaves nothing after study.drop_steps = {study.drop_steps} take more steps")
    lists.setdefault("optim.warmup_steps", ["0"])  # short runs: a warm-up would be longer
    unknown = set(own) - set(lists.get("method.name", []))
    if unknown:
        raise StudyError(f"{study.path}: section [method.{sorted(unknown)[0]}] is of a method that method.name does not list")
    for key, values in lists.items():
        repeated = next((v for v in values if values.count(v) > 1), None)
        if repeated is not None:
            raise StudyError(f"{study.path}: {key} lists {repeated} twice (each value is a point of its own); remove one")
    varied = [key for key, values in lists.items() if len(values) > 1]
    points, batches = [], lists.get("data.global_batch")
    if study.kind == "weak" and not batches:
        raise StudyError(f"{study.path}: data.global_batch is not set (a weak study lets it grow with the ranks)")
    for values, n, t in itertools.product(itertools.product(*lists.values()), ranks, threads):
        settings = dict(zip(lists, values))
        if n % int(settings.get("parallel.tp", "1") or 1):
            continue  # each rank count takes those of the listed layouts that divide it
        # In a weak study the file gives the batch for the fewest ranks.
        shown = {key: f"{key.split('.')[1]} {settings[key]}" if key != "method.name" else settings[key] for key in varied}
        if study.kind == "weak":
            batch = whole_number("data.global_batch", settings["data.global_batch"])
            if batch * n % ranks[0]:
                raise StudyError(f"data.global_batch = {batch} does not grow evenly from {ranks[0]} to {n} ranks choose a multiple "
                                 f"of {ranks[0] // math.gcd(ranks[0], n)}")
            settings["data.global_batch"] = str(batch * n // ranks[0])
        for key, value in own.get(settings.get("method.name"), {}).items():
            settings[f"method.{key}"] = value
        settings.update(FIXED_RUN_KEYS)
        if len(threads) > 1:
            shown["study.threads"] = f"{t} threads"
        problem = ", ".join(text for key, text in shown.items() if key not in LAYOUT_KEYS)
        series = ", ".join(shown.values()) or settings.get("method.name", "all")
        slug = re.sub(r"[^A-Za-z0-9.+]+", "-", series)
        points += [Point(f"{slug}-ranks{n}-{repetition}", n, t, repetition, tuple(settings.items()), series, problem)
                   for repetition in range(1, study.repetitions + 1)]
    if not points:
        raise StudyError(f"{study.path}: no rank count is a multiple of a listed parallel.tp")
    named = {}
    for point in points:
        other = named.setdefault(point.name, point)
        if other is not point:
            raise StudyError(f"{study.path}: '{other.series}' and '{point.series}' would share the folder {point.name} write one of the values "
                             "differently")
    return points
