"""Rows of the comparison of methods (docs/study/methods.csv, step_times.csv), and the tables made of them.

A row is one run: its settings (method to tokens: fingerprints of configuration and tokens), the revision that made it, and what
it gave: validation loss (inf: the run diverged), and bytes and memory planned for 8 data-parallel ranks.
"""
import csv
import fcntl
import math
import os
import statistics

SETTINGS = ["method", "lr", "dense_lr", "seed", "steps", "settings", "config", "tokens"]
MEMORY = ["frozen", "copies", "bank", "trainable", "gradients", "moments", "activations", "workspace"]
RESULTS = ["val_loss", "trainable", "sent", *(f"memory_{name}" for name in MEMORY), "curve"]
FIELDS = [*SETTINGS, "revision", *RESULTS]
TIMES = ["method", "settings", "config", "processor", "revision", "step_ratio", "lowest", "highest", "yardstick_ms"]
NUMBERS = {"lr", "dense_lr", "seed", "steps"}


class Rows:
    """A table of `fields` in a file. Rows that agree in `key` and revision are one; methods keep the order in which they came."""

    def __init__(self, path, fields, key):
        self.path, self.fields, self.key, self.rows = path, fields, key, []
        self.read()

    def read(self):
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if reader.fieldnames != self.fields:
                    raise SystemExit(f"{self.path} has other columns than this program writes (its rows cannot be compared); "
                                     "move it away and start again")
                self.rows = list(reader)

    def find(self, settings):
        """The newest row of these settings, of any revision; None where there is none."""
        found = [row for row in self.rows if all(row[name] == settings[name] for name in self.key)]
        return found[-1] if found else None

    def add(self, row):
        """Takes the place of a row of the same settings and revision. The file is replaced as a whole; rows that others have
        added to it meanwhile stay."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_name(f".{self.path.name}.lock"), "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.read()
            self.insert(row)
            self.write()

    def insert(self, row):
        same = [*self.key, "revision"]
        self.rows = [old for old in self.rows if any(old[name] != row[name] for name in same)] + [row]
        order = {name: i for i, name in enumerate(dict.fromkeys(old["method"] for old in self.rows))}
        groups = [name for name in ("config", "tokens", "steps") if name in self.fields]
        rest = [name for name in ("lr", "dense_lr", "seed") if name in self.fields]
        value = lambda r, name: float(r[name]) if name in NUMBERS else r[name]  # noqa: E731
        self.rows.sort(key=lambda r: [value(r, name) for name in groups] + [order[r["method"]]] + [value(r, name) for name in rest])

    def write(self):
        partial = self.path.with_name(self.path.name + ".partial")
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.path)


def table(head, lines):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in lines), ""]


def mib(count):
    return f"{float(count) / 2**20:.2f}"


def losses_of(rows):
    """{seed: validation loss}"""
    return {row["seed"]: float(row["val_loss"]) for row in rows}


def mean_of(rows):
    """Of their losses; inf if a seed diverged."""
    return statistics.mean(losses_of(rows).values())


def spread_of(rows):
    """Their standard deviation, as text; nothing where there is none."""
    losses = list(losses_of(rows).values())
    return f"{statistics.stdev(losses):.4f}" if len(losses) > 1 and math.isfinite(sum(losses)) else ""


def paired(rows, yardstick):
    """"mean ± standard error" of the differences from the yardstick's runs with the same seed, data order and initial function."""
    own, other = losses_of(rows), losses_of(yardstick)
    differences = [own[seed] - other[seed] for seed in own if seed in other]
    if rows is yardstick or len(differences) < 2 or not math.isfinite(sum(differences)):
        return ""
    return f"{statistics.mean(differences):+.4f} ± {statistics.stdev(differences) / len(differences) ** 0.5:.4f}"


def tables(best, swept, times, ranks):
    """Markdown. `best`: for each method the rows of its best setting, one a seed; `swept`: all rows of the sweep; `times`: the
    newest row of step_times.csv of each method."""
    yardstick = best.get("full", next(iter(best.values())))
    losses, costs = [], []
    for method, rows in sorted(best.items(), key=lambda item: mean_of(item[1])):
        losses.append([method, rows[0]["lr"], rows[0]["dense_lr"], str(len(losses_of(rows))), f"{mean_of(rows):.4f}", spread_of(rows),
                       paired(rows, yardstick)])
        memory = [float(rows[0][f"memory_{name}"]) for name in MEMORY]
        costs.append([method, f"{float(times[method]['step_ratio']):.2f}" if method in times else "", f"{int(rows[0]['trainable']):,}",
                      mib(rows[0]["sent"]), *(mib(part) if part else "" for part in memory), mib(sum(memory))])
    first = yardstick[0]
    revisions = sorted({row["revision"] for rows in best.values() for row in rows})
    return "\n".join([
        f"Validation loss after {first['steps']} steps, best setting of each sweep, and the difference from `{first['method']}` paired by seed (mean and "
        "standard error):", "",
        *table(["method", "lr", "dense_lr", "seeds", "mean", "deviation", "difference"], losses),
        f"Step over that of `full`, measured in runs of 64 steps, whose intervals are shorter; values trained; MiB sent a step by one of {ranks} ranks, "
        "mean of the run, and its memory, MiB, planned:", "",
        *table(["method", "step", "trained", "sent", *MEMORY, "all"], costs),
        "Sweep (seed 0):", "",
        *table(["method", "lr", "dense_lr", "validation loss"], [[row["method"], row["lr"], row["dense_lr"], row["val_loss"]] for row in swept]),
        f"Made by: {', '.join(revisions)}.", ""])


def configuration(text, row):
    """The configuration `text` with the settings of a row in it, each in its section."""
    settings = {"method.name": row["method"], "optim.lr": row["lr"], "optim.dense_lr": row["dense_lr"], "run.steps": row["steps"],
                "run.seed": row["seed"]} | dict(word.split("=") for word in row["settings"].split())
    lines, section = [f"# The best of the sweep of docs/comparison.md for {row['method']}: validation loss {row['val_loss']} after {row['steps']} steps. "
                      "Rates are those of this size and length."], ""

    def close():
        while lines[-1] == "":
            lines.pop()
        lines.extend(f"{key.split('.')[1]} = {settings.pop(key)}" for key in [key for key in settings if key.startswith(f"{section}.")])

    for line in text.rstrip("\n").split("\n"):
        if line.startswith("["):
            close()
            section = line.strip("[]")
            lines.extend(["", line])
        elif f"{section}.{line.split(' = ')[0]}" not in settings:
            lines.append(line)
    close()
    for section in dict.fromkeys(key.split(".")[0] for key in settings):
        lines.extend(["", f"[{section}]"])
        close()
    return "\n".join(lines) + "\n"
