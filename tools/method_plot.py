"""The plot of tools/compare_methods.sh: losses of every seed, and against what a method sends and keeps."""
import math

import method_rows


def plot(best, path):
    """Without methods of which a seed diverged."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    means = {m: method_rows.mean_of(rows) for m, rows in best.items() if math.isfinite(method_rows.mean_of(rows))}
    order = sorted(means, key=means.get, reverse=True)
    colour = {m: f"C{i % 10}" for i, m in enumerate(best)}
    figure, (seeds, sent, memory) = plt.subplots(1, 3, figsize=(13, 4.6), constrained_layout=True, width_ratios=[1.25, 1, 1])
    for place, method in enumerate(order):
        losses = list(method_rows.losses_of(best[method]).values())
        seeds.plot([min(losses), max(losses)], [place, place], color=colour[method], linewidth=2, alpha=0.4)
        seeds.plot(losses, [place] * len(losses), "o", color=colour[method], markersize=4)
        seeds.plot(means[method], place, "|", color=colour[method], markersize=14, markeredgewidth=2)
    seeds.set_yticks(range(len(order)), order)
    if "full" in means:
        seeds.axvline(means["full"], color="grey", linewidth=0.8, linestyle="--")
    seeds.set(xlabel="validation loss (nats per token)", title="Every seed, and the mean")
    for axes, label, value in ((sent, "MiB sent a step by a rank", lambda row: float(row["sent"])),
                               (memory, "MiB of a rank, without activations",
                                lambda row: sum(float(row[f"memory_{name}"]) for name in method_rows.MEMORY if name != "activations"))):
        points = sorted((value(best[m][0]) / 2**20, means[m], m) for m in order)
        for x, y, method in points:
            axes.plot(x, y, "o", color=colour[method], markersize=6)
        label_points(axes, points)
        axes.set(xlabel=label, title="Loss against " + label.split(",")[0].split(" a step")[0].replace("MiB of a rank", "memory").replace("MiB sent", "bytes sent"))
    for axes in (seeds, sent, memory):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def label_points(axes, points):
    """Names beside points, moved up where the one below is too near."""
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    left, right = min(p[0] for p in points), max(p[0] for p in points)
    height, width = (high - low) or 1, (right - left) or 1
    axes.set_xlim(left - 0.1 * width, right + 0.35 * width)
    placed = []
    for x, y, method in sorted(points, key=lambda p: p[1]):
        at = y
        while any(abs(at - other) < 0.045 * height and abs(x - beside) < 0.4 * width for beside, other in placed):
            at += 0.01 * height
        placed.append((x, at))
        axes.annotate(method, (x, y), (x + 0.03 * width, at), fontsize=8, va="center", arrowprops={"arrowstyle": "-", "linewidth": 0.4, "alpha": 0.5})
