"""The threads for arithmetic on large runs. NumPy releases the GIL, so two of them use two cores."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
THREADS_MAX = 8  # beyond it memory bandwidth is the limit, not cores


class Threads:
    """One pool that runs arithmetic off the event loop, one that helps a single update with its blocks.

    Two pools, because a task of the first waits for tasks of the second: in one pool they could wait for each other.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count or min(THREADS_MAX, os.cpu_count() or 1)
        self._tasks = ThreadPoolExecutor(self.count, "gradserve-task")
        self._helpers = ThreadPoolExecutor(max(1, self.count - 1), "gradserve-block")

    async def run(self, function: Callable[[], T]) -> T:
        """Run the function in a thread; it goes on to its end even when the caller is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._tasks, function))

    def run_all(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run the tasks, the first of them here, and return when all have ended."""
        helped = [self._helpers.submit(task) for task in tasks[1:]]
        try:
            tasks[0]()
        finally:
            for future in helped:
                future.result()

    def close(self) -> None:
        self._tasks.shutdown(wait=True)
        self._helpers.shutdown(wait=True)
