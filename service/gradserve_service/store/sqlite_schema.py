"""Tables of an SQLite store, and how its connection is set up."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from .protocols import StoreUnfit
from .reading import UNREADABLE, UNREADABLE_SNAPSHOT, readable, require_types, told, unreadable_checkpoint
from .records import (
    CatalogueRecord,
    CheckpointRecord,
    Durability,
    ObjectRef,
    Record,
    SnapshotRecord,
    catalogue_seal,
    checkpoint_seal,
    snapshot_seal,
)

SCHEMA_VERSION = 4
PAGE_BYTES = 16 << 10  # measured: best for payloads of 40 KB, and small entries do not pay for it
POSITION_BITS = 40  # of an entry's row number; the rest is the run's: one B-tree, each run's entries side by side
SYNCHRONOUS: dict[Durability, str] = {"memory": "OFF", "journal": "NORMAL", "fsync": "FULL"}

LIVING, MARKED, REMOVED = 0, 1, 2  # runs.state: marked runs are deleted, their rows and files are on the way out

_SCHEMA = f"""
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, genesis BLOB NOT NULL, state INTEGER NOT NULL DEFAULT 0,
    position INTEGER NOT NULL, head BLOB NOT NULL
);
CREATE TABLE names (
    name TEXT PRIMARY KEY, uid TEXT NOT NULL, creation BLOB NOT NULL, genesis BLOB NOT NULL,
    created_at INTEGER NOT NULL, seal TEXT NOT NULL, deleted INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE entries (
    place INTEGER PRIMARY KEY, hash BLOB NOT NULL, header BLOB NOT NULL, inline BLOB NOT NULL, object TEXT
);
CREATE INDEX entry_objects ON entries (object) WHERE object IS NOT NULL;
CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY, place INTEGER NOT NULL, hash BLOB NOT NULL, object TEXT NOT NULL, digest TEXT NOT NULL,
    state TEXT NOT NULL, seal TEXT NOT NULL
);
CREATE TABLE checkpoints (
    run INTEGER NOT NULL, name TEXT NOT NULL, object TEXT NOT NULL, created_at INTEGER NOT NULL, about BLOB NOT NULL,
    seal TEXT NOT NULL, PRIMARY KEY (run, name)
) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""


def connect(path: Path, durability: Durability) -> sqlite3.Connection:
    """Open or create the database. Raises StoreUnfit with what to do."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=True)
    except sqlite3.Error as error:
        raise StoreUnfit(f"{path} cannot be opened ({error}): its directory must be there and writable") from error
    connection.text_factory = told  # else one damaged text fails every question that meets it, about other runs as well
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA cell_size_check = ON")  # a damaged page is noticed when it is read
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        elif version != SCHEMA_VERSION:
            raise StoreUnfit(
                f"{path} has layout {version}, this release knows {SCHEMA_VERSION}: use the one that wrote it"
            )
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the second: SQLite's message quotes damaged bytes
        connection.close()
        raise StoreUnfit(f"{path} is not a database of Gradserve ({error}): name another file") from error
    except StoreUnfit:
        connection.close()
        raise
    return connection


def span(number: int) -> tuple[int, int]:
    """Row numbers of a run's entries (and snapshots): from, up to and without."""
    return number << POSITION_BITS, (number + 1) << POSITION_BITS


def position_of(place: int) -> int:
    """The position in a row number."""
    return place & ((1 << POSITION_BITS) - 1)


def entry_record(row: tuple[int, bytes, bytes, bytes, str | None]) -> Record:
    """A row of `entries`. Raises StoreDamaged."""
    place, digest, header, inline, named = row
    with readable(f"entry {position_of(place)}"):
        require_types((digest, bytes), (header, bytes), (inline, bytes))
        return Record(position_of(place), digest, header, inline, ObjectRef.parse(named) if named else None)


def snapshot_record(row: tuple[int, bytes, str, str, str, str]) -> SnapshotRecord:
    """A row of `snapshots`."""
    place, digest, named, image, state, written = row
    try:
        require_types((digest, bytes), (image, str), (state, str))
        record = SnapshotRecord(position_of(place), digest, ObjectRef.parse(named), image, state)
        return record if snapshot_seal(record) == written else replace(record, sound=False)
    except UNREADABLE:
        return UNREADABLE_SNAPSHOT


def checkpoint_record(row: tuple[str, str, int, bytes, str]) -> CheckpointRecord:
    """A row of `checkpoints`."""
    name, named, created_at, about, written = row
    try:
        require_types((name, str), (created_at, int), (about, bytes))
        record = CheckpointRecord(name, ObjectRef.parse(named), created_at, about)
        return record if checkpoint_seal(record) == written else replace(record, sound=False)
    except UNREADABLE:
        return unreadable_checkpoint(str(name))


def catalogue_record(row: tuple[str, str, bytes, bytes, int, str, int]) -> CatalogueRecord:
    """A row of `names`."""
    name, uid, creation, genesis, created_at, written, deleted = row
    try:
        require_types((name, str), (uid, str), (creation, bytes), (genesis, bytes), (created_at, int))
        record = CatalogueRecord(name, uid, creation, genesis, created_at, bool(deleted))
        return record if catalogue_seal(record) == written else replace(record, sound=False)
    except UNREADABLE:
        return CatalogueRecord(str(name), str(uid), b"", b"", 0, bool(deleted), sound=False)
