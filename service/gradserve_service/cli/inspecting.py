"""`gradserve inspect`: what a store holds, read from the store itself; no server is needed and nothing is changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from gradserve_service.replica.verification import complaints
from gradserve_service.store import Store, open_to_read
from gradserve_service.store.records import CatalogueRecord, Record

from .printing import (
    FAILED,
    AsJson,
    StoreUrl,
    amount,
    complaints_as_lines,
    fail,
    moment,
    print_json,
    print_table,
    store_url,
)

__all__ = ["inspect", "opened_to_read"]

PAGE = 256  # runs or entries a read


def inspect(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Only this run.", show_default=False)] = None,
    store: StoreUrl = None,
    entries: Annotated[int, typer.Option(min=0, help="Also print the last entries of the journal of RUN.")] = 0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read and verify everything; exit code 1 when something is damaged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a store holds: runs, journals, snapshots, checkpoints, heads. Reads only.

    With --verify every entry, payload, image and checkpoint is read and held against its digest, and the place of each
    damage is printed.

    An SQLite store belongs to one process at a time: stop its server, or ask the server (`gradserve status --url`).
    """
    with complaints_as_lines():
        if entries and run is None:
            fail("--entries needs the name of a run")
        found = asyncio.run((_verify if verify else _look)(store_url(store), run, entries))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.get("damage"):
        fail(f"{len(found['damage'])} damages: see docs/operations.md", FAILED)


def _print(found: dict[str, Any]) -> None:
    """The table, what was asked for below it, and what is damaged."""
    level = found["durability"]
    print(f"{found['store']}  durability {'as its server asks for' if level is None else level}")
    print_table(
        ("run", "uid", "created", "position", "head", "journal", "entries", "payloads", "snapshots at", "checkpoints"),
        [
            (
                row["name"], row["uid"], moment(row["created_at"]), row["position"], row["head"][:16],
                f"{row['first']}-{row['position']}" if row["entries"] else "-", row["entries"],
                amount(row["payload_bytes"]), ", ".join(str(at["position"]) for at in row["snapshots"]) or "-",
                ", ".join(each["name"] for each in row["checkpoints"]) or "-",
            )
            for row in found["runs"]
        ],
    )  # fmt: skip
    for row in found["runs"]:
        for header in row.get("last_entries", ()):
            print(json.dumps(header))
    for text in found.get("damage", ()):
        print(text)
    if found.get("damage") == []:
        print("everything is as it was written")


def _durability(store: Store) -> str | None:
    """What Redis gives. Of SQLite it is the choice of each server that writes there, and the file does not tell."""
    return None if store.kind == "sqlite" else store.durability


async def _verify(url: str, name: str | None, entries: int) -> dict[str, Any]:
    """Damage first: what is damaged cannot always be described."""
    async with opened_to_read(url) as store:
        damage = await store.complaints()
        runs = []
        for record in await _chosen(store, name):
            found = [text async for text in complaints(store, record)]
            if not found:
                runs.append(await _describe(store, record, entries))
            damage += found
        return {"store": store.url, "durability": _durability(store), "runs": runs, "damage": damage}


async def _chosen(store: Store, name: str | None) -> list[CatalogueRecord]:
    if name is None:
        return [record async for record in _runs(store)]
    record = await store.find(name)
    if record is None or record.deleted:
        fail(f"there is no run '{name}' in {store.url}" + (": it was deleted" if record else ""), 1)
    return [record]


async def _look(url: str, name: str | None, entries: int) -> dict[str, Any]:
    async with opened_to_read(url) as store:
        runs = [await _describe(store, record, entries) for record in await _chosen(store, name)]
        return {"store": store.url, "durability": _durability(store), "runs": runs}


@contextlib.asynccontextmanager
async def opened_to_read(url: str) -> AsyncIterator[Store]:
    """The store of a URL while the block runs. Raises StoreUnfit and StoreUnavailable."""
    store = await open_to_read(url)
    try:
        yield store
    finally:
        await store.close()


async def _runs(store: Store) -> AsyncIterator[CatalogueRecord]:
    after = ""
    while page := await store.names(after=after, limit=PAGE):
        for record in page:
            yield record
        after = page[-1].name


async def _describe(store: Store, run: CatalogueRecord, entries: int) -> dict[str, Any]:
    """A run in the store's words."""
    head = await store.head(run.uid)
    journal = _Journal(entries)
    after = 0
    while records := await store.read(run.uid, after=after, limit=PAGE):
        for record in records:
            journal.add(record)
        after = records[-1].position
    snapshots = await store.snapshots(run.uid)
    described: dict[str, Any] = {
        "name": run.name,
        "uid": run.uid,
        "created_at": run.created_at,
        "position": head.position,
        "head": head.hash.hex(),
        "first": journal.first,
        "entries": journal.count,
        "header_bytes": journal.header_bytes,
        "payload_bytes": journal.payload_bytes,
        "objects": journal.objects,
        "snapshots": [
            {"position": snapshot.position, "bytes": snapshot.object.size, "digest": snapshot.digest}
            for snapshot in snapshots
        ],
        "checkpoints": [
            {"name": each.name, "bytes": each.object.size, "created_at": each.created_at, **json.loads(each.about)}
            for each in await store.checkpoints(run.uid)
        ],
    }
    if entries:
        described["last_entries"] = journal.last
    return described


@dataclass(slots=True)
class _Journal:
    """What is counted while reading through a journal."""

    keep: int
    first: int | None = None
    count: int = 0
    header_bytes: int = 0
    payload_bytes: int = 0  # inline or in objects
    objects: int = 0
    last: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Count one entry."""
        self.first = self.first or record.position
        self.count += 1
        self.header_bytes += len(record.header)
        self.payload_bytes += memoryview(record.inline).nbytes + (record.object.size if record.object else 0)
        self.objects += record.object is not None
        if self.keep:
            self.last = [*self.last, {"hash": record.hash.hex(), **json.loads(record.header)}][-self.keep :]
