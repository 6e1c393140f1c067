"""The comparison as a table: for a terminal, as plain lines, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from .comparison import Comparison, Row

__all__ = ["legend", "print_table", "write_tables"]


def headings(target: float) -> list[str]:
    """Of the columns; `cells` has as many."""
    return [
        "optimizer", "best lr", f"updates to {target:g}", "loss", "accuracy", "reaches it at lr", "lost above",
        "bytes/param", "µs/update", "default lr", "loss there",
    ]  # fmt: skip


def cells(row: Row) -> list[str]:
    """One line of the table, as text."""
    best, default, figures = row.best, row.default, row.to_json()
    low_high = row.reaching
    return [
        row.name,
        f"{best.lr:g}",
        _count(best.updates_to(row.target)),
        _loss(best.loss),
        f"{best.accuracy:.1%}",
        "never" if low_high is None else f"{low_high[0]:g} – {low_high[1]:g}",
        f"{row.lost} of {sum(trial.lr > best.lr for trial in row.trials)}",
        f"{best.bytes_a_parameter:g}",
        f"{figures['microseconds_an_update']:.0f}",
        f"{default.lr:g}",
        _loss(default.loss),
    ]


def print_table(console: Console, comparison: Comparison) -> None:
    """On a terminal with lines and bold heads, anywhere else as lines that a script can cut."""
    names, lines = headings(comparison.target), [cells(row) for row in comparison.rows]
    if not console.is_terminal:
        widths = [max(len(line[i]) for line in [names, *lines]) for i in range(len(names))]
        for line in [names, *lines]:
            fitted = [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
            console.print("  ".join(fitted), highlight=False, markup=False, soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1))
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i else "left", style="bold" if i == 0 else "", vertical="bottom")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def write_tables(folder: Path, comparison: Comparison) -> None:
    """`table.md` and `table.json`."""
    names, lines = headings(comparison.target), [cells(row) for row in comparison.rows]
    rule = ["---", *["---:"] * (len(names) - 1)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in [names, rule, *lines])
    (folder / "table.md").write_text(f"{text}\n\n{legend(comparison)}\n", encoding="utf-8")
    (folder / "table.json").write_text(json.dumps(comparison.to_json(), indent=1) + "\n", encoding="utf-8")


def legend(comparison: Comparison) -> str:
    """What was measured, in three sentences, and what could not be."""
    problem = comparison.problem
    left_out = [f" Not compared: {name} ({reason})." for name, reason in comparison.left_out]
    return (
        f"Handwritten digits, {comparison.parameters:,} parameters, {problem.updates:,} updates of "
        f"{problem.batch_size} rows, seed {problem.seed}; losses are over all training rows. "
        f"'reaches it at lr': the rates around the best one at which the loss comes to {comparison.target:g}. "
        "'lost above': rates above the best at which it ran away or ended no better than a guess." + "".join(left_out)
    )


def _count(updates: int | None) -> str:
    return "never" if updates is None else f"{updates:,}"


def _loss(loss: float) -> str:
    return f"{loss:.2g}" if math.isfinite(loss) else "diverged"
