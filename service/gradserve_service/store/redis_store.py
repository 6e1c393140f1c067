"""The store in a Redis (6.2 or newer, or Valkey): several servers share it, and its death takes none of them down."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import Literal

from .place import redis_place
from .protocols import RunAbsent, StoreDamaged, StoreFull, StoreUnavailable, StoreUnfit
from .reading import readable, told, untold
from .records import (
    DURABILITY_LEVELS,
    Appended,
    AppendResult,
    CatalogueRecord,
    CheckpointRecord,
    Durability,
    Head,
    HeadMoved,
    ObjectRef,
    ObjectsMissing,
    Record,
    RunGone,
    SnapshotRecord,
    require_next,
)
from .redis_follow import Follower
from .redis_keys import (
    CATALOGUE,
    DELETING,
    NAMES,
    catalogue_record,
    catalogue_text,
    checkpoint_record,
    checkpoint_text,
    checkpoints_key,
    chunk_keys,
    chunk_lengths,
    entry_fields,
    entry_record,
    journal_key,
    object_of_chunk,
    objects_key,
    run_key,
    snapshot_record,
    snapshot_text,
)
from .redis_link import Link, Reply, StoreRefused
from .redis_objects import RedisObjects
from .redis_removal import purge, trim
from .redis_scripts import APPEND, CREATE, DELETE, DROP_CHECKPOINT, KEEP_CHECKPOINT, PUBLISH
from .redis_scrub import complaints
from .redis_settings import Settings, memory_share

log = logging.getLogger("gradserve.store")

COMMAND_LANES = 8  # connections for small commands: Redis runs one at a time, more would only queue there
BULK_LANES = 4  # connections for objects
READ_STEP_ENTRIES = 32  # entries a reply, 2 MiB at most: Redis and the loop are held for 2 ms
READ_BYTES_MAX = 16 << 20  # inline payloads a read
PRESSURE_SECONDS = 1.0  # how old an answer of `memory_pressure` may be


class RedisStore:
    """`Store` on Redis. Safe to use from any number of tasks of one event loop."""

    def __init__(self, url: str, durability: Durability) -> None:
        self.kind: Literal["redis"] = "redis"
        self.url = redis_place(url)
        self._wanted = durability
        self._link = Link(url, lanes_max=COMMAND_LANES, accept=self._accept)
        self._bulk = Link(url, lanes_max=BULK_LANES, accept=self._accept)
        self._objects = RedisObjects(self._bulk)
        self._blocking = Link(url, lanes_max=1, accept=self._accept)
        self._follower = Follower(self._blocking, self._link)
        self._settings: Settings | None = None
        self._unpurged: set[str] = set()  # deleted runs whose keys could not all be removed yet
        self._pressure, self._pressure_at = 0.0, float("-inf")

    @property
    def durability(self) -> Durability:
        """The level that Redis' settings gave when they were last read; before `open` the weakest."""
        return self._settings.durability if self._settings is not None else "memory"

    async def open(self) -> None:
        """Read the settings, resume interrupted deletes."""
        await self.check()
        self._unpurged |= {uid.decode() for uid in await self._link.call("SMEMBERS", DELETING)}
        await self._purge()

    async def check(self) -> None:
        """The settings, in one round trip; and what a delete left behind when Redis went away."""
        try:
            await self._link.settings()
        except StoreRefused as refusal:
            raise StoreUnfit(f"{self.url}: {refusal}") from refusal
        await self._purge()

    async def close(self) -> None:
        """Close all connections."""
        await self._follower.close()
        for link in (self._link, self._bulk, self._blocking):
            await link.close()

    @property
    def memory_limit(self) -> int | None:
        """maxmemory; None where it is 0."""
        return (self._settings.maxmemory or None) if self._settings is not None else None

    async def memory_pressure(self) -> float:
        """used_memory / maxmemory."""
        now = time.monotonic()
        if now - self._pressure_at >= PRESSURE_SECONDS:
            self._pressure_at = now  # first: others that ask meanwhile get the last answer
            self._pressure = memory_share(await self._link.call("INFO", "memory"))
        return self._pressure

    def _accept(self, replies: list[Reply]) -> None:
        """Of every new connection. Raises StoreUnfit."""
        settings = Settings.parse(replies)
        settings.require_fit()
        if settings != self._settings:
            self._tell(settings)
        self._settings = settings

    def _tell(self, settings: Settings) -> None:
        if settings.appendonly and settings.appendfsync is None:
            log.warning("%s does not tell its appendfsync (CONFIG is forbidden): taken to be everysec", self.url)
        if DURABILITY_LEVELS.index(settings.durability) < DURABILITY_LEVELS.index(self._wanted):
            log.warning("%s gives durability %r, wanted is %r", self.url, settings.durability, self._wanted)

    async def _purge(self) -> None:
        """A Redis that writes nothing now (its disk is full) answers all the same: the rest goes at a later check."""
        for uid in tuple(self._unpurged):
            try:
                await purge(self._link, uid)
            except StoreFull as full:
                log.warning("removing run %s has to wait (%s)", uid, full)
                return
            self._unpurged.discard(uid)

    # Catalogue

    async def create(self, record: CatalogueRecord) -> CatalogueRecord:
        """See `Store.create`. A uid that was ever used is not used again."""
        keys = (CATALOGUE, NAMES, run_key(record.uid))
        kept = await self._link.run(CREATE, keys, (record.name, catalogue_text(record), record.genesis))
        if kept is None:
            raise ValueError(f"uid {record.uid} is taken")
        return catalogue_record(record.name, kept)

    async def find(self, name: str) -> CatalogueRecord | None:
        """See `Store.find`."""
        kept = await self._link.call("HGET", CATALOGUE, name)
        return None if kept is None else catalogue_record(name, kept)

    async def names(self, *, after: str = "", limit: int = 100) -> list[CatalogueRecord]:
        """See `Store.names`. A run deleted between the two questions is left out, and another takes its place."""
        start = b"(" + untold(after) if after else b"-"
        records: list[CatalogueRecord] = []
        while len(records) < limit:
            left = str(limit - len(records))
            found = await self._link.call("ZRANGEBYLEX", NAMES, start, "+", "LIMIT", "0", left)
            if not found:
                break
            kept = await self._link.call("HMGET", CATALOGUE, *found)
            for name, text in zip(found, kept, strict=True):
                try:
                    records += [catalogue_record(told(name), text)] if text else []
                except StoreDamaged as damage:
                    log.error("%s", damage)
            records = [record for record in records if not record.deleted]
            start = b"(" + found[-1]
        return records

    async def delete(self, name: str, uid: str) -> bool:
        """See `Store.delete`. True as soon as the mark is set: if Redis goes away then, the keys go later."""
        if not await self._link.run(DELETE, (CATALOGUE, NAMES, DELETING, run_key(uid)), (name, uid)):
            return False
        self._unpurged.add(uid)
        try:
            await self._purge()
        except StoreUnavailable as trouble:
            log.warning("removing run %s is interrupted (%s) and goes on after the reconnect", uid, trouble)
        return True

    # The chain

    async def head(self, uid: str) -> Head:
        """See `Store.head`. One round trip."""
        return self._head(uid, await self._link.call("HMGET", run_key(uid), "position", "head", "deleted"))

    def _head(self, uid: str, reply: list[bytes | None]) -> Head:
        position, digest, deleted = reply
        if deleted is not None or position is None or digest is None:
            raise RunAbsent(uid, deleted=deleted is not None)
        with readable(f"the position of run {uid}"):
            return Head(int(position), digest)

    async def append(self, uid: str, expected: Head, records: Sequence[Record]) -> AppendResult:
        """See `Store.append`. One round trip."""
        require_next(expected, records)
        keys = [run_key(uid), journal_key(uid), objects_key(uid)]
        lengths: list[bytes] = []
        for record in records:
            if record.object is not None:
                keys += chunk_keys(uid, record.object)
                lengths += chunk_lengths(record.object)
        last = records[-1]
        front = (expected.hash, b"%d" % last.position, last.hash, b"%d" % len(lengths), b"%d" % len(records))
        entries = [field for record in records for field in entry_fields(record)]
        reply = await self._link.run(APPEND, keys, [*front, *lengths, *entries])
        return _append_result(reply)

    async def read(self, uid: str, *, after: int, limit: int) -> list[Record]:
        """See `Store.read`. In steps, so that no reply holds Redis or the loop for long."""
        key, records, size = journal_key(uid), list[Record](), 0
        while True:
            count = min(READ_STEP_ENTRIES, limit - len(records))
            state = ("HMGET", run_key(uid), "position", "head", "deleted")
            head, found = await self._link.calls(state, ("XRANGE", key, f"{after + 1}-0", "+", "COUNT", str(count)))
            self._head(uid, head)
            step = [entry_record(entry) for entry in found]
            records += step
            size += sum(len(record.inline) for record in step)
            if len(step) < count or len(records) >= limit or size >= READ_BYTES_MAX:
                return records
            after = step[-1].position

    async def wait(self, uid: str, *, after: int, seconds: float) -> bool:
        """See `Store.wait`. A delete is noticed only by the end of the time."""
        return await self._follower.wait(uid, after, seconds)

    # Objects

    async def put_object(self, uid: str, pieces: Sequence[bytes | memoryview]) -> ObjectRef:
        """See `Store.put_object`."""
        return await self._objects.put(uid, pieces)

    async def get_object(self, uid: str, ref: ObjectRef) -> memoryview:
        """See `Store.get_object`."""
        return await self._objects.get(uid, ref)

    async def object_digest(self, uid: str, ref: ObjectRef) -> str:
        """See `Store.object_digest`."""
        return await self._objects.digest(uid, ref)

    async def discard_object(self, uid: str, ref: ObjectRef) -> None:
        """See `Store.discard_object`."""
        await self._objects.discard(uid, ref)

    async def complaints(self) -> list[str]:
        """See `Store.complaints`."""
        return await complaints(self._link)

    # Snapshots

    async def snapshots(self, uid: str) -> list[SnapshotRecord]:
        """See `Store.snapshots`."""
        fields = ("position", "head", "deleted", "newest", "previous")
        *head, newest, previous = await self._link.call("HMGET", run_key(uid), *fields)
        self._head(uid, head)
        return [snapshot_record(text) for text in (newest, previous) if text is not None]

    async def publish(
        self,
        uid: str,
        expected: SnapshotRecord | None,
        snapshot: SnapshotRecord,
        *,
        damaged: Collection[SnapshotRecord] = (),
    ) -> bool:
        """See `Store.publish`. If the newest is `expected`, so is the one before it: publish alone changes both."""
        texts = [
            text for text in await self._link.call("HMGET", run_key(uid), "newest", "previous") if text is not None
        ]
        kept = [snapshot_record(text) for text in texts]
        newest = kept[0] if kept else None
        if newest != expected or (
            newest is not None and newest not in damaged and snapshot.position <= newest.position
        ):
            return False
        whole = next((text for text, old in zip(texts, kept, strict=True) if old not in damaged), b"")
        dropped = [old.object for text, old in zip(texts, kept, strict=True) if text != whole]
        keys = [run_key(uid), journal_key(uid), objects_key(uid), *chunk_keys(uid, snapshot.object)]
        keys += [key for ref in dropped for key in chunk_keys(uid, ref)]
        images = [part for ref in dropped for part in (str(ref), str(ref.chunks))]
        lengths = chunk_lengths(snapshot.object)
        before = texts[0] if texts else b""
        position = b"%d" % snapshot.position
        front = (before, snapshot_text(snapshot), position, snapshot.hash, whole, b"%d" % len(lengths))
        return bool(await self._link.run(PUBLISH, keys, [*front, *lengths, *images]))

    async def trim(self, uid: str) -> int:
        """See `Store.trim`."""
        return await trim(self._link, uid)

    # Checkpoints

    async def checkpoints(self, uid: str) -> list[CheckpointRecord]:
        """See `Store.checkpoints`."""
        state = ("HMGET", run_key(uid), "position", "head", "deleted")
        head, found = await self._link.calls(state, ("HGETALL", checkpoints_key(uid)))
        self._head(uid, head)
        kept = zip(found[::2], found[1::2], strict=True)
        return [checkpoint_record(told(name), text) for name, text in sorted(kept)]

    async def keep_checkpoint(self, uid: str, checkpoint: CheckpointRecord) -> CheckpointRecord | None:
        """See `Store.keep_checkpoint`."""
        keys = [run_key(uid), checkpoints_key(uid), *chunk_keys(uid, checkpoint.object)]
        lengths = chunk_lengths(checkpoint.object)
        reply = await self._link.run(KEEP_CHECKPOINT, keys, [checkpoint.name, checkpoint_text(checkpoint), *lengths])
        match reply:
            case [b"kept", text]:
                return checkpoint_record(checkpoint.name, text)
            case [b"gone", deleted]:
                raise RunAbsent(uid, deleted=deleted == b"1")
        return None

    async def drop_checkpoint(self, uid: str, name: str) -> bool:
        """See `Store.drop_checkpoint`."""
        key = checkpoints_key(uid)
        state = ("HMGET", run_key(uid), "position", "head", "deleted")
        head, text = await self._link.calls(state, ("HGET", key, name))
        self._head(uid, head)
        if text is None:
            return False
        chunks = chunk_keys(uid, checkpoint_record(name, text).object)
        return bool(await self._link.run(DROP_CHECKPOINT, [key, *chunks], [name, text]))


def _append_result(reply: list[bytes]) -> AppendResult:
    match reply:
        case [b"appended"]:
            return Appended()
        case [b"moved", position, digest]:
            return HeadMoved(Head(int(position), digest))
        case [b"missing", *keys]:
            return ObjectsMissing(tuple(dict.fromkeys(object_of_chunk(key) for key in keys)))
        case [b"gone", deleted]:
            return RunGone(deleted == b"1")
    raise AssertionError(reply)
