"""What happens to an SQLite store: its server is killed, its disk fills up, a second server wants it."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gradserve_service.store import Store, StoreFull, StoreUnavailable, StoreUnfit, open_store, sqlite_runs
from gradserve_service.store.records import DURABILITY_LEVELS, Durability
from gradserve_service.store.sqlite_store import SqliteStore
from store.chains import Chain, catalogue, kept_objects, opened, record

OWNER = """
import asyncio, sys
from gradserve_service.store import open_store
from store.chains import Chain

async def main(url, level):
    store = open_store(url, level)
    await store.open()
    chain = await Chain.create(store)
    await chain.put(await chain.object(b"payload"))
    while True:
        await chain.put(b"x" * 2_000)
        print(chain.head.position, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that is not there yet."""
    return f"sqlite:///{tmp_path / 'gradserve.db'}"


@pytest.fixture
def owner(url: str, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another server that owns the store, appends for ever, and prints each acknowledged position."""
    level = getattr(request, "param", "journal")
    child = subprocess.Popen(
        [sys.executable, "-c", OWNER, url, level],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])},
    )
    with child:
        yield child
        child.kill()


def acknowledged(owner: subprocess.Popen[str]) -> int:
    """The next position that the owner was told."""
    assert owner.stdout is not None
    return int(owner.stdout.readline())


@pytest.mark.parametrize("owner", DURABILITY_LEVELS, indirect=True)
async def test_kill_9_of_a_server_loses_nothing_acknowledged(owner: subprocess.Popen[str], url: str) -> None:
    """At every level: what SQLite wrote is in the operating system's hands. The lock goes with its owner."""
    while acknowledged(owner) < 40:
        pass
    owner.send_signal(signal.SIGKILL)
    assert owner.stdout is not None
    last = max([40, *(int(line) for line in owner.stdout if line.endswith("\n"))])
    store = await opened(url)
    run = await store.find("digits")
    assert run is not None
    chain = Chain(store, run)
    positions = [entry.position for entry in await chain.read()]
    assert positions == list(range(1, len(positions) + 1))
    assert len(positions) >= last
    await store.close()


async def test_a_second_server_is_refused_and_told_who_owns_the_store(owner: subprocess.Popen[str], url: str) -> None:
    """By its process id; once it is gone the store can be opened."""
    acknowledged(owner)
    store = open_store(url, "journal")
    with pytest.raises(StoreUnfit, match=f"process id {owner.pid}:"):
        await store.open()
    owner.kill()
    owner.wait()
    await store.open()
    await store.close()


async def test_a_second_store_in_one_process_is_refused_too(url: str) -> None:
    """The lock is not the process', it is the store's."""
    store = await opened(url)
    with pytest.raises(StoreUnfit, match=str(os.getpid())):
        await open_store(url, "journal").open()
    await store.close()
    await (await reopened(store, url)).close()


async def reopened(store: Store, url: str) -> Store:
    """A new store on the same database, after the old one is closed."""
    await store.close()
    return await opened(url)


async def test_objects_that_nothing_names_are_swept_at_open(url: str) -> None:
    """Uploads that no entry followed, halves of files, and directories of runs that are not there."""
    store = await opened(url)
    chain = await Chain.create(store)
    payload, _orphan = await chain.object(), await chain.object()
    await chain.put(payload, b"b")
    snapshot = await chain.publish(1)
    stranger = await store.put_object("nobody", [b"x"])
    assert isinstance(store, SqliteStore)
    (store._files.root / "u1" / "abc.partial").write_bytes(b"half")
    await store.close()
    store = await opened(url)
    assert await kept_objects(url, "u1") == {payload.id, snapshot.object.id}
    with pytest.raises(KeyError):
        await store.get_object("nobody", stranger)
    assert await store.get_object("u1", payload) == b"object"
    await store.close()


async def test_an_interrupted_delete_is_resumed_at_open(url: str, tmp_path: Path) -> None:
    """A server died right after it had set the mark."""
    store = await opened(url)
    chain = await Chain.create(store)
    await chain.put(*(b"%d" % n for n in range(300)), await chain.object())
    await chain.publish(1)
    await store.close()
    with sqlite3.connect(tmp_path / "gradserve.db") as database:
        assert sqlite_runs.mark(database, "digits", "u1")
    database.close()
    await (await opened(url)).close()
    database = sqlite3.connect(tmp_path / "gradserve.db")
    assert database.execute("SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM snapshots)").fetchone() == (
        0,
        0,
    )
    database.close()
    assert await kept_objects(url, "u1") == set()


async def test_a_full_database_refuses_and_goes_on_when_there_is_room(url: str) -> None:
    """SQLite's own error; the batch that did not fit leaves nothing, and the head stays where it was."""
    store = await opened(url)
    assert isinstance(store, SqliteStore)
    chain = await Chain.create(store)

    async def limit(pages: int) -> None:
        await store._submit(lambda database: database.execute(f"PRAGMA max_page_count = {pages}").fetchone())

    await limit(30)
    with pytest.raises(StoreFull):
        await grow(chain)
    assert 0 < len(chain.entries) < 20
    assert await store.head("u1") == chain.head
    assert await chain.read() == chain.entries
    await limit(1_000)
    await chain.put(os.urandom(60_000), b"small")
    await store.close()


async def grow(chain: Chain) -> None:
    """Append until the store refuses."""
    while len(chain.entries) < 200:
        await chain.put(os.urandom(60_000), b"small")


