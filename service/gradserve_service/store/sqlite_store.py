"""The store in an SQLite database and files beside it: nothing to install, one server owns it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from . import sqlite_runs as runs
from .lock_file import LockFile
from .object_files import ObjectFiles, trouble
from .protocols import RunAbsent, StoreDamaged, StoreFull, StoreUnavailable, StoreUnfit
from .records import (
    Appended,
    AppendResult,
    CatalogueRecord,
    CheckpointRecord,
    Durability,
    Head,
    ObjectRef,
    Record,
    SnapshotRecord,
    require_next,
)
from .sqlite_schema import connect
from .sqlite_thread import DatabaseThread

Result = TypeVar("Result")

log = logging.getLogger("gradserve.store")

FILE_THREADS = 2  # reads and writes of large files: a disk gains nothing from more


class SqliteStore:
    """`Store` on SQLite. Belongs to the event loop on which it was opened."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.kind: Literal["sqlite"] = "sqlite"
        self.url = f"sqlite:///{path}"
        self.durability: Durability = durability
        self.memory_limit: int | None = None  # a disk has no limit that is known before it is met
        self.path = path
        self._lock = LockFile(path.with_name(f"{path.name}.lock"))
        self._files = ObjectFiles(path.with_name(f"{path.name}-objects"), sync=durability == "fsync")
        self._file_threads: ThreadPoolExecutor | None = None
        self._thread: DatabaseThread | None = None
        # One process owns the database, so what was committed last is known. Written by the thread, read by the loop.
        self._heads: dict[str, Head] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Lock, connect, sweep what a crash left behind, resume interrupted deletes."""
        await self._take()
        try:
            if damage := await self._submit(runs.contradictions):
                log.error("%s is damaged, nothing in it is swept: %s", self.url, "; ".join(damage))
                return
            for uid in await self._submit(runs.marked):
                try:
                    await self._purge(uid)
                except StoreDamaged as damage:  # what is left of it is nobody's, and harms nobody
                    log.error("%s: the rest of a deleted run stays: %s", self.url, damage)
            named = await self._submit(runs.named_objects)
            await self._in_files(self._files.sweep, named.get)
        except BaseException:
            await self.close()
            raise

    async def open_to_read(self) -> None:
        """Lock and connect, only to look: nothing is made, swept or resumed. Raises StoreUnfit without a database."""
        if not self.path.is_file():
            raise StoreUnfit(f"there is no database at {self.path}: name the --store of the server that wrote it")
        await self._take()

    async def _take(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise StoreUnfit(f"{self.path} cannot be used: {error}") from error
        self._loop = asyncio.get_running_loop()
        self._file_threads = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="gradserve-files")
        self._thread = DatabaseThread(lambda: connect(self.path, self.durability), self._heads.clear)
        try:
            await self._thread.start()
        except BaseException:
            await self.close()
            raise

    async def check(self) -> None:
        """The thread answers."""
        await self._submit(runs.nothing)

    async def close(self) -> None:
        """Finish what was asked for, close the database, release the lock."""
        if self._file_threads is not None:
            await asyncio.to_thread(self._file_threads.shutdown)
        if self._thread is not None:
            await self._thread.close()
        self._file_threads = self._thread = None
        self._heads.clear()
        self._lock.release()

    async def memory_pressure(self) -> float:
        """A disk has no limit that is known before it is met."""
        return 0.0

    # Catalogue

    async def create(self, record: CatalogueRecord) -> CatalogueRecord:
        """See `Store.create`. A uid that was ever used is not used again."""
        return await self._submit(lambda db: runs.create(db, record))

    async def find(self, name: str) -> CatalogueRecord | None:
        """See `Store.find`."""
        return await self._submit(lambda db: runs.find(db, name))

    async def names(self, *, after: str = "", limit: int = 100) -> list[CatalogueRecord]:
        """See `Store.names`."""
        return await self._submit(lambda db: runs.names(db, after, limit))

    async def delete(self, name: str, uid: str) -> bool:
        """See `Store.delete`."""
        if not await self._submit(lambda db: runs.mark(db, name, uid), lambda _: self._forget(uid)):
            return False
        await self._purge(uid)
        return True

    def _forget(self, uid: str) -> None:
        self._heads.pop(uid, None)
        self._changed(uid)

    async def _purge(self, uid: str) -> None:
        while await self._submit(lambda db: runs.purge_step(db, uid)):
            pass
        await self._in_files(self._files.discard_run, uid)
        await self._submit(lambda db: runs.purge_end(db, uid))

    # The chain

    async def head(self, uid: str) -> Head:
        """See `Store.head`. From memory, except the first time."""
        known = self._heads.get(uid)
        if known is not None:
            return known
        return await self._submit(lambda db: runs.head(db, uid), lambda head: self._heads.__setitem__(uid, head))

    async def append(self, uid: str, expected: Head, records: Sequence[Record]) -> AppendResult:
        """See `Store.append`. Shares its transaction with whatever else is waiting."""
        require_next(expected, records)
        # The thread may write after the caller was cancelled, and its buffer went back to a pool: copy (64 KiB, 3 µs).
        records = [replace(record, inline=bytes(record.inline)) for record in records]
        last = Head(records[-1].position, records[-1].hash)

        def committed(result: AppendResult) -> None:
            if isinstance(result, Appended):
                self._heads[uid] = last
                self._changed(uid)

        return await self._submit(lambda db: runs.append(db, self._files, uid, expected, records), committed)

    async def read(self, uid: str, *, after: int, limit: int) -> list[Record]:
        """See `Store.read`."""
        return await self._submit(lambda db: runs.read(db, uid, after, limit))

    async def wait(self, uid: str, *, after: int, seconds: float) -> bool:
        """See `Store.wait`. Whoever appends is in this process."""
        arrived = asyncio.Event()
        self._waiting.setdefault(uid, set()).add(arrived)
        try:
            async with asyncio.timeout(seconds):
                while (await self.head(uid)).position <= after:
                    await arrived.wait()
                    arrived.clear()  # before the head is read again: an entry that comes meanwhile sets it again
            return True
        except (TimeoutError, RunAbsent):
            return False
        finally:
            self._waiting[uid].discard(arrived)
            if not self._waiting[uid]:
                del self._waiting[uid]

    def _changed(self, uid: str) -> None:
        """In the database's thread, after a commit that changed this chain."""
        if uid in self._waiting and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake, uid)

    def _wake(self, uid: str) -> None:
        for arrived in self._waiting.get(uid, ()):
            arrived.set()

    # Objects

    async def put_object(self, uid: str, pieces: Sequence[bytes | memoryview]) -> ObjectRef:
        """See `Store.put_object`."""
        return await self._in_files(self._files.put, uid, pieces)

    async def get_object(self, uid: str, ref: ObjectRef) -> memoryview:
        """See `Store.get_object`."""
        return await self._in_files(self._files.get, uid, ref)

    async def object_digest(self, uid: str, ref: ObjectRef) -> str:
        """See `Store.object_digest`."""
        return await self._in_files(self._files.digest, uid, ref)

    async def discard_object(self, uid: str, ref: ObjectRef) -> None:
        """See `Store.discard_object`."""
        await self._in_files(self._files.discard, uid, [ref.id])

    async def complaints(self) -> list[str]:
        """See `Store.complaints`."""
        structure = await self._submit(runs.broken_structure)
        return [
            *structure,
            *await self._submit(runs.contradictions),
            *await self._submit(runs.misplaced_names),
        ]

    # Snapshots

    async def snapshots(self, uid: str) -> list[SnapshotRecord]:
        """See `Store.snapshots`."""
        return await self._submit(lambda db: runs.snapshots(db, uid))

    async def publish(
        self,
        uid: str,
        expected: SnapshotRecord | None,
        snapshot: SnapshotRecord,
        *,
        damaged: Collection[SnapshotRecord] = (),
    ) -> bool:
        """See `Store.publish`."""
        published, unnamed = await self._submit(
            lambda db: runs.publish(db, self._files, uid, expected, snapshot, damaged)
        )
        # It is committed: what is not removed now the sweep gets, and nobody may take the snapshot for not published.
        with contextlib.suppress(StoreFull, StoreUnavailable):
            await self._in_files(self._files.discard, uid, unnamed)
        return published

    async def trim(self, uid: str) -> int:
        """See `Store.trim`. Files go after the commit that takes their names; the sweep gets what a crash leaves."""
        removed = 0
        while True:
            count, unnamed = await self._submit(lambda db: runs.trim_step(db, uid))
            await self._in_files(self._files.discard, uid, unnamed)
            removed += count
            if not count:
                return removed

    # Checkpoints

    async def checkpoints(self, uid: str) -> list[CheckpointRecord]:
        """See `Store.checkpoints`."""
        return await self._submit(lambda db: runs.checkpoints(db, uid))

    async def keep_checkpoint(self, uid: str, checkpoint: CheckpointRecord) -> CheckpointRecord | None:
        """See `Store.keep_checkpoint`."""
        return await self._submit(lambda db: runs.keep_checkpoint(db, self._files, uid, checkpoint))

    async def drop_checkpoint(self, uid: str, name: str) -> bool:
        """See `Store.drop_checkpoint`. The file goes after the commit; the sweep gets what a crash leaves."""
        bound, ref = await self._submit(lambda db: runs.drop_checkpoint(db, uid, name))
        if ref is not None:
            await self._in_files(self._files.discard, uid, [ref.id])
        return bound

    async def _submit(
        self, work: Callable[[sqlite3.Connection], Result], committed: Callable[[Result], None] | None = None
    ) -> Result:
        if self._thread is None:
            raise StoreUnavailable("the store is not open")
        return await self._thread.submit(work, committed)

    async def _in_files(self, work: Callable[..., Result], *arguments: object) -> Result:
        if self._file_threads is None:
            raise StoreUnavailable("the store is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._file_threads, work, *arguments)
        except OSError as error:
            raise trouble(error) from error
