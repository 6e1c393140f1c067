"""The result: what was measured, as a record, a table and a file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .plan import Plan
from .trace import Trace

__all__ = ["Summary", "print_table", "summarise"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one demo; `summary.json` has exactly these keys."""

    accuracy: float  # share of the held-out digits that the workers' network names right
    baseline_accuracy: float
    workers: int
    pushes: int  # acknowledged gradients
    pushes_per_second: float
    staleness_mean: float  # updates between the weights a gradient was computed at and those it met
    staleness_max: int
    bytes_up: int  # request bodies of the workers' pushes
    bytes_down: int  # bodies of weights that they received
    seconds: float  # from go to the last acknowledged push
    baseline_seconds: float
    baseline_updates: int
    loss: float  # mean over the last epoch
    baseline_loss: float
    not_applied: int  # gradients that the run refused as too stale, or that a rewind dropped
    batch_size: int | str
    epochs: int
    parameters: int
    optimizer: str
    lr: float
    seed: int
    store: str
    durability: str

    def write(self, path: Path) -> None:
        """As JSON, for scripts."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")


def last_epoch_loss(plan: Plan, trace: Trace) -> float:
    """Mean loss of the updates of the last epoch."""
    losses = trace.column("loss")[-max(1, plan.total_updates // plan.epochs) :]
    return float(losses.mean())


def summarise(
    plan: Plan,
    trace: Trace,
    accuracy: float,
    baseline: Trace,
    baseline_accuracy: float,
    counters: list[dict[str, int]],
    server: dict[str, str],
    parameters: int,
) -> Summary:
    """The figures from both traces, the workers' own counters and what the server says of itself."""
    staleness = trace.column("staleness")
    return Summary(
        accuracy=round(accuracy, 4),
        baseline_accuracy=round(baseline_accuracy, 4),
        workers=plan.workers,
        pushes=len(trace),
        pushes_per_second=round(trace.updates_per_second, 1),
        staleness_mean=round(float(staleness.mean()), 3),
        staleness_max=int(staleness.max()),
        bytes_up=sum(counter["bytes_up"] for counter in counters),
        bytes_down=sum(counter["bytes_down"] for counter in counters),
        seconds=round(trace.seconds, 3),
        baseline_seconds=round(baseline.seconds, 3),
        baseline_updates=len(baseline),
        loss=round(last_epoch_loss(plan, trace), 5),
        baseline_loss=round(last_epoch_loss(plan.alone, baseline), 5),
        not_applied=sum(counter["not_applied"] for counter in counters),
        batch_size="full" if plan.batch_size is None else plan.batch_size,
        epochs=plan.epochs,
        parameters=parameters,
        optimizer=plan.spec().optimizer.name,
        lr=plan.lr,
        seed=plan.seed,
        store=server["store"],
        durability=server["durability"],
    )


def print_table(console: Console, summary: Summary) -> None:
    """The workers beside the one loop."""
    table = Table(title="The same training, twice", title_justify="left", header_style="bold")
    table.add_column("")
    table.add_column(f"{summary.workers} workers over HTTP", justify="right")
    table.add_column("one loop", justify="right")
    rows = [
        ("accuracy on the held-out digits", f"{summary.accuracy:.1%}", f"{summary.baseline_accuracy:.1%}"),
        ("loss, mean of the last epoch", f"{summary.loss:.4f}", f"{summary.baseline_loss:.4f}"),
        ("updates", f"{summary.pushes:,}", f"{summary.baseline_updates:,}"),
        ("seconds", f"{summary.seconds:.1f}", f"{summary.baseline_seconds:.1f}"),
        ("updates a second", f"{summary.pushes_per_second:,.0f}", f"{_rate(summary):,.0f}"),
        ("staleness, mean and longest", f"{summary.staleness_mean:.1f} · {summary.staleness_max}", "0"),
        ("gradients not applied", f"{summary.not_applied:,}", "0"),
        ("megabytes up and down", f"{summary.bytes_up / 1e6:.1f} · {summary.bytes_down / 1e6:.1f}", "0"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _rate(summary: Summary) -> float:
    return summary.baseline_updates / summary.baseline_seconds if summary.baseline_seconds else 0.0
