"""The names of everything in Redis, and how records are written there. All keys of a run share one hash slot."""

from __future__ import annotations

from collections.abc import Iterable

from .records import OBJECT_CHUNK_BYTES, CatalogueRecord, CheckpointRecord, ObjectRef, Record, SnapshotRecord

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
    """An entry as XRANGE answers it."""
    identity, fields = reply
    assert isinstance(identity, bytes)
    assert isinstance(fields, list)
    _, header, _, digest, _, inline, _, named = fields
    place = ObjectRef.parse(named.decode()) if named else None
    return Record(int(identity[:-2]), digest, header, inline, place)


def snapshot_text(snapshot: SnapshotRecord) -> bytes:
    """`position hash object digest state`: what publish compares, and trim reads."""
    return f"{snapshot.position} {snapshot.hash.hex()} {snapshot.object} {snapshot.digest} {snapshot.state}".encode()


def snapshot_record(text: bytes) -> SnapshotRecord:
    """The pair of `snapshot_text`."""
    position, digest_hex, place, digest, state = text.decode().split(" ")
    return SnapshotRecord(int(position), bytes.fromhex(digest_hex), ObjectRef.parse(place), digest, state)


def checkpoint_text(checkpoint: CheckpointRecord) -> bytes:
    """`object created_at about`."""
    return f"{checkpoint.object} {checkpoint.created_at} ".encode() + checkpoint.about


def checkpoint_record(name: str, text: bytes) -> CheckpointRecord:
    """The pair of `checkpoint_text`."""
    place, created_at, about = text.split(b" ", 2)
    return CheckpointRecord(name, ObjectRef.parse(place.decode()), int(created_at), about)


def catalogue_text(record: CatalogueRecord) -> bytes:
    """`deleted|uid|created_at|genesis|creation`: delete.lua reads the first two and sets the first."""
    front = f"{int(record.deleted)}|{record.uid}|{record.created_at}|{record.genesis.hex()}|"
    return front.encode() + record.creation


def catalogue_record(name: str, text: bytes) -> CatalogueRecord:
    """The pair of `catalogue_text`."""
    deleted, uid, created_at, genesis, creation = text.split(b"|", 4)
    return CatalogueRecord(
        name, uid.decode(), creation, bytes.fromhex(genesis.decode()), int(created_at), deleted == b"1"
    )
