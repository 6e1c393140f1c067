"""One server's connection to the disk. Every operation takes time, and can go wrong in every way that a network allows.

    lost        it never reaches the disk                     → StoreUnavailable
    unanswered  it is done, the reply is lost                 → StoreUnavailable
    ghost       StoreUnavailable now, done up to seconds later, maybe after the server is dead
    full        refused for lack of memory                    → StoreFull

An operation that is under way when its server is killed reaches the disk or does not. A server that is paused learns
of the reply when it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from xxhash import xxh3_128_hexdigest

from gradserve_service.store.protocols import StoreFull, StoreUnavailable
from gradserve_service.store.records import (
    AppendResult,
    CatalogueRecord,
    CheckpointRecord,
    Durability,
    Head,
    ObjectRef,
    Record,
    SnapshotRecord,
)

from .disk import Disk
from .faults import Faults, Kind
from .loop import Program, VirtualLoop

T = TypeVar("T")
LATENCY_SECONDS = 0.002  # mean, each way
GHOST_SECONDS_MAX = 4.0
GIVE_UP_SECONDS = 1.0  # a client's patience with a reply


@dataclass(slots=True)
class SimStore:
    """`Store` on the disk, for one life of one server."""

    disk: Disk
    loop: VirtualLoop
    program: Program
    faults: Faults
    random: Random

    kind = "simulated"
    url = "simulated://"
    durability: Durability = "journal"

    async def open(self) -> None:
        """See `Store.open`."""
        await self._do("open", lambda: None)

    async def check(self) -> None:
        """See `Store.check`."""
        await self._do("check", lambda: None)

    async def close(self) -> None:
        """See `Store.close`."""

    @property
    def memory_limit(self) -> int | None:
        """See `Store.memory_limit`."""
        return None

    async def memory_pressure(self) -> float:
        """No limit."""
        return 0.0

    async def create(self, record: CatalogueRecord) -> CatalogueRecord:
        """See `Store.create`."""
        return await self._do("create", lambda: self.disk.create(record), "write")

    async def find(self, name: str) -> CatalogueRecord | None:
        """See `Store.find`."""
        return await self._do("find", lambda: self.disk.find(name))

    async def names(self, *, after: str = "", limit: int = 100) -> list[CatalogueRecord]:
        """See `Store.names`."""
        return await self._do("names", lambda: self.disk.names(after, limit))

    async def delete(self, name: str, uid: str) -> bool:
        """See `Store.delete`."""
        return await self._do("delete", lambda: self.disk.delete(name, uid), "removal")

    async def head(self, uid: str) -> Head:
        """See `Store.head`."""
        return await self._do("head", lambda: self.disk.head(uid))

    async def append(self, uid: str, expected: Head, records: Sequence[Record]) -> AppendResult:
        """See `Store.append`."""
        return await self._do("append", lambda: self.disk.append(uid, expected, records), "write")

    async def read(self, uid: str, *, after: int, limit: int) -> list[Record]:
        """See `Store.read`."""
        return await self._do("read", lambda: self.disk.read(uid, after, limit))

    async def wait(self, uid: str, *, after: int, seconds: float) -> bool:
        """See `Store.wait`."""
        news = self.loop.create_future()
        await self._do("wait", lambda: self.disk.watch(uid, after, news))
        try:
            async with asyncio.timeout(seconds):
                return await news  # type: ignore[no-any-return]
        except TimeoutError:
            return False

    async def put_object(self, uid: str, pieces: Sequence[bytes | memoryview]) -> ObjectRef:
        """See `Store.put_object`."""
        content = b"".join(bytes(piece) for piece in pieces)
        return await self._do("put_object", lambda: self.disk.put_object(uid, content), "write")

    async def get_object(self, uid: str, ref: ObjectRef) -> memoryview:
        """See `Store.get_object`."""
        return await self._do("get_object", lambda: self.disk.get_object(uid, ref))

    async def object_digest(self, uid: str, ref: ObjectRef) -> str:
        """See `Store.object_digest`."""
        return await self._do("object_digest", lambda: xxh3_128_hexdigest(self.disk.get_object(uid, ref)))

    async def complaints(self) -> list[str]:
        """Nothing to look at but what the journal shows."""
        return []

    async def discard_object(self, uid: str, ref: ObjectRef) -> None:
        """See `Store.discard_object`."""
        await self._do("discard_object", lambda: self.disk.discard_object(uid, ref), "removal")

    async def snapshots(self, uid: str) -> list[SnapshotRecord]:
        """See `Store.snapshots`."""
        return await self._do("snapshots", lambda: self.disk.snapshots(uid))

    async def publish(
        self,
        uid: str,
        expected: SnapshotRecord | None,
        snapshot: SnapshotRecord,
        *,
        damaged: Collection[SnapshotRecord] = (),
    ) -> bool:
        """See `Store.publish`."""
        return await self._do("publish", lambda: self.disk.publish(uid, expected, snapshot, damaged), "write")

    async def trim(self, uid: str) -> int:
        """See `Store.trim`."""
        return await self._do("trim", lambda: self.disk.trim(uid), "removal")

    async def checkpoints(self, uid: str) -> list[CheckpointRecord]:
        """See `Store.checkpoints`."""
        return await self._do("checkpoints", lambda: self.disk.checkpoints(uid))

    async def keep_checkpoint(self, uid: str, checkpoint: CheckpointRecord) -> CheckpointRecord | None:
        """See `Store.keep_checkpoint`."""
        return await self._do("keep_checkpoint", lambda: self.disk.keep_checkpoint(uid, checkpoint), "write")

    async def drop_checkpoint(self, uid: str, name: str) -> bool:
        """See `Store.drop_checkpoint`."""
        return await self._do("drop_checkpoint", lambda: self.disk.drop_checkpoint(uid, name), "removal")

    # The way there and back

    async def _do(self, name: str, execute: Callable[[], T], kind: Kind = "read") -> T:
        """Send one operation, wait for its reply."""
        fault = self.faults.of_store(self.program.name, self.random, kind)
        there, back = self._latency(), self._latency()
        if fault == "full":
            await asyncio.sleep(there + back)
            raise StoreFull(f"{name} was refused")
        if fault == "stall":
            stall = self.random.uniform(0.0, self.faults.mix.stall_seconds)
            there, back = (there + stall, back) if self.random.random() < 0.5 else (there, back + stall)
        if fault in ("ghost", "lost"):
            patience = self.random.uniform(0.0, GIVE_UP_SECONDS)
            if fault == "ghost":
                late = self._late()
                self._at_disk(patience + late, execute)
            await asyncio.sleep(patience)
            raise StoreUnavailable(f"{name} was not answered")
        reply = await self._at_disk(there, execute)
        await asyncio.sleep(back)
        if fault == "unanswered":
            await asyncio.sleep(self.random.uniform(0.0, GIVE_UP_SECONDS))
            raise StoreUnavailable(f"the reply to {name} was lost")
        if isinstance(reply, Exception):
            raise reply
        return reply  # type: ignore[no-any-return]

    def _late(self) -> float:
        """How long after its sender has given it up a ghost arrives: mostly while the sender looks for it."""
        soon = self.random.random() < 0.7
        return 2 * (self._latency() + self._latency()) if soon else self.random.uniform(0.0, GHOST_SECONDS_MAX)

    def _latency(self) -> float:
        return self.random.expovariate(1 / LATENCY_SECONDS)

    def _at_disk(self, seconds: float, execute: Callable[[], Any]) -> asyncio.Future[Any]:
        """The operation is on its way: from here on its server can no longer hold it back."""
        reply: asyncio.Future[Any] = self.loop.create_future()

        def arrive() -> None:
            if self.program.dead and self.random.random() < 0.5:
                return  # it was still in the dead server's socket
            try:
                result = execute()
            except Exception as error:  # noqa: BLE001 - whatever the disk says is the reply
                result = error
            if not reply.done():
                reply.set_result(result)

        self.loop.call_later(seconds, arrive, context=Context())
        return reply
