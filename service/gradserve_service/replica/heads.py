"""Shared head reads."""

from __future__ import annotations

import asyncio

from ..store.protocols import Store
from ..store.records import Head


class HeadReads:
    """Reads a run's head for many requests at once.

    A request may only share a read that *starts* after the request arrived: an older one could miss what its client
    was told meanwhile. So those that come while a read is under way share the next one.
    """

    def __init__(self, store: Store, uid: str) -> None:
        self._store = store
        self._uid = uid
        self._current: asyncio.Task[Head] | None = None
        self._next: asyncio.Task[Head] | None = None

    async def read(self) -> Head:
        """The head at some moment after this call began."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_behind(self._current))
            self._next.add_done_callback(_seen)
        return await asyncio.shield(self._next)

    async def _read_behind(self, current: asyncio.Task[Head] | None) -> Head:
        if current is not None and not current.done():
            await asyncio.wait([current])
        self._current, self._next = self._next, None
        return await self._store.head(self._uid)


def _seen(read: asyncio.Task[Head]) -> None:
    """That it failed is nobody's concern once all who asked have hung up."""
    if not read.cancelled():
        read.exception()
