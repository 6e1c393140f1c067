"""The picture of a comparison.

A dozen optimizers share one panel of curves, each named at its end. More of them get a panel each, with the others in
grey behind, and a map of all losses over all rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradserve_service.demo.picture import FAINT, INK, STYLE
from gradserve_service.demo.trace import smoothed

from .comparison import GUESS, Comparison, Row
from .trial import Trial

__all__ = ["draw"]

TOGETHER_MAX = 12
COLUMNS = 6  # of small panels
NAME_LETTERS = 19  # that fit over one of them at full size
QUIET, GREY = "#52606d", "#d5dae0"
PALETTE = (
    "#2563eb", "#ea7317", "#059669", "#c026d3", "#dc2626", "#0891b2", "#a16207", "#7c3aed", "#65a30d", "#db2777",
    "#475569", "#0f766e",
)  # fmt: skip
LOSS_MIN = 1e-5  # of the axes
SMOOTH_LOOKS = 7


def draw(path: Path, comparison: Comparison) -> None:
    """Write the PNG."""
    import matplotlib

    matplotlib.use("agg")  # no screen is needed
    from matplotlib import pyplot

    with pyplot.style.context(STYLE):
        figure = (_together if len(comparison.rows) <= TOGETHER_MAX else _one_by_one)(pyplot, comparison)
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


def _heading(figure: Any, comparison: Comparison, height: float) -> None:
    """Title and facts, in inches from the top: figures differ in height."""
    problem, n = comparison.problem, len(comparison.rows)
    figure.text(
        0.015, 1 - 0.42 / height, f"{n} optimizer{'s' if n != 1 else ''}, the same digits", size=17, weight="bold"
    )
    facts = (
        f"{comparison.parameters:,} parameters, batches of {problem.batch_size}, {problem.updates:,} updates",
        "same first weights and batches",
        "each at the learning rate of its least final loss",
    )
    figure.text(0.015, 1 - 0.74 / height, "  ·  ".join(facts), size=10, color=QUIET)


# A dozen together


def _together(pyplot: Any, comparison: Comparison) -> Any:
    height = 7.4
    figure = pyplot.figure(figsize=(14.5, height))
    grid = figure.add_gridspec(
        1, 2, width_ratios=(1.35, 1), left=0.055, right=0.915, top=1 - 1.35 / height, bottom=0.09, wspace=0.36
    )
    colours = _colours(comparison.rows)
    curves, rates = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    _curves(curves, comparison, colours)
    _rates(rates, comparison, colours)
    _heading(figure, comparison, height)
    return figure


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    """By name, whatever the order of the results is."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(sorted(row.name for row in rows))}


def _curves(panel: Any, comparison: Comparison, colours: dict[str, str]) -> None:
    """Loss against updates at the best rate; the label says which rate."""
    lowest = min((loss for row in comparison.rows for _, loss in row.best.curve), default=LOSS_MIN)
    _loss_axis(panel, lowest, comparison.rows[0].best.curve[0][1] * 1.4)
    panel.set(title="Loss against updates", xlabel="updates applied", ylabel="cross-entropy over all training rows")
    panel.set_xlim(0, comparison.problem.updates)
    ends = []
    for row in comparison.rows:
        x, y = _line(row.best)
        calm = np.exp(
            smoothed(np.log(y), SMOOTH_LOOKS)
        )  # of the orders of magnitude: a mean would show the peaks alone
        panel.plot(x, y, color=colours[row.name], linewidth=0.7, alpha=0.3)
        panel.plot(x, calm, color=colours[row.name], linewidth=2)
        ends.append((float(calm[-1]), f"{row.name}  lr {row.best.lr:g}", colours[row.name]))
    _target(panel, comparison.target)
    _labels(panel, ends)


