"""The names of everything in Redis, and how records are written there. All keys of a run share one hash slot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .reading import UNREADABLE, UNREADABLE_SNAPSHOT, readable, unreadable_checkpoint
from .records import (
    OBJECT_CHUNK_BYTES,
    CatalogueRecord,
    CheckpointRecord,
    ObjectRef,
    Record,
    SnapshotRecord,
    catalogue_seal,
    checkpoint_seal,
    snapshot_seal,
)

CATALOGUE = b"gradserve:catalogue"  # hash: name -> catalogue record, deleted ones included
NAMES = b"gradserve:names"  # sorted set, all scores 0: names of living runs in byte order
DELETING = b"gradserve:deleting"  # set: uids of runs marked deleted whose keys are not all removed yet


def run_key(uid: str) -> bytes:
    """Hash: genesis, head, position, newest, previous (snapshots), trimmed (a position), deleted (once it is)."""
    return b"gradserve:{%b}:run" % uid.encode()


def journal_key(uid: str) -> bytes:
    """Stream of entries; the id is `<position>-0`, the fields are h, c, p, o: header, hash, payload, object."""
    return b"gradserve:{%b}:journal" % uid.encode()


def objects_key(uid: str) -> bytes:
    """Sorted set: objects that entries name, by the position of the (last) entry that does."""
    return b"gradserve:{%b}:objects" % uid.encode()


def checkpoints_key(uid: str) -> bytes:
    """Hash: name -> checkpoint record."""
    return b"gradserve:{%b}:checkpoints" % uid.encode()


def chunk_keys(uid: str, ref: ObjectRef) -> list[bytes]:
    """One string of up to OBJECT_CHUNK_BYTES each."""
    return [b"gradserve:{%b}:object:%b:%d" % (uid.encode(), ref.id.encode(), i) for i in range(ref.chunks)]


def chunk_lengths(ref: ObjectRef) -> list[bytes]:
    """How long each chunk of a complete object is, as text."""
    last = ref.size - (ref.chunks - 1) * OBJECT_CHUNK_BYTES
    return [b"%d" % OBJECT_CHUNK_BYTES] * (ref.chunks - 1) + [b"%d" % last]


def object_of_chunk(key: bytes) -> str:
    """The id of the object that a chunk belongs to."""
    return key.rsplit(b":", 2)[1].decode()


def entry_fields(record: Record) -> Iterable[bytes | memoryview]:
    """Position, header, hash, payload, object: the five arguments an entry has in append.lua."""
    named = str(record.object).encode() if record.object is not None else b""
    return (b"%d" % record.position, record.header, record.hash, record.inline, named)


def entry_record(reply: list[object]) -> Record:
    """An entry as XRANGE answers it. Raises StoreDamaged."""
    identity, fields = reply
    assert isinstance(identity, bytes)
    assert isinstance(fields, list)
    with readable(f"entry {identity.decode()}"):
        _, header, _, digest, _, inline, _, named = fields
        place = ObjectRef.parse(named.decode()) if named else None
        return Record(int(identity[:-2]), digest, header, inline, place)


def snapshot_text(snapshot: SnapshotRecord) -> bytes:
    """`position hash object digest state seal`: what publish compares, and trim reads."""
    said = f"{snapshot.position} {snapshot.hash.hex()} {snapshot.object} {snapshot.digest} {snapshot.state}"
    return f"{said} {snapshot_seal(snapshot)}".encode()


def snapshot_record(text: bytes) -> SnapshotRecord:
    """The pair of `snapshot_text`."""
    try:
        position, digest_hex, place, digest, state, _ = text.decode().split(" ")
        record = SnapshotRecord(int(position), bytes.fromhex(digest_hex), ObjectRef.parse(place), digest, state)
        return record if snapshot_text(record) == text else replace(record, sound=False)
    except UNREADABLE:
        return UNREADABLE_SNAPSHOT


def checkpoint_text(checkpoint: CheckpointRecord) -> bytes:
    """`object created_at seal about`."""
    said = f"{checkpoint.object} {checkpoint.created_at} {checkpoint_seal(checkpoint)} "
    return said.encode() + checkpoint.about


def checkpoint_record(name: str, text: bytes) -> CheckpointRecord:
    """The pair of `checkpoint_text`."""
    try:
        place, created_at, _, about = text.split(b" ", 3)
        record = CheckpointRecord(name, ObjectRef.parse(place.decode()), int(created_at), about)
        return record if checkpoint_text(record) == text else replace(record, sound=False)
    except UNREADABLE:
        return unreadable_checkpoint(name)


def catalogue_text(record: CatalogueRecord) -> bytes:
    """`deleted|uid|created_at|genesis|seal|creation`: delete.lua reads the first two and sets the first."""
    front = f"{int(record.deleted)}|{record.uid}|{record.created_at}|{record.genesis.hex()}|{catalogue_seal(record)}|"
    return front.encode() + record.creation


def catalogue_record(name: str, text: bytes) -> CatalogueRecord:
    """The pair of `catalogue_text`."""
    with readable(f"the record of run {name!r}"):
        deleted, uid, created_at, genesis, _, creation = text.split(b"|", 5)
        genesis_hash = bytes.fromhex(genesis.decode())
        record = CatalogueRecord(name, uid.decode(), creation, genesis_hash, int(created_at), deleted == b"1")
        return record if catalogue_text(record) == text else replace(record, sound=False)
