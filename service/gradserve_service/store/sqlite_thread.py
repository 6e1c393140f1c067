"""One thread owns the SQLite connection. The loop hands it work and awaits futures.

Everything that waits when the thread comes round is done in one transaction: the price of a sync to disk is shared
by all runs that write at that moment, and nobody's answer is given before the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from .protocols import StoreFull, StoreUnavailable, StoreUnfit

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]

BATCH_MAX = 64  # pieces of work in one transaction: the first must not wait long for the last


@dataclass(slots=True)
class _Task:
    work: Work[Any]
    committed: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = field(default=None)


class DatabaseThread:
    """`submit` runs a function on the connection, inside a transaction.

    What the function raises undoes all it did, and nothing of the others in its transaction.
    `failed` is called, in the thread, after a commit that may or may not have happened.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], failed: Callable[[], None]) -> None:
        self._connect = connect
        self._failed = failed
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="gradserve-sqlite", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed = False

    async def start(self) -> None:
        """Connect, in the thread. Raises what `connect` raises."""
        self._thread.start()
        await self._opened

    async def close(self) -> None:
        """Finish what was submitted, close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    async def submit(self, work: Work[Result], committed: Callable[[Result], None] | None = None) -> Result:
        """The result of `work(connection)` after its commit; `committed(result)` runs in the thread just before."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put(_Task(work, committed, future))
        return await future

    def _run(self) -> None:
        try:
            self._connection = self._connect()
        except Exception as error:  # noqa: BLE001 - raised again where `start` is awaited
            self._loop.call_soon_threadsafe(_fail, self._opened, error)
            return
        self._loop.call_soon_threadsafe(_succeed, self._opened)
        try:
            while (task := self._queue.get()) is not None:
                batch = [task]
                while len(batch) < BATCH_MAX and not self._queue.empty():
                    following = self._queue.get()
                    if following is None:
                        self._queue.put(None)
                        break
                    batch.append(following)
                self._do(batch)
                self._loop.call_soon_threadsafe(_resolve, batch)
        finally:
            self._connection.close()

    def _do(self, batch: list[_Task]) -> None:
        """All in one transaction; if that fails, nothing was written, and each is tried alone."""
        try:
            self._transaction(self._connection, batch)
        except (sqlite3.Error, MemoryError) as error:
            if len(batch) == 1:
                batch[0].error = store_trouble(error)
                return
            for task in batch:
                task.error = None
                self._do([task])

    def _transaction(self, connection: sqlite3.Connection, batch: list[_Task]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for task in batch:
                connection.execute("SAVEPOINT task")
                try:
                    task.result = task.work(connection)
                except sqlite3.Error:
                    raise
                except Exception as error:  # noqa: BLE001 - raised again where `submit` is awaited
                    task.error = error
                    connection.execute("ROLLBACK TO task")  # a MemoryError may come between two rows
                connection.execute("RELEASE task")
            connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError):
            self._failed()
            self._undo()
            raise
        for task in batch:
            if task.error is None and task.committed is not None:
                task.committed(task.result)

    def _undo(self) -> None:
        """Roll back. A connection that cannot do even that is replaced: else its transaction would stay open, and
        nothing would ever be written again. What it had written goes with it."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except (sqlite3.Error, MemoryError):
            self._connection.close()
            with contextlib.suppress(sqlite3.Error, StoreUnfit):  # the old one then says that it is closed
                self._connection = self._connect()


def store_trouble(error: sqlite3.Error | MemoryError) -> StoreFull | StoreUnavailable:
    """What an error of SQLite means for the caller."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StoreFull(f"SQLite: {error}")
    return StoreUnavailable(f"SQLite: {error}")


def _resolve(batch: list[_Task]) -> None:
    for task in batch:
        if task.future.done():  # its caller was cancelled
            continue
        if task.error is not None:
            task.future.set_exception(task.error)
        else:
            task.future.set_result(task.result)


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
