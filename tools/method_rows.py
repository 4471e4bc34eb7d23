"""Rows of the comparison of methods (docs/study/methods.csv), and the tables and the plot made of them.

A row is one run: its settings (method to tokens: fingerprints of configuration and tokens), the revision that made it, and what
it gave. Bytes and memory are planned for 8 data-parallel ranks; step_ratio is its median step over that of `full` just before.
"""
import csv
import os
import statistics

SETTINGS = ["method", "lr", "dense_lr", "seed", "steps", "settings", "config", "tokens"]
MEMORY = ["frozen", "copies", "bank", "trainable", "gradients", "moments", "activations", "workspace"]
RESULTS = ["val_loss", "step_ratio", "trainable", "sent", *(f"memory_{name}" for name in MEMORY), "curve"]
FIELDS = [*SETTINGS, "revision", *RESULTS]


class Rows:
    def __init__(self, path):
        self.path, self.rows = path, []
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if reader.fieldnames != FIELDS:
                    raise SystemExit(f"{path} has other columns than this program writes (its rows cannot be compared); move it away and start again")
                self.rows = list(reader)

    def find(self, settings):
        """The newest row of these settings, of any revision; None where there is none."""
        found = [row for row in self.rows if all(row[name] == settings[name] for name in SETTINGS)]
        return found[-1] if found else None

    def add(self, row):
        """Takes the place of a row of the same settings and revision. The file is replaced as a whole."""
        same = [*SETTINGS, "revision"]
        self.rows = [old for old in self.rows if any(old[name] != row[name] for name in same)] + [row]
        order = {name: i for i, name in enumerate(dict.fromkeys(old["method"] for old in self.rows))}
        self.rows.sort(key=lambda r: (r["config"], r["tokens"], int(r["steps"]), order[r["method"]], float(r["lr"]), float(r["dense_lr"]), int(r["seed"])))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.path)


def table(head, lines):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in lines), ""]


def mib(count):
    return f"{float(count) / 2**20:.2f}"


def tables(best, swept, ranks):
    """Markdown. `best`: for each method the rows of its best setting, one a seed; `swept`: all rows of the sweep."""
    losses, costs = [], []
    for method, rows in best.items():
        found = [float(row["val_loss"]) for row in rows]
        spread = f"{statistics.stdev(found):.4f}" if len(found) > 1 else ""
        ratios = [float(row["step_ratio"]) for row in rows if row["step_ratio"]]
        losses.append([method, rows[0]["lr"], rows[0]["dense_lr"], str(len(found)), f"{statistics.mean(found):.4f}", spread, f"{min(found):.4f}",
                       f"{max(found):.4f}", f"{statistics.median(ratios):.2f}" if ratios else "", f"{int(rows[0]['trainable']):,}", mib(rows[0]["sent"])])
        memory = [float(rows[0][f"memory_{name}"]) for name in MEMORY]
        costs.append([method, *(mib(part) if part else "" for part in memory), mib(sum(memory))])
    first = next(iter(best.values()))[0]
    revisions = sorted({row["revision"] for rows in best.values() for row in rows})
    return "\n".join([
        f"Validation loss after {first['steps']} steps, best setting of each sweep; median step over that of `full` just before; values "
        f"trained; MiB sent a step by one of {ranks} ranks:", "",
        *table(["method", "lr", "dense_lr", "seeds", "mean", "deviation", "lowest", "highest", "step", "trained", "sent"], losses),
        f"Memory of one of {ranks} ranks, MiB:", "",
        *table(["method", *MEMORY, "all"], costs),
        "Sweep (seed 0):", "",
        *table(["method", "lr", "dense_lr", "validation loss"], [[row["method"], row["lr"], row["dense_lr"], row["val_loss"]] for row in swept]),
        f"Made by: {', '.join(revisions)}.", ""])


def plot(best, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(figsize=(7.5, 4.8), constrained_layout=True)
    for number, (method, rows) in enumerate(best.items()):
        curves = [{int(step): float(loss) for step, loss in (point.split(":") for point in row["curve"].split())} for row in rows]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        of_step = [[curve[step] for curve in curves] for step in steps]
        axes.plot(steps, [statistics.mean(x) for x in of_step], color=f"C{number}", label=f"{method} (lr {rows[0]['lr']}, dense_lr {rows[0]['dense_lr']})")
        axes.fill_between(steps, [min(x) for x in of_step], [max(x) for x in of_step], color=f"C{number}", alpha=0.2, linewidth=0)
    axes.set(xlabel="step", ylabel="validation loss (nats per token)", title="Mean and range over seeds, best setting of each sweep")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
