"""What an SQLite store does inside a transaction. Every function checks all it has to before its first write."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Sequence

from .object_files import ObjectFiles
from .protocols import RunAbsent, StoreDamaged
from .reading import UNREADABLE, untold
from .records import (
    Appended,
    AppendResult,
    CatalogueRecord,
    CheckpointRecord,
    Head,
    HeadMoved,
    ObjectRef,
    ObjectsMissing,
    Record,
    RunGone,
    SnapshotRecord,
    catalogue_seal,
    checkpoint_seal,
    snapshot_seal,
)
from .sqlite_schema import (
    LIVING,
    MARKED,
    REMOVED,
    catalogue_record,
    checkpoint_record,
    entry_record,
    snapshot_record,
    span,
)

STEP_ENTRIES = 64  # entries removed in one transaction: others wait for it, 10 ms with payloads of 40 KB
READ_BYTES_MAX = 16 << 20  # inline payloads a read

_NAME_COLUMNS = "name, uid, creation, genesis, created_at, seal, deleted"


def nothing(db: sqlite3.Connection) -> None:
    """One cheap question."""
    db.execute("SELECT 1").fetchone()


def create(db: sqlite3.Connection, record: CatalogueRecord) -> CatalogueRecord:
    """Bind the name unless it stands for a living run; a uid that was ever used stays used."""
    kept = find(db, record.name)
    used = db.execute("SELECT 1 FROM runs WHERE uid = ?", (record.uid,)).fetchone()
    if kept is not None and (not kept.deleted or used):
        return kept
    if used:
        raise ValueError(f"uid {record.uid} is taken")
    row = (record.name, record.uid, record.creation, record.genesis, record.created_at, catalogue_seal(record))
    db.execute(f"INSERT OR REPLACE INTO names ({_NAME_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, 0)", row)
    run = (record.uid, record.genesis, record.genesis)
    db.execute("INSERT INTO runs (uid, genesis, position, head) VALUES (?, ?, 0, ?)", run)
    return record


def find(db: sqlite3.Connection, name: str) -> CatalogueRecord | None:
    """The record of a name."""
    row = db.execute(f"SELECT {_NAME_COLUMNS} FROM names WHERE name = ?", (name,)).fetchone()
    return None if row is None else catalogue_record(row)


def names(db: sqlite3.Connection, after: str, limit: int) -> list[CatalogueRecord]:
    """Living runs behind `after`, in the order of their names' UTF-8 bytes. A name that damage made bytes comes behind
    every text: there is no next page behind it, and `contradictions` has it."""
    where = "name > CAST(? AS TEXT) AND name < x'' AND NOT deleted ORDER BY name LIMIT ?"
    rows = db.execute(f"SELECT {_NAME_COLUMNS} FROM names WHERE {where}", (untold(after), limit))
    return [catalogue_record(row) for row in rows]


def mark(db: sqlite3.Connection, name: str, uid: str) -> bool:
    """Mark a run deleted and free its name, if the name still stands for it."""
    if not db.execute("UPDATE names SET deleted = 1 WHERE name = ? AND uid = ? AND NOT deleted", (name, uid)).rowcount:
        return False
    db.execute("UPDATE runs SET state = ? WHERE uid = ?", (MARKED, uid))
    return True


def marked(db: sqlite3.Connection) -> list[str]:
    """Runs whose delete was interrupted."""
    return [uid for (uid,) in db.execute("SELECT uid FROM runs WHERE state = ?", (MARKED,))]


def purge_step(db: sqlite3.Connection, uid: str) -> bool:
    """Remove some rows of a marked run; answers whether there were any."""
    row = db.execute("SELECT number FROM runs WHERE uid = ? AND state = ?", (uid, MARKED)).fetchone()
    if row is None:
        return False
    first, end = span(row[0])
    chosen = "SELECT place FROM entries WHERE place >= ? AND place < ? LIMIT ?"
    removed = db.execute(f"DELETE FROM entries WHERE place IN ({chosen})", (first, end, STEP_ENTRIES)).rowcount
    db.execute("DELETE FROM snapshots WHERE place >= ? AND place < ?", (first, end))
    db.execute("DELETE FROM checkpoints WHERE run = ?", row)
    return removed > 0


def purge_end(db: sqlite3.Connection, uid: str) -> None:
    """The mark stays for good: late writes are told that the run was deleted."""
    db.execute("UPDATE runs SET state = ? WHERE uid = ? AND state = ?", (REMOVED, uid, MARKED))


def named_objects(db: sqlite3.Connection) -> dict[str, set[str]]:
    """Of every living run the ids of objects that an entry, a snapshot or a checkpoint names."""
    numbers: dict[int, str] = dict(db.execute("SELECT number, uid FROM runs WHERE state = ?", (LIVING,)))
    named: dict[str, set[str]] = {uid: set() for uid in numbers.values()}
    columns = "place, CAST(object AS TEXT)"  # of a damaged one not even the type is sure
    both = f"SELECT {columns} FROM entries WHERE object IS NOT NULL UNION ALL SELECT {columns} FROM snapshots"
    for place, text in db.execute(both):
        uid = numbers.get(place // span(1)[0])
        if uid is not None:
            named[uid].add(text.partition(":")[0])
    for number, text in db.execute("SELECT run, CAST(object AS TEXT) FROM checkpoints"):
        if number in numbers:
            named[numbers[number]].add(text.partition(":")[0])
    return named


def head(db: sqlite3.Connection, uid: str) -> Head:
    """Where the chain ends. Kept beside the entries: were it read from them, one that is lost would not be missed."""
    number, _ = _living(db, uid)
    position, digest = db.execute("SELECT position, head FROM runs WHERE number = ?", (number,)).fetchone()
    return Head(position, digest)


def append(
    db: sqlite3.Connection, files: ObjectFiles, uid: str, expected: Head, records: Sequence[Record]
) -> AppendResult:
    """Compare-and-append on the head hash."""
    try:
        number, _ = _living(db, uid)
        current = head(db, uid)
    except RunAbsent as absent:
        return RunGone(absent.deleted)
    if current.hash != expected.hash:
        return HeadMoved(current)
    objects = [record.object for record in records if record.object is not None]
    missing = dict.fromkeys(ref.id for ref in objects if not files.complete(uid, ref))
    if missing:
        return ObjectsMissing(tuple(missing))
    first, _ = span(number)
    db.executemany(
        "INSERT INTO entries (place, hash, header, inline, object) VALUES (?, ?, ?, ?, ?)",
        (
            (
                first + record.position,
                record.hash,
                record.header,
                record.inline,
                str(record.object) if record.object else None,
            )
            for record in records
        ),
    )
    last = records[-1]
    db.execute("UPDATE runs SET position = ?, head = ? WHERE number = ?", (last.position, last.hash, number))
    return Appended()


def read(db: sqlite3.Connection, uid: str, after: int, limit: int) -> list[Record]:
    """Entries behind a position."""
    number, _ = _living(db, uid)
    first, end = span(number)
    rows = db.execute(
        "SELECT place, hash, header, inline, object FROM entries WHERE place > ? AND place < ? ORDER BY place LIMIT ?",
        (first + after, end, limit),
    )
    records, size = list[Record](), 0
    for row in rows:
        records.append(entry_record(row))
        size += len(records[-1].inline)
        if size >= READ_BYTES_MAX:
            break
    return records


def snapshots(db: sqlite3.Connection, uid: str) -> list[SnapshotRecord]:
    """Newest first."""
    return [record for _, record in _numbered_snapshots(db, uid)]


def _numbered_snapshots(db: sqlite3.Connection, uid: str) -> list[tuple[int, SnapshotRecord]]:
    """Newest first, with their row numbers, which rise with every publish."""
    number, _ = _living(db, uid)
    columns = "number, place, hash, object, digest, state, seal"
    rows = db.execute(
        f"SELECT {columns} FROM snapshots WHERE place >= ? AND place < ? ORDER BY number DESC LIMIT 2", span(number)
    )
    return [(row[0], snapshot_record(row[1:])) for row in rows]


def publish(
    db: sqlite3.Connection,
    files: ObjectFiles,
    uid: str,
    expected: SnapshotRecord | None,
    snapshot: SnapshotRecord,
    damaged: Collection[SnapshotRecord],
) -> tuple[bool, list[str]]:
    """Compare-and-set; also answers the ids of objects that nothing names any more."""
    try:
        number, genesis = _living(db, uid)
    except RunAbsent:
        return False, []
    kept = _numbered_snapshots(db, uid)
    newest = kept[0][1] if kept else None
    if newest != expected or (newest is not None and newest not in damaged and snapshot.position <= newest.position):
        return False, []
    first, _ = span(number)
    row = db.execute("SELECT hash FROM entries WHERE place = ?", (first + snapshot.position,)).fetchone()
    hash_there = genesis if snapshot.position == 0 else row and row[0]
    if hash_there != snapshot.hash or not files.complete(uid, snapshot.object):
        return False, []
    db.execute(
        "INSERT INTO snapshots (place, hash, object, digest, state, seal) VALUES (?, ?, ?, ?, ?, ?)",
        (
            first + snapshot.position,
            snapshot.hash,
            str(snapshot.object),
            snapshot.digest,
            snapshot.state,
            snapshot_seal(snapshot),
        ),
    )
    whole = [place for place, old in kept if old not in damaged]
    dropped = [(place, old) for place, old in kept if place not in whole[:1]]
    db.executemany("DELETE FROM snapshots WHERE number = ?", [(place,) for place, _ in dropped])
    return True, _unnamed(db, [str(old.object) for _, old in dropped])


def trim_step(db: sqlite3.Connection, uid: str) -> tuple[int, list[str]]:
    """Remove some entries up to the previous snapshot's position: how many, and the objects that only they named."""
    try:
        kept = snapshots(db, uid)
        number, _ = _living(db, uid)
    except RunAbsent:
        return 0, []
    if len(kept) < 2 or not kept[1].sound:
        return 0, []
    first, _ = span(number)
    rows = db.execute(
        "SELECT place, object FROM entries WHERE place >= ? AND place <= ? ORDER BY place LIMIT ?",
        (first, first + kept[1].position, STEP_ENTRIES),
    ).fetchall()
    if not rows:
        return 0, []
    db.execute("DELETE FROM entries WHERE place >= ? AND place <= ?", (first, rows[-1][0]))
    return len(rows), _unnamed(db, [named for _, named in rows if named is not None])


