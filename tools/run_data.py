"""What the scripts read of run directories: log.jsonl, config.cfg, status.json, environment.json. A run may still be running."""
import configparser
import json
import pathlib
import sys
import time

import numpy as np

PATIENCE_S = 60  # the holder of a run directory's lock gives a sign of life every 10 s


class NoStepYet(Exception):
    pass


def read_runs(paths):
    """The runs that have a step; others are named. Exits when none has."""
    runs = []
    for path in paths:
        try:
            runs.append(Run(path))
        except NoStepYet as problem:
            print(f"left out: {problem}", file=sys.stderr)
    if not runs:
        sys.exit("nothing to draw (no run has a training step yet)")
    return runs


class Run:
    """Steps (one dict each, in order), events, settings and state of a run; `path`: run directory or log.jsonl."""

    def __init__(self, path):
        path = pathlib.Path(path)
        self.log = path / "log.jsonl" if path.is_dir() else path
        if not self.log.is_file():
            sys.exit(f"{self.log}: no such file (RUN is a run directory that has a log.jsonl)")
        self.folder = self.log.parent
        self.name = self.folder.name if self.log.name == "log.jsonl" else self.log.stem
        self.steps, self.events = self._read_log()
        if not any("loss" in s for s in self.steps):
            raise NoStepYet(f"{self.log}: no training step yet")

    def _read_log(self):
        steps, events = {}, []
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                if number < len(lines):  # only the last line may be torn: it is being written
                    print(f"{self.log}:{number}: not JSON, ignored", file=sys.stderr)
                continue
            if "event" in entry:
                entry.setdefault("step", max(steps, default=0))
                events.append(entry)
            elif "step" in entry:
                # A validation result may come as a line of its own.
                steps[entry["step"]] = {**steps.get(entry["step"], {}), **entry}
        return [steps[s] for s in sorted(steps)], events

    def series(self, key, against="step"):
        """(values of `against`, values of `key`) of the steps that have both."""
        points = [(s[against], s[key]) for s in self.steps if s.get(key) is not None and s.get(against) is not None]
        return np.array([p[0] for p in points]), np.array([p[1] for p in points], dtype=float)

    def restarts(self):
        """(step, label) of every resume."""
        result = []
        for event in self.events:
            if event["event"] == "resume":
                layout = f" (dp {event['dp']}, tp {event['tp']})" if "dp" in event and "tp" in event else ""
                result.append((event["step"], f"resumed at step {event['step']}{layout}"))
        return result

    def last_event(self, name):
        return next((e for e in reversed(self.events) if e["event"] == name), None)

    def settings(self):
        """{"section.key": value} of config.cfg; empty where there is none."""
        parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",))
        parser.optionxform = str
        try:
            parser.read_string((self.folder / "config.cfg").read_text(encoding="utf-8"))
        except (OSError, configparser.Error):
            return {}
        return {f"{section}.{key}": value for section in parser.sections() for key, value in parser[section].items()}

    def _json(self, name):
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def status(self):
        return self._json("status.json")

    def says_running(self):
        return self.status().get("outcome") == "running"

    def shows_life(self):
        """Whether a process holds the run directory, as far as its lock tells: empty once it is released."""
        try:
            lock = (self.folder / "lock").stat()
        except OSError:
            return False
        return lock.st_size > 0 and time.time() - lock.st_mtime < PATIENCE_S

    def environment(self):
        return self._json("environment.json")


def smooth(values, window):
    """Centred mean over up to `window` values, fewer at the ends."""
    half = window // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