def _rates(panel: Any, comparison: Comparison, colours: dict[str, str]) -> None:
    """Final loss against rate: a wide valley forgives a wrong rate."""
    losses = [trial.loss for row in comparison.rows for trial in row.trials if trial.loss < math.inf]
    _loss_axis(panel, min(losses, default=LOSS_MIN), GUESS * 2.2)
    panel.set(title="Final loss against learning rate", xlabel="learning rate", xscale="log")
    ends = []
    for row in comparison.rows:
        x = [trial.lr for trial in row.trials]
        y = [max(trial.loss, LOSS_MIN) for trial in row.trials]
        panel.plot(x, y, color=colours[row.name], linewidth=1.4, alpha=0.9, marker=".", markersize=5)
        panel.plot(row.best.lr, max(row.best.loss, LOSS_MIN), "o", color=colours[row.name], markersize=7, zorder=4)
        if row.default.loss < math.inf and row.default.lr > 0:
            panel.plot(
                row.default.lr, max(row.default.loss, LOSS_MIN), "D", markersize=6.5, zorder=5,
                markerfacecolor="white", markeredgecolor=colours[row.name], markeredgewidth=1.6,
            )  # fmt: skip
        ends.append((max(row.best.loss, LOSS_MIN), row.name, colours[row.name]))
    panel.axhline(GUESS, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
    panel.text(
        0.99, GUESS * 0.94, "a guess", color=QUIET, size=8.5, ha="right", va="top",
        transform=panel.get_yaxis_transform(),
    )  # fmt: skip
    _target(panel, comparison.target)
    panel.plot([], [], "o", color=QUIET, markersize=7, label="best rate")
    panel.plot([], [], "D", markerfacecolor="white", markeredgecolor=QUIET, markersize=6.5, label="default rate")
    panel.legend(loc="lower left", fontsize=9)
    _labels(panel, ends, leaders=False)  # the names stand at the height of the best rate's loss


def _loss_axis(panel: Any, lowest: float, highest: float) -> None:
    panel.set_yscale("log")
    panel.set_ylim(max(LOSS_MIN, lowest) * 0.7, highest)


def _target(panel: Any, target: float) -> None:
    panel.axhline(target, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    panel.text(
        0.99, target * 1.06, f"target {target:g}", color=INK, size=8.5, ha="right",
        transform=panel.get_yaxis_transform(),
    )  # fmt: skip


def _line(trial: Trial) -> tuple[Any, Any]:
    curve = np.array(trial.curve)
    return curve[:, 0], np.maximum(curve[:, 1], LOSS_MIN)


def _labels(panel: Any, ends: list[tuple[float, str, str]], *, leaders: bool = True) -> None:
    """A name beside the axis for each line, as near to its height as the other names let it."""
    low, high = (math.log(bound) for bound in panel.get_ylim())
    wanted = sorted(((math.log(y) - low) / (high - low), y, text, colour) for y, text, colour in ends)
    for (y, at, text, colour), place in zip(wanted, spread([each[0] for each in wanted], 0.037), strict=True):
        panel.annotate(
            text, xy=(1, at), xycoords=panel.get_yaxis_transform(), xytext=(1.045, place), textcoords="axes fraction",
            color=colour, size=10, weight="bold", va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "alpha": 0.6, "shrinkA": 1, "shrinkB": 0}
            if leaders and abs(place - y) > 0.001 else None,
        )  # fmt: skip


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places in [0, 1], moved apart as little as keeps `gap` between neighbours."""
    groups: list[tuple[float, int]] = []  # centre and count of labels that touch
    for place in places:
        centre, count = place, 1
        while groups and centre - gap * (count - 1) / 2 < groups[-1][0] + gap * (groups[-1][1] - 1) / 2 + gap:
            other, others = groups.pop()
            centre, count = (centre * count + other * others) / (count + others), count + others
        half = gap * (count - 1) / 2
        groups.append((min(max(centre, half), max(half, 1 - half)), count))
    return [centre + gap * (i - (count - 1) / 2) for centre, count in groups for i in range(count)]


# Many, one by one


def _one_by_one(pyplot: Any, comparison: Comparison) -> Any:
    rows = comparison.rows
    lines = math.ceil(len(rows) / COLUMNS)
    height = 1.7 + 1.75 * lines
    figure = pyplot.figure(figsize=(19, height))
    top, bottom = 1 - 1.3 / height, 0.6 / height
    cells = figure.add_gridspec(lines, COLUMNS, left=0.04, right=0.66, top=top, bottom=bottom, wspace=0.12, hspace=0.55)
    lowest = min(loss for row in rows for _, loss in row.best.curve)
    everyone = [_line(row.best) for row in rows]
    for i, row in enumerate(rows):
        panel = figure.add_subplot(cells[i // COLUMNS, i % COLUMNS])
        for x, y in everyone:
            panel.plot(x, y, color=GREY, linewidth=0.6, zorder=1)
        panel.plot(*_line(row.default), color=PALETTE[1], linewidth=1.3, linestyle=(0, (3, 1.5)), zorder=2)
        panel.plot(*_line(row.best), color=PALETTE[0], linewidth=2, zorder=3)
        _loss_axis(panel, lowest, rows[0].best.curve[0][1] * 1.4)
        panel.set_xlim(0, comparison.problem.updates)
        panel.set_title(row.name, size=min(10, 10 * NAME_LETTERS / len(row.name)))
        panel.text(
            0.97, 0.95, f"lr {row.best.lr:g}", size=8, color=QUIET, ha="right", va="top", transform=panel.transAxes,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}, zorder=4,
        )  # fmt: skip
        panel.tick_params(labelsize=7, labelleft=i % COLUMNS == 0, labelbottom=i + COLUMNS >= len(rows))
        panel.xaxis.get_major_locator().set_params(nbins=3)
    _heading(figure, comparison, height)
    figure.text(0.04, 0.12 / height, "updates applied (the quickest to the target first)", size=9, color=QUIET)
    _key(figure, height)
    _map(figure, comparison, figure.add_gridspec(1, 1, left=0.755, right=0.985, top=top, bottom=bottom)[0])
    return figure


def _key(figure: Any, height: float) -> None:
    """Which line is which, beside the facts."""
    entries = ((PALETTE[0], "at its best rate"), (PALETTE[1], "at its default rate"), ("#aab2bd", "the others"))
    for i, (colour, text) in enumerate(entries):
        figure.text(0.40 + 0.095 * i, 1 - 0.42 / height, f"━ {text}", size=10, color=colour, weight="bold")


def _map(figure: Any, comparison: Comparison, place: Any) -> None:
    """Final loss of every optimizer (down) at every rate (across); white: it ran away."""
    from matplotlib.colors import LogNorm

    rows = comparison.rows
    rates = sorted({trial.lr for row in rows for trial in row.trials})
    losses = np.full((len(rows), len(rates)), np.nan)
    for i, row in enumerate(rows):
        for trial in row.trials:
            losses[i, rates.index(trial.lr)] = max(trial.loss, LOSS_MIN)
    panel = figure.add_subplot(place)
    panel.grid(visible=False)
    floor = float(np.nanmin(losses))
    shown = panel.imshow(losses, aspect="auto", cmap="viridis_r", norm=LogNorm(floor, max(GUESS, floor * 2)))
    panel.set_yticks(range(len(rows)), [row.name for row in rows], size=8.5)
    panel.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates], size=8, rotation=60)
    for i, row in enumerate(rows):
        panel.plot(rates.index(row.best.lr), i, "o", color="white", markersize=4, markeredgecolor=INK)
    panel.set(title="Final loss at each learning rate (○ best)")
    figure.colorbar(shown, ax=panel, shrink=0.35, anchor=(0, 1), pad=0.02)