def checkpoints(db: sqlite3.Connection, uid: str) -> list[CheckpointRecord]:
    """In the order of their names' UTF-8 bytes."""
    number, _ = _living(db, uid)
    columns = "name, object, created_at, about, seal"
    rows = db.execute(f"SELECT {columns} FROM checkpoints WHERE run = ? ORDER BY name", (number,))
    return [checkpoint_record(row) for row in rows]


def keep_checkpoint(
    db: sqlite3.Connection, files: ObjectFiles, uid: str, checkpoint: CheckpointRecord
) -> CheckpointRecord | None:
    """Bind the name unless it is bound."""
    number, _ = _living(db, uid)
    kept = next((each for each in checkpoints(db, uid) if each.name == checkpoint.name), None)
    if kept is not None:
        return kept
    if not files.complete(uid, checkpoint.object):
        return None
    db.execute(
        "INSERT INTO checkpoints (run, name, object, created_at, about, seal) VALUES (?, ?, ?, ?, ?, ?)",
        (
            number,
            checkpoint.name,
            str(checkpoint.object),
            checkpoint.created_at,
            checkpoint.about,
            checkpoint_seal(checkpoint),
        ),
    )
    return checkpoint


def drop_checkpoint(db: sqlite3.Connection, uid: str, name: str) -> tuple[bool, ObjectRef | None]:
    """Free the name; answers whether it was bound, and the object that nothing names any more. Which one a damaged
    record meant nobody knows: the sweep gets it."""
    number, _ = _living(db, uid)
    which = "run = ? AND name = ?"
    row = db.execute(f"SELECT object FROM checkpoints WHERE {which}", (number, name)).fetchone()
    if row is None:
        return False, None
    db.execute(f"DELETE FROM checkpoints WHERE {which}", (number, name))
    with contextlib.suppress(*UNREADABLE):
        return True, ObjectRef.parse(row[0])
    return True, None


