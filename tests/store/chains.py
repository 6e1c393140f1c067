"""Chains to put into a store, and ways to look behind its back: what it kept, and losing a piece of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from gradserve_service.store import Store, open_store
from gradserve_service.store.records import (
    Appended,
    CatalogueRecord,
    Head,
    ObjectRef,
    Record,
    SnapshotRecord,
)
from gradserve_service.store.redis_store import RedisStore

ANY_BYTES = bytes(range(256)) + b"\r\n$-1\r\n\x00\xff|:{} "  # what breaks a protocol that is not binary safe


def catalogue(name: str = "digits", uid: str = "u1", creation: bytes = b'{"optimizer": "adam"}') -> CatalogueRecord:
    """A run to create."""
    genesis = hashlib.sha256(b"gradserve/1" + uid.encode() + creation).digest()
    return CatalogueRecord(name, uid, creation, genesis, 1_700_000_000_000)


def record(head: Head, payload: bytes | memoryview = b"", place: ObjectRef | None = None, mark: str = "") -> Record:
    """The entry that comes behind `head`; another `mark` makes it another entry."""
    header = f'{{"position":{head.position + 1},"mark":"{mark}"}}'.encode() + ANY_BYTES
    return Record(head.position + 1, hashlib.sha256(head.hash + header).digest(), header, payload, place)


def records(head: Head, payloads: Sequence[bytes | ObjectRef], mark: str = "") -> list[Record]:
    """Entries behind `head`, one for each payload."""
    made = []
    for payload in payloads:
        inline = payload if isinstance(payload, bytes) else b""
        made.append(record(head, inline, payload if isinstance(payload, ObjectRef) else None, mark))
        head = end(made)
    return made


def end(entries: Sequence[Record]) -> Head:
    """The head after these entries."""
    return Head(entries[-1].position, entries[-1].hash)


class Chain:
    """A run in a store, and what a correct store must hold of it."""

    def __init__(self, store: Store, run: CatalogueRecord) -> None:
        self.store = store
        self.run = run
        self.uid = run.uid
        self.head = Head(0, run.genesis)
        self.entries: list[Record] = []

    @classmethod
    async def create(cls, store: Store, name: str = "digits", uid: str = "u1") -> Chain:
        """A new run, empty."""
        return cls(store, await store.create(catalogue(name, uid)))

    async def put(self, *payloads: bytes | ObjectRef) -> list[Record]:
        """Append these payloads in one batch; it must succeed."""
        entries = records(self.head, payloads)
        assert await self.store.append(self.uid, self.head, entries) == Appended()
        self.entries += entries
        self.head = end(entries)
        return entries

    async def object(self, content: bytes = b"object") -> ObjectRef:
        """A new object that nothing names yet."""
        return await self.store.put_object(self.uid, [content])

    async def image(self, position: int, content: bytes = b"image") -> SnapshotRecord:
        """An image of this position, written but not published."""
        digest = self.entries[position - 1].hash if position else self.run.genesis
        return SnapshotRecord(position, digest, await self.object(content), "d" * 32)

    async def publish(self, position: int, content: bytes = b"image") -> SnapshotRecord:
        """Publish an image of this position; it must succeed."""
        newest = next(iter(await self.store.snapshots(self.uid)), None)
        snapshot = await self.image(position, content)
        assert await self.store.publish(self.uid, newest, snapshot)
        return snapshot

    async def read(self, after: int = 0, limit: int = 10_000) -> list[Record]:
        """What the store holds, all of it, with payloads as bytes."""
        found: list[Record] = []
        while step := await self.store.read(self.uid, after=after, limit=limit - len(found)):
            found += step
            after = step[-1].position
            if len(found) >= limit:
                break
        return found


async def opened(url: str) -> Store:
    """A store, open."""
    store = open_store(url, "memory")
    await store.open()
    return store


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Store]:
    """A store that is closed at the end."""
    store = await opened(url)
    try:
        yield store
    finally:
        await store.close()


async def seen_by_the_loop(store: Store) -> None:
    """The loop has learnt that the connections of a killed Redis are closed."""
    assert isinstance(store, RedisStore)
    while not all([await lane.can_read() for lane in store._link._idle]):  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)


async def kept_objects(store_url: str, uid: str) -> set[str]:
    """Ids of the objects of a run of which anything is left."""
    if store_url.startswith("sqlite"):
        directory = _files(store_url) / uid
        return {file.name for file in directory.iterdir()} if directory.is_dir() else set()
    async with Redis.from_url(store_url) as client:
        return {key.decode().rsplit(":", 2)[1] for key in await client.keys(f"gradserve:{{{uid}}}:object:*")}


async def lose_object(store_url: str, uid: str, ref: ObjectRef) -> None:
    """Its last chunk runs out (Redis), its file is gone (SQLite)."""
    if store_url.startswith("sqlite"):
        (_files(store_url) / uid / ref.id).unlink()
        return
    async with Redis.from_url(store_url) as client:
        assert await client.delete(f"gradserve:{{{uid}}}:object:{ref.id}:{ref.chunks - 1}") == 1


async def shorten_object(store_url: str, uid: str, ref: ObjectRef) -> None:
    """It has a byte less than it should."""
    if store_url.startswith("sqlite"):
        path = _files(store_url) / uid / ref.id
        path.write_bytes(path.read_bytes()[:-1])
        return
    key = f"gradserve:{{{uid}}}:object:{ref.id}:{ref.chunks - 1}"
    async with Redis.from_url(store_url) as client:
        await client.set(key, (await client.get(key))[:-1], keepttl=True)


def _files(store_url: str) -> Path:
    return Path(store_url.removeprefix("sqlite:///") + "-objects")
