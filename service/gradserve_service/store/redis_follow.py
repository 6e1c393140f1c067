"""Waiting for entries that other servers append: one blocking read for all runs that anyone waits for. No polling."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from .protocols import StoreUnavailable
from .redis_keys import journal_key
from .redis_link import Link, Reply
from .redis_packing import pack

BLOCK_SECONDS = 10  # then the read is made again: less than what `Link` takes for a dead connection


@dataclass(eq=False, slots=True)
class _Waiter:
    uid: str
    after: int
    arrived: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Follower:
    """Waiters share an XREAD on a connection of its own. A new waiter unblocks it, so that it is made again for all."""

    def __init__(self, blocking: Link, link: Link) -> None:
        self._blocking = blocking
        self._link = link
        self._waiters: set[_Waiter] = set()
        self._reading: asyncio.Task[None] | None = None
        self._client: bytes | None = None  # of the XREAD under way
        self._round = 0
        self._waking: set[asyncio.Task[None]] = set()
        self._outdated = False  # the XREAD under way does not cover all waiters

    async def wait(self, uid: str, after: int, seconds: float) -> bool:
        """Whether an entry behind `after` came within the time. Raises StoreUnavailable."""
        waiter = _Waiter(uid, after)
        self._waiters.add(waiter)
        try:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            else:
                self._outdated = True
                self._wake()
            async with asyncio.timeout(seconds):
                await waiter.arrived
            return True
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
            if waiter.arrived.done() and not waiter.arrived.cancelled():
                waiter.arrived.exception()  # looked at, also where the waiter itself was cancelled

    async def close(self) -> None:
        """Whoever still waits is told that the store is unavailable."""
        self._fail(StoreUnavailable("the store is closed"))
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, *self._waking, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while waiting := [waiter for waiter in self._waiters if not waiter.arrived.done()]:
                self._outdated = False
                after: dict[str, int] = {}
                for waiter in waiting:
                    after[waiter.uid] = min(waiter.after, after.get(waiter.uid, waiter.after))
                keys = [journal_key(uid) for uid in after]
                places = [f"{position}-0" for position in after.values()]
                block = ("COUNT", "1", "BLOCK", str(BLOCK_SECONDS * 1000))
                self._round += 1
                commands = [pack("CLIENT", "ID"), pack("XREAD", *block, "STREAMS", *keys, *places)]
                await self._blocking.stream(commands, self._take)
        except StoreUnavailable as unavailable:
            self._fail(unavailable)
        finally:
            self._client = None

    def _take(self, index: int, reply: Reply) -> None:
        if index == 0:
            self._client = b"%d" % reply
            if self._outdated:
                self._wake()
            return
        self._client = None
        newest = {key: int(entries[-1][0][:-2]) for key, entries in reply or ()}
        for waiter in self._waiters:
            if newest.get(journal_key(waiter.uid), 0) > waiter.after and not waiter.arrived.done():
                waiter.arrived.set_result(None)

    def _wake(self) -> None:
        if self._client is not None and not self._waking:
            task = asyncio.create_task(self._unblock(self._client, self._round))
            self._waking.add(task)
            task.add_done_callback(self._waking.discard)

    async def _unblock(self, client: bytes, number: int) -> None:
        """Until Redis says that it did: it may not have got as far as to block."""
        try:
            while self._round == number and self._client is not None:
                if await self._link.call("CLIENT", "UNBLOCK", client):
                    return
        except StoreUnavailable as unavailable:
            self._fail(unavailable)

    def _fail(self, unavailable: StoreUnavailable) -> None:
        for waiter in self._waiters:
            if not waiter.arrived.done():
                waiter.arrived.set_exception(unavailable)
