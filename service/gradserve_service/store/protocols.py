"""What every store can do. One test suite holds SQLite and Redis to this text.

The heart is `append`: compare-and-append on the head *hash*. A store that lost a tail re-issues positions; the hash
is what tells a server whose history is no longer the store's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from .records import (
    AppendResult,
    CatalogueRecord,
    CheckpointRecord,
    Durability,
    Head,
    ObjectRef,
    Record,
    SnapshotRecord,
)


class StoreUnavailable(Exception):
    """The store did not answer: the write may or may not have happened. Read the head before anything else."""


class StoreFull(Exception):
    """The store refuses writes for lack of memory or disk. Nothing was written."""


class StoreDamaged(Exception):
    """The store gave back other bytes than were written. The text says where."""


class StoreUnfit(Exception):
    """The store would lose data as it is set up (an evicting Redis, a database in use). The text is the cure."""


class RunAbsent(Exception):
    """The store holds nothing of this uid: it was deleted, or the store lost it (`deleted` says which)."""

    def __init__(self, uid: str, *, deleted: bool) -> None:
        super().__init__(f"run {uid} is {'deleted' if deleted else 'not in the store'}")
        self.deleted = deleted


class Store(Protocol):
    """Journal, objects, snapshots, checkpoints, catalogue. All methods raise `StoreUnavailable` when the store does not
    answer."""

    @property
    def kind(self) -> str:
        """`sqlite` or `redis`."""
        ...

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        ...

    @property
    def durability(self) -> Durability:
        """The level that the store's present settings give (read at `open` and at each `check`)."""
        ...

    async def open(self) -> None:
        """Connect. Raises `StoreUnfit` (do not start) or `StoreUnavailable` (start, and keep trying)."""
        ...

    async def check(self) -> None:
        """One cheap round trip; after a reconnect also the settings, as at `open`."""
        ...

    async def close(self) -> None: ...

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the store may use, as its settings said last; None where no limit is known."""
        ...

    async def memory_pressure(self) -> float:
        """Used share of the store's memory limit, 0.0 to 1.0; 0.0 where there is none. Cached for about a second."""
        ...

    # Catalogue

    async def create(self, record: CatalogueRecord) -> CatalogueRecord:
        """Bind the name to the run unless it is bound to a living one; answers the record that the name has now."""
        ...

    async def find(self, name: str) -> CatalogueRecord | None:
        """The record of a name, `deleted` ones included."""
        ...

    async def names(self, *, after: str = "", limit: int = 100) -> list[CatalogueRecord]:
        """Living runs in name order, starting behind `after`. Fewer than `limit` are all that there are."""
        ...

    async def delete(self, name: str, uid: str) -> bool:
        """Mark the run deleted if the name still stands for this uid (else False), then remove all its keys.
        The name answers with a `deleted` record until it is created again. An interrupted delete is resumed at open."""
        ...

    # The chain

    async def head(self, uid: str) -> Head:
        """The end of the chain; at position 0 the genesis hash. Raises `RunAbsent`."""
        ...

    async def append(self, uid: str, expected: Head, records: Sequence[Record]) -> AppendResult:
        """Put the records on top of the chain, all or none, only if it still ends in `expected.hash`, and only if
        every object that they name is complete; then the objects are kept for good. Never retried inside."""
        ...

    async def read(self, uid: str, *, after: int, limit: int) -> list[Record]:
        """Records with position > after, in order. The first may be later than after + 1: that range was trimmed.
        At most `limit` records and at most about 16 MiB of inline payloads. Raises `RunAbsent`."""
        ...

    async def wait(self, uid: str, *, after: int, seconds: float) -> bool:
        """Sleep until the chain has an entry behind position `after`: True, or False after the time (or an early
        wake-up). All waits of a server share one connection. Says nothing about the head: read it."""
        ...

    # Objects

    async def put_object(self, uid: str, pieces: Sequence[bytes | memoryview]) -> ObjectRef:
        """Write the pieces, one after the other, as a new object that vanishes by itself unless an append or a
        publish names it (a TTL in Redis, a sweep at start in SQLite)."""
        ...

    async def get_object(self, uid: str, ref: ObjectRef) -> memoryview:
        """All bytes of an object. Raises `KeyError` when any part is missing."""
        ...

    async def object_digest(self, uid: str, ref: ObjectRef) -> str:
        """xxh3-128 of an object's bytes, hex, taken piece by piece. Raises `KeyError` as `get_object`."""
        ...

    async def discard_object(self, uid: str, ref: ObjectRef) -> None:
        """Remove an object that no entry, snapshot or checkpoint names (the caller knows)."""
        ...

    async def complaints(self) -> list[str]:
        """What is wrong with the store's own structure, with places. Reads a lot: for an operator."""
        ...

    # Snapshots

    async def snapshots(self, uid: str) -> list[SnapshotRecord]:
        """The published snapshots, newest first, at most two; also records that are not `sound`."""
        ...

    async def publish(
        self,
        uid: str,
        expected: SnapshotRecord | None,
        snapshot: SnapshotRecord,
        *,
        damaged: Collection[SnapshotRecord] = (),
    ) -> bool:
        """Make it the newest snapshot, if the newest is still `expected`, it is newer than that, its hash is the
        journal's at its position and its object is complete. The one before the previous is dropped. A snapshot that
        is known to be `damaged` is dropped in its place: it must not be what recovery falls back to."""
        ...

    async def trim(self, uid: str) -> int:
        """Remove entries and their payloads up to the *previous* snapshot's position; answers how many entries.
        Each step removes entries together with their payloads."""
        ...

    # Checkpoints

    async def checkpoints(self, uid: str) -> list[CheckpointRecord]:
        """All of a run's, in the order of their names. Raises `RunAbsent`."""
        ...

    async def keep_checkpoint(self, uid: str, checkpoint: CheckpointRecord) -> CheckpointRecord | None:
        """Bind the name to the object, which is kept from now on, unless the name is bound: answers the record that
        the name has now. None when the object is not complete. Raises `RunAbsent`."""
        ...

    async def drop_checkpoint(self, uid: str, name: str) -> bool:
        """Remove a checkpoint together with its object; False when there is none. Raises `RunAbsent`."""
        ...
