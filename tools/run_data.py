"""Reads run directories: log.jsonl, config.cfg, status.json, environment.json. A run may still be running.

Nothing in these files is trusted: a value of the wrong type is left out, with a note on standard error.
"""
import json
import os
import pathlib
import re
import sys
import time

import numpy as np

PATIENCE_S = 60  # the holder of a run directory's lock gives a sign of life every 10 s
MOST_STEPS = 10**12
OF_NUMBERS = ("phases", "bytes")  # fields of a step that are objects: name to number
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class CannotShow(Exception):
    pass


def read_runs(paths):
    """The runs that have a step; others are named. Exits when none has."""
    runs = []
    for path in paths:
        try:
            runs.append(Run(path))
        except CannotShow as problem:
            print(f"left out: {problem}", file=sys.stderr)
    if not runs:
        sys.exit("nothing to draw (no run has a training step yet)")
    return runs


def shown(text):
    """A name as people can read it: no control characters, no bytes that are not UTF-8. Never markup, see pictures.py and html_page.py."""
    text = os.fsencode(str(text)).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def label(text):
    """The name in a form for legends, which leave out names that begin with _."""
    return f" {text}" if text.startswith("_") else text


def is_number(value):
    """True for a finite number, which can be drawn and summed."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def numbers(fields):
    return {shown(key): value if abs(value) < 2**53 else float(value) for key, value in fields.items() if is_number(value)}


def clean(entry):
    """The fields of a log line that are of their types; None where it is neither a step nor an event."""
    if not isinstance(entry, dict):
        return None
    event, step = entry.get("event"), entry.get("step")
    if "step" in entry and not (isinstance(step, int) and not isinstance(step, bool) and 0 <= step <= MOST_STEPS):
        return None
    if "event" in entry:
        return clean_event(entry) if isinstance(event, str) else None
    if "step" not in entry:
        return None
    fields = numbers(entry)
    for key in OF_NUMBERS:
        if isinstance(entry.get(key), dict):
            fields[key] = numbers(entry[key])
    return fields


def clean_event(entry):
    fields = numbers(entry) | {key: shown(value) for key, value in entry.items() if isinstance(value, str)}
    if isinstance(entry.get("changes"), list):
        fields["changes"] = [shown(change) for change in entry["changes"]]
    if not isinstance(fields.get("dp"), int) or not isinstance(fields.get("tp"), int):
        fields.pop("dp", None), fields.pop("tp", None)
    memory = entry.get("memory")
    if isinstance(memory, dict):
        fields["memory"] = numbers(memory) | {key: numbers(value) for key, value in memory.items() if isinstance(value, dict)}
    return fields


def unquoted(value):
    """A value of config.cfg as the program writes it. (Files of users are read by `switchyard get`.)"""
    if not value.startswith('"'):
        return value
    return re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), value[1:-1])


class Run:
    """Steps (one dict each, in order), events, settings and state of a run; `path`: run directory or log.jsonl."""

    def __init__(self, path):
        path = pathlib.Path(path)
        try:
            self.log = path / "log.jsonl" if path.is_dir() else path
            if not self.log.is_file():
                raise CannotShow(f"{shown(self.log)}: no such file (a run directory has a log.jsonl as soon as a run has started there)")
            self.folder = self.log.parent
            self.name = shown(self.folder.resolve().name if self.log.name == "log.jsonl" else self.log.stem)
            self.steps, self.events = self._read_log()
        except OSError as problem:
            raise CannotShow(f"{shown(path)}: {problem.strerror}") from None
        if not any("loss" in s for s in self.steps):
            raise CannotShow(f"{shown(self.log)}: no training step yet")

    def _read_log(self):
        steps, events, ignored = {}, [], []
        with open(self.log, encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                text = line.strip().strip("\0")  # a power loss leaves zeros
                if not text:
                    continue
                try:
                    entry = json.loads(text)
                except (ValueError, RecursionError):
                    if line.endswith("\n"):  # only the last line may be torn: it is being written
                        ignored.append((number, "not JSON"))
                    continue
                entry = clean(entry)
                if entry is None:
                    ignored.append((number, "neither a step nor an event"))
                elif "event" in entry:
                    entry.setdefault("step", max(steps, default=0))
                    events.append(entry)
                else:
                    # A validation result may come as a line of its own.
                    steps[entry["step"]] = {**steps.get(entry["step"], {}), **entry}
        for number, reason in ignored[:5]:
            print(f"{shown(self.log)}:{number}: {reason}, ignored", file=sys.stderr)
        if len(ignored) > 5:
            print(f"{shown(self.log)}: {len(ignored) - 5} more lines ignored", file=sys.stderr)
        return [steps[s] for s in sorted(steps)], events

    def series(self, key, against="step"):
        """(values of `against`, values of `key`) of the steps that have both."""
        points = [(s[against], s[key]) for s in self.steps if key in s and against in s]
        return np.array([p[0] for p in points]), np.array([p[1] for p in points], dtype=float)

    def restarts(self):
        """(step, label) of every resume."""
        result = []
        for event in self.events:
            if event["event"] == "resume":
                layout = f" (dp {event['dp']}, tp {event['tp']})" if "dp" in event else ""
                result.append((event["step"], f"resumed at step {event['step']}{layout}"))
        return result

    def last_event(self, name):
        return next((e for e in reversed(self.events) if e["event"] == name), None)

    def settings(self):
        """{"section.key": value} of config.cfg; empty where there is none."""
        try:
            text = (self.folder / "config.cfg").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return {}
        values, section = {}, ""
        for line in map(str.strip, text.split("\n")):
            if line.startswith("[") and line.endswith("]"):
                section = line[1:-1]
            elif "=" in line:
                key, _, value = line.partition("=")
                values[f"{section}.{key.strip()}"] = unquoted(value.strip())
        return values

    def _json(self, name):
        """An object; empty where the file holds none."""
        try:
            value = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def status(self):
        return {key: value for key, value in self._json("status.json").items() if isinstance(value, str)}

    def says_running(self):
        return self.status().get("outcome") == "running"

    def shows_life(self):
        """True if a process holds the run directory, as far as its lock tells; a released lock is empty."""
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