async def test_work_that_fails_is_undone_and_the_head_is_read_again(url: str) -> None:
    """It had written something; and after a failed commit nobody knows from memory what is on the disk."""
    store = await opened(url)
    assert isinstance(store, SqliteStore)
    chain = await Chain.create(store)
    await chain.put(b"a")

    def breaks(database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM entries")
        database.execute("INSERT INTO runs (uid, genesis, position, head) VALUES ('u1', x'00', 0, x'00')")

    with pytest.raises(StoreUnavailable, match="UNIQUE"):
        await store._submit(breaks)
    assert store._heads == {}
    assert await store.head("u1") == chain.head
    assert await chain.read() == chain.entries
    await store.close()


async def test_an_append_that_does_not_fit_does_not_take_others_of_its_transaction_with_it(url: str) -> None:
    """They share one commit; the one that fails is left out, the others are tried again."""
    store = await opened(url)
    assert isinstance(store, SqliteStore)
    chains = [await Chain.create(store, f"run-{n}", f"u{n}") for n in range(5)]
    await store._submit(lambda database: database.execute("PRAGMA max_page_count = 12").fetchone())
    await store._submit(lambda database: database.execute("PRAGMA cache_spill = 0").fetchone())
    small = [chain.put(b"small") for chain in chains[1:]]
    big = chains[0].put(*[bytes(60_000)] * 8)
    *fits, full = await asyncio.gather(*small, big, return_exceptions=True)
    assert isinstance(full, StoreFull)
    assert all(isinstance(result, list) for result in fits)
    assert await chains[0].read() == []
    for chain in chains[1:]:
        assert await chain.read() == chain.entries
    await store.close()


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """`ulimit -f`: the operating system refuses to let a file grow further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_takes_no_unlink_does_not_unpublish(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot is committed: who believed otherwise would remove the image of the newest one."""
    store = await opened(url)
    chain = await Chain.create(store)
    await chain.put(*(b"%d" % n for n in range(5)))
    first, second, third = await chain.publish(0), await chain.publish(1), await chain.image(3)

    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    assert isinstance(store, SqliteStore)
    with monkeypatch.context() as patch:
        patch.setattr(store._files, "discard", full)
        assert await store.publish("u1", second, third)
    assert await store.snapshots("u1") == [third, second]
    assert first.object.id in await kept_objects(url, "u1")
    await store.close()


async def test_a_full_disk_refuses_an_object_and_keeps_no_half_of_it(url: str) -> None:
    """Nothing is left behind, and the next one is written."""
    store = await opened(url)
    chain = await Chain.create(store)
    with files_no_longer_than(1 << 20), pytest.raises(StoreFull):
        await chain.object(bytes(4 << 20))
    assert await kept_objects(url, "u1") == set()
    await chain.put(await chain.object(bytes(4 << 20)))
    await store.close()


@pytest.mark.parametrize(("level", "synchronous"), [("memory", 0), ("journal", 1), ("fsync", 2)])
async def test_the_level_is_sqlites_synchronous(url: str, level: Durability, synchronous: int) -> None:
    """OFF, NORMAL, FULL; in WAL mode."""
    store = open_store(url, level)
    await store.open()
    assert isinstance(store, SqliteStore)
    found = await store._submit(
        lambda database: [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    )
    assert found == [synchronous, "wal"]
    assert store.durability == level
    assert await store.memory_pressure() == 0.0
    await store.close()


async def test_files_are_synced_before_they_are_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At level fsync: the file, then (after the rename) its directory. At the others nothing waits for the disk."""
    calls: list[str] = []
    true_fsync, true_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        calls.append("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        true_fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return true_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    for level, expected in (("journal", ["rename"]), ("fsync", ["file", "rename", "directory"])):
        store = open_store(url, level)  # type: ignore[arg-type]
        await store.open()
        await store.create(catalogue())
        await store.put_object("u1", [b"first: makes the directory"])
        calls.clear()
        await store.put_object("u1", [b"payload"])
        assert calls == expected
        await store.close()


async def test_a_file_that_is_no_database_of_ours_is_left_alone(url: str, tmp_path: Path) -> None:
    """Nor is one of a later release."""
    path = tmp_path / "gradserve.db"
    path.write_bytes(b"these are my notes, not a database" * 100)
    with pytest.raises(StoreUnfit, match="not a database of Gradserve"):
        await open_store(url, "journal").open()
    assert path.read_bytes().startswith(b"these are my notes")
    path.unlink()
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(StoreUnfit, match="layout 99"):
        await open_store(url, "journal").open()


async def test_a_place_that_cannot_be_written_to_is_unfit(tmp_path: Path) -> None:
    """A directory where the file should be; a file where the directory should be."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory.db").mkdir()
    for path in (tmp_path / "file" / "x.db", tmp_path / "directory.db"):
        with pytest.raises(StoreUnfit):
            await open_store(f"sqlite:///{path}", "journal").open()


async def test_a_closed_store_says_so(url: str) -> None:
    """And closing twice is no error."""
    store = await opened(url)
    chain = await Chain.create(store)
    await store.close()
    await store.close()
    for question in (
        store.append("u1", chain.head, [record(chain.head)]),
        store.head("u1"),
        store.check(),
        store.put_object("u1", [b"x"]),
    ):
        with pytest.raises(StoreUnavailable, match="not open"):
            await question


async def test_a_cancelled_append_keeps_its_own_copy_of_the_payload(url: str) -> None:
    """The caller's buffer goes back to a pool while the thread may still write."""
    store = await opened(url)
    chain = await Chain.create(store)
    buffer = bytearray(b"as it was")
    entry = record(chain.head, memoryview(buffer))
    appending = asyncio.create_task(store.append("u1", chain.head, [entry]))
    await asyncio.sleep(0)
    appending.cancel()
    buffer[:] = b"overwritt"
    await asyncio.gather(appending, return_exceptions=True)
    assert [bytes(kept.inline) for kept in await chain.read()] in ([], [b"as it was"])
    await store.close()
