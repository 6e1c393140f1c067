"""What a person sees while it trains: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .crew import Member
from .trace import Trace

__all__ = ["Bars", "Lines", "watcher"]

RECENT_UPDATES = 200  # the loss and staleness shown are means over these
LINE_SECONDS = 1.0


def watcher(console: Console, totals: list[int]) -> Bars | Lines:
    """The one that suits the console. `totals`: the updates of each worker (one for the training alone)."""
    return Bars(console, totals) if console.is_terminal else Lines(console, sum(totals))


def recent(trace: Trace) -> tuple[float, float]:
    """Mean loss and mean staleness of the last updates."""
    rows = trace.rows[-RECENT_UPDATES:]
    if not rows:
        return float("nan"), 0.0
    return float(np.mean([row[2] for row in rows])), float(np.mean([row[4] for row in rows]))


def together(members: list[Member]) -> tuple[int, float, float, float]:
    """Updates, updates a second, mean recent loss and staleness over all workers."""
    traces = [member.trace for member in members if len(member.trace)]
    updates = sum(len(trace) for trace in traces)
    seconds = max((trace.seconds for trace in traces), default=0.0)
    if not traces or not seconds:
        return updates, 0.0, float("nan"), 0.0
    losses, staleness = zip(*(recent(trace) for trace in traces), strict=True)
    return updates, updates / seconds, float(np.mean(losses)), float(np.mean(staleness))


class Bars:
    """A bar for each worker and one for all, on a terminal."""

    def __init__(self, console: Console, totals: list[int]) -> None:
        self._progress = Progress(
            TextColumn("  {task.description:<9}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            refresh_per_second=12,
        )
        names = ["one loop"] if len(totals) == 1 else [f"worker {rank}" for rank in range(len(totals))]
        self._tasks = [self._add(name, total) for name, total in zip(names, totals, strict=True)]
        self._all = self._add("[bold]all", sum(totals)) if len(totals) > 1 else self._tasks[0]

    def _add(self, name: str, total: int) -> TaskID:
        return self._progress.add_task(name, total=total, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def alone(self, trace: Trace) -> None:
        """Move the one bar, at every 50th update."""
        if len(trace) % 50 == 0 or len(trace) == self._progress.tasks[0].total:
            loss, _ = recent(trace)
            self._progress.update(self._tasks[0], completed=len(trace), figures=f"loss {loss:.4f}")

    def crew(self, members: list[Member]) -> None:
        """Move all bars."""
        for task, member in zip(self._tasks, members, strict=True):
            loss, staleness = recent(member.trace)
            figures = f"loss {loss:.4f}  staleness {staleness:4.1f}" if len(member.trace) else ""
            self._progress.update(task, completed=len(member.trace), figures=figures)
        if self._all not in self._tasks:
            updates, rate, loss, staleness = together(members)
            figures = f"[bold]loss {loss:.4f}  staleness {staleness:4.1f}  {rate:,.0f} pushes/s"
            self._progress.update(self._all, completed=updates, figures=figures)


class Lines:
    """A line a second, for logs and pipes."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def alone(self, trace: Trace) -> None:
        """A line when it is due."""
        if self._due(len(trace)):
            loss, _ = recent(trace)
            self._say(f"  {trace.seconds:5.1f} s  {len(trace):>6,} of {self._total:,} updates  loss {loss:.4f}")

    def crew(self, members: list[Member]) -> None:
        """A line when it is due."""
        updates, rate, loss, staleness = together(members)
        if updates and self._due(updates):
            seconds = max(member.trace.seconds for member in members)
            self._say(
                f"  {seconds:5.1f} s  {updates:>6,} of {self._total:,} pushes  loss {loss:.4f}"
                f"  staleness {staleness:.1f}  {rate:,.0f} pushes/s"
            )

    def _due(self, updates: int) -> bool:
        now = time.monotonic()
        if now < self._next and updates < self._total:
            return False
        self._next = now + LINE_SECONDS
        return True

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