def contradictions(db: sqlite3.Connection) -> list[str]:
    """Where names and runs do not agree, and marks that no delete made. Nothing is swept in such a store: what looks
    unnamed may be needed."""
    found = []
    living = dict(db.execute("SELECT uid, name FROM names WHERE NOT deleted"))
    states = {uid: (state, genesis) for uid, genesis, state in db.execute("SELECT uid, genesis, state FROM runs")}
    for uid, name in living.items():
        state, genesis = states.get(uid, (None, None))
        if state != LIVING:
            found.append(f"the name {name!r} stands for run {uid}, which is {'gone' if state is None else 'deleted'}")
        elif db.execute("SELECT 1 FROM names WHERE uid = ? AND genesis = ?", (uid, genesis)).fetchone() is None:
            found.append(f"run {uid} has another genesis hash than its name {name!r}")
    found += [f"run {uid} has no name" for uid, (state, _) in states.items() if state == LIVING and uid not in living]
    found += [f"the name {name!r} is no text" for name in living.values() if not isinstance(name, str)]
    return found


def broken_structure(db: sqlite3.Connection) -> list[str]:
    """What SQLite itself finds."""
    rows = [text for (text,) in db.execute("PRAGMA integrity_check")]
    return [] if rows == ["ok"] else [f"SQLite: {text}" for text in rows]


