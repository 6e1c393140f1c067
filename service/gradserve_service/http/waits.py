"""The requests that wait for something to happen: bounded in number, and ended together when the server leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gradserve.problems import refuse

__all__ = ["Waits"]

T = TypeVar("T")


class Waits:
    """Every long-poll of a server passes through here."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving = False

    @property
    def count(self) -> int:
        """How many wait now."""
        return len(self._tasks)

    async def hold(self, wait: Callable[[], Coroutine[Any, Any, T]], *, requests_max: int) -> T:
        """The result of the wait. Raises `backpressure` when too many wait already, `draining` when the server goes."""
        if self._leaving:
            raise _draining()
        if len(self._tasks) >= requests_max:
            raise refuse("backpressure", f"{requests_max} requests wait already: ask without Prefer: wait, or later")
        task = asyncio.create_task(wait())
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._leaving:
                raise _draining() from None
            raise
        finally:
            self._tasks.discard(task)

    def end(self) -> None:
        """Answer all that wait with `draining`; no more are let in."""
        self._leaving = True
        for task in self._tasks:
            task.cancel()


def _draining() -> Exception:
    return refuse("draining", "the server is shutting down: ask again, another one will answer")
