"""The picture of a demo: four panels, the workers beside the one loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .report import Summary
from .trace import Trace, smoothed

__all__ = ["FAINT", "INK", "STYLE", "draw"]

WORKERS, ALONE, INK, FAINT = "#2563eb", "#ea7317", "#1f2933", "#9aa5b1"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e4e7eb",
    "legend.frameon": False,
}
POINTS_MAX = 4_000  # of a cloud: more are a blot
SMOOTH_SHARE = 80  # a curve is a mean over 1/80 of the updates


def draw(path: Path, summary: Summary, trace: Trace, baseline: Trace) -> None:
    """Write the PNG. `trace` is in the order of versions."""
    import matplotlib

    matplotlib.use("agg")  # no screen is needed
    from matplotlib import pyplot
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with pyplot.style.context(STYLE):
        under_the_heading = ConstrainedLayoutEngine(rect=(0.01, 0.01, 0.98, 0.88), wspace=0.06, hspace=0.08)
        figure, panels = pyplot.subplots(2, 2, figsize=(13, 8.6), layout=under_the_heading)
        _heading(figure, summary)
        _loss(panels[0][0], "Loss against updates", "updates applied", trace, baseline, "version", summary)
        _loss(panels[0][1], "Loss against time", "seconds since the start", trace, baseline, "seconds", summary)
        _learning_rate(panels[1][0], trace, baseline)
        _staleness(panels[1][1], trace)
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


def _heading(figure: Any, summary: Summary) -> None:
    figure.text(
        0.015, 0.955, f"{summary.workers} workers train handwritten digits through Gradserve", size=17, weight="bold"
    )
    batch = "the whole shard" if summary.batch_size == "full" else f"{summary.batch_size}"
    facts = (
        f"Accuracy {summary.accuracy:.1%} on held-out digits, {summary.baseline_accuracy:.1%} in one loop",
        f"{summary.pushes:,} pushes, {summary.pushes_per_second:,.0f} a second",
        f"{summary.parameters:,} parameters, {summary.optimizer}, batch {batch}",
        f"store {summary.store}, durability {summary.durability}",
    )
    figure.text(0.015, 0.912, "  ·  ".join(facts), size=10, color="#52606d")


def _loss(panel: Any, title: str, unit: str, trace: Trace, alone: Trace, along: str, summary: Summary) -> None:
    """Each update's loss as a faint point, the running mean as a line."""
    for curve, colour, label in ((trace, WORKERS, f"{summary.workers} workers over HTTP"), (alone, ALONE, "one loop")):
        x, y = curve.column(along), np.maximum(curve.column("loss"), 1e-6)
        shown = slice(None, None, max(1, len(y) // POINTS_MAX))
        panel.plot(x[shown], y[shown], ".", color=colour, alpha=0.10, markersize=3, rasterized=True)
        order = np.argsort(x, kind="stable")
        line = smoothed(y[order], max(1, len(y) // SMOOTH_SHARE))
        panel.plot(x[order], line, color=colour, linewidth=2, label=label)
    panel.set(title=title, xlabel=unit, ylabel="cross-entropy of the batch", yscale="log")
    panel.set_xlim(left=0)
    panel.set_ylim(bottom=max(1e-5, float(np.percentile(alone.column("loss"), 1)) / 2))
    panel.legend(loc="upper right")


def _learning_rate(panel: Any, trace: Trace, alone: Trace) -> None:
    """The schedule, and what a late gradient's weight leaves of it."""
    version, lr = trace.column("version"), trace.column("lr")
    effective = lr / (1 + trace.column("staleness"))
    shown = slice(None, None, max(1, len(lr) // POINTS_MAX))
    panel.plot(version[shown], effective[shown], ".", color=WORKERS, alpha=0.15, markersize=3, rasterized=True)
    panel.plot(version, lr, color=WORKERS, linewidth=2, label="schedule of the workers' run")
    panel.plot(
        alone.column("version"), alone.column("lr"), "--", color=ALONE, linewidth=2, label="that of the one loop"
    )
    panel.plot([], [], "o", color=WORKERS, alpha=0.5, markersize=4, label="each update's, times 1 / (1 + staleness)")
    panel.set(title="Learning rate", xlabel="updates applied", ylabel="learning rate")
    panel.set_xlim(left=0)
    panel.set_ylim(0, 1.35 * lr.max())  # room for the legend above the curves
    panel.legend(loc="upper right")


def _staleness(panel: Any, trace: Trace) -> None:
    """How many updates came between a gradient's weights and the gradient."""
    staleness = trace.column("staleness").astype(int)
    values, counts = np.unique(staleness, return_counts=True)
    share = 100 * counts / counts.sum()
    panel.bar(values, share, color=WORKERS, width=0.85, label="the workers' gradients")
    panel.axvline(staleness.mean(), color=INK, linestyle=":", linewidth=1.5, label=f"mean {staleness.mean():.1f}")
    panel.axvline(0, color=ALONE, linewidth=2, label="one loop: always 0")
    panel.set(
        title="Staleness",
        xlabel="updates between the weights a gradient was computed at and those it met",
        ylabel="share of the gradients, %",
    )
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.legend(loc="upper right")