def misplaced_names(db: sqlite3.Connection) -> list[str]:
    """Snapshots and checkpoints of runs that are not there."""
    numbers = {number for (number,) in db.execute("SELECT number FROM runs")}
    found = []
    for table, question in (
        ("entries", f"SELECT DISTINCT place / {span(1)[0]} FROM entries"),
        ("snapshots", f"SELECT DISTINCT place / {span(1)[0]} FROM snapshots"),
        ("checkpoints", "SELECT DISTINCT run FROM checkpoints"),
    ):
        strays = {number for (number,) in db.execute(question)} - numbers
        found += [f"{table} of run number {number}, which is not there" for number in sorted(strays)]
    return found


def _named(db: sqlite3.Connection, uid: str) -> bool:
    return db.execute("SELECT 1 FROM names WHERE uid = ? AND NOT deleted", (uid,)).fetchone() is not None


def _unnamed(db: sqlite3.Connection, objects: list[str]) -> list[str]:
    """Ids of those that no entry and no snapshot names."""
    question = (
        "SELECT EXISTS (SELECT 1 FROM entries WHERE object = ?1) OR EXISTS (SELECT 1 FROM snapshots WHERE object = ?1)"
    )
    return [text.partition(":")[0] for text in objects if not db.execute(question, (text,)).fetchone()[0]]


def _living(db: sqlite3.Connection, uid: str) -> tuple[int, bytes]:
    row = db.execute("SELECT number, genesis, state FROM runs WHERE uid = ?", (uid,)).fetchone()
    if row is None or row[2] != LIVING:
        if row is not None and _named(db, uid):
            raise StoreDamaged(f"run {uid} is marked deleted, and its name still stands for it")
        raise RunAbsent(uid, deleted=row is not None)
    number, genesis, _ = row
    return number, genesis
