"""One bit in a text of an SQLite store: the run that it belongs to is damaged, and no other hears of it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from gradserve_service.replica import Replicas
from gradserve_service.replica.verification import complaints
from gradserve_service.store import open_to_read
from replica.runs import a_run, push, refusal, server

OBJECTS = {"inline_payload_bytes_max": 512}  # payloads of 400 parameters are objects of their own
SIZE = 400
RUN = "(SELECT number FROM runs ORDER BY number LIMIT 1)"  # the first one that was created, `aaaa`
PLACES = {  # column: one row of run `aaaa`
    "entries.object": f"place = ({RUN} << 40) + 2",
    "snapshots.object": f"place >> 40 = {RUN}",
    "snapshots.digest": f"place >> 40 = {RUN}",
    "snapshots.state": f"place >> 40 = {RUN}",
    "snapshots.seal": f"place >> 40 = {RUN}",
    "checkpoints.name": f"run = {RUN}",
    "checkpoints.object": f"run = {RUN}",
    "checkpoints.seal": f"run = {RUN}",
    "names.name": "name = 'aaaa'",
    "names.uid": "name = 'aaaa'",
    "names.seal": "name = 'aaaa'",
    "runs.uid": f"number = {RUN}",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that is not there yet."""
    return tmp_path / "store.db"


async def filled(path: Path) -> None:
    """Two runs with an object, a snapshot and a checkpoint each, `aaaa` before `other`."""
    async with server(f"sqlite:///{path}", **OBJECTS) as replicas:
        for name in ("aaaa", "other"):
            run = await a_run(replicas, SIZE, name=name)
            await push(run, 1, size=SIZE)
            await run.checkpoints.create("kept")
            assert await replicas._open[name][1].leave_snapshot()
            await push(run, 2, size=SIZE)


def damaged(path: Path, column: str, change: str) -> None:
    """One bit of the text (its fourth byte is no UTF-8 then), or of its type (the same bytes, no text any more)."""
    table, _, name = column.partition(".")
    with contextlib.closing(sqlite3.connect(path)) as database:
        (text,) = database.execute(f"SELECT {name} FROM {table} WHERE {PLACES[column]}").fetchone()
        raw = bytearray(text.encode())
        if change == "a high bit":
            raw[3] ^= 0x80
        kind = "TEXT" if change == "a high bit" else "BLOB"
        changed = f"UPDATE {table} SET {name} = CAST(? AS {kind}) WHERE {PLACES[column]}"
        assert database.execute(changed, (bytes(raw),)).rowcount == 1
        database.commit()


async def found(path: Path) -> list[str]:
    """What `gradserve inspect --verify` says."""
    store = await open_to_read(f"sqlite:///{path}")
    try:
        said = await store.complaints()
        after = ""
        while page := await store.names(after=after, limit=1):
            for record in page:
                said += [text async for text in complaints(store, record)]
            assert page[-1].name != after
            after = page[-1].name
        return said
    finally:
        await store.close()


async def goes_on(replicas: Replicas, name: str) -> None:
    """The run takes a gradient, and is listed."""
    assert (await push(await replicas.open(name), 3, size=SIZE)).outcome["version"] == 3
    assert name in [run["name"] for run in await replicas.list_runs()]


@pytest.mark.parametrize("change", ["a high bit", "the type"])
@pytest.mark.parametrize("column", PLACES)
async def test_a_damaged_text_is_its_own_runs_trouble(path: Path, column: str, change: str) -> None:
    """Whichever text of whichever record: a server starts, the other run answers, and the scrub finds it, page by
    page."""
    await filled(path)
    assert await found(path) == []
    damaged(path, column, change)
    said = await found(path)
    assert said != []
    assert not any("run 'other'" in text for text in said)
    async with server(f"sqlite:///{path}", **OBJECTS) as replicas:
        assert await replicas.ready() == []
        await goes_on(replicas, "other")


async def test_a_checkpoint_whose_object_cannot_be_read_is_deleted_all_the_same(path: Path) -> None:
    """As its refusal says; then the name is free again."""
    await filled(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"UPDATE checkpoints SET object = replace(object, ':', 'z') WHERE run = {RUN}")
        database.commit()
    async with server(f"sqlite:///{path}", **OBJECTS) as replicas:
        run = await replicas.open("aaaa")
        assert await refusal(run.checkpoints.create("kept")) == "checkpoint-not-found"
        await run.checkpoints.delete("kept")
        assert await refusal(run.checkpoints.delete("kept")) == "checkpoint-not-found"
        assert (await run.checkpoints.create("kept"))[1]


async def test_the_rest_of_a_deleted_run_with_a_damaged_uid_keeps_no_server_from_its_start(path: Path) -> None:
    """The delete was interrupted, and what it would resume names nothing."""
    await filled(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE names SET deleted = 1 WHERE name = 'aaaa'")
        database.execute(f"UPDATE runs SET state = 1, uid = replace(uid, substr(uid, 4, 1), '/') WHERE number = {RUN}")
        database.commit()
    async with server(f"sqlite:///{path}", **OBJECTS) as replicas:
        await goes_on(replicas, "other")
