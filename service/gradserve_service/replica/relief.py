"""A store that fills up is relieved before it is full: journals are cut at snapshots that nobody's journal was due for.

Snapshots come when a run's own journal is long. Many runs, each with a journal that is not, can fill a store together,
and then it refuses gradients, without which no journal ever grows to its next snapshot. So from a share of the store's
memory on, the run with the longest journal leaves a snapshot, and the next one, until none of them would gain by it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from gradserve.problems import Refused

from ..core.machine import Report
from .proposals import Proposal
from .sequencer import Sequencer

__all__ = ["Relief"]


class Relief:
    """Snapshots that the store's memory asks for, one at a time."""

    def __init__(self, runs: Callable[[], Iterable[Sequencer]]) -> None:
        self._runs = runs
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Begin with the run that gains most, unless one is at it."""
        if self._task is not None and not self._task.done():
            return
        most = max(self._runs(), key=lambda run: run.gain_of_snapshot, default=None)
        if most is not None and most.gain_of_snapshot > 0:
            self._task = asyncio.create_task(_cut(most))

    async def cancel(self) -> None:
        """Give up the one on its way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _cut(run: Sequencer) -> None:
    """Leave two snapshots, for a journal is cut at the one before the newest. A report of nothing is the entry that
    the second can stand behind, where gradients are refused and none comes by itself: without the first snapshot it
    would only make the journal longer."""
    with contextlib.suppress(Refused):  # the run is gone, or its server is
        if await run.leave_snapshot():
            await run.propose(Proposal(Report({}), asyncio.get_running_loop().create_future()))
            await run.leave_snapshot(cuts=True)
