"""What a store keeps: plain frozen records, no behaviour beyond their own text form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from xxhash import xxh3_64_hexdigest

INLINE_BYTES_MAX = 64 << 10  # the most a payload inside its entry may have: one round trip
OBJECT_CHUNK_BYTES = 4 << 20  # Redis stalls 6-10 ms on a value of 4 MiB, 240 ms on 64 MiB

Durability = Literal["memory", "journal", "fsync"]
DURABILITY_LEVELS: tuple[Durability, ...] = ("memory", "journal", "fsync")  # weakest first


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: how many entries, and the hash of the last (32 bytes)."""

    position: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Where a large payload or an image lies. `id` is random for each attempt to write it: a late or
    repeated write can never touch an object that an entry already names."""

    id: str
    size: int  # bytes

    @property
    def chunks(self) -> int:
        return max(1, -(-self.size // OBJECT_CHUNK_BYTES))

    def __str__(self) -> str:
        return f"{self.id}:{self.size}"

    @classmethod
    def parse(cls, text: str) -> ObjectRef:
        """The inverse of `str`. Raises ValueError."""
        name, size = text.split(":")
        return cls(name, int(size))


@dataclass(frozen=True, slots=True)
class Record:
    """An entry as the store keeps it: the exact header bytes, the chain hash after it, and the payload or its place.

    hash = SHA-256(hash of the record before ‖ header). At most one of `inline` and `object` is set.
    """

    position: int  # from 1
    hash: bytes
    header: bytes
    inline: bytes | memoryview = b""
    object: ObjectRef | None = None


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A published image and the place in the chain that it stands for."""

    position: int
    hash: bytes
    object: ObjectRef
    digest: str  # xxh3-128 of the image's bytes, hex
    state: str = "-"  # digest of what the image means, equal on every host; no spaces
    sound: bool = True  # False: the store gave back other bytes than were written, nothing here can be relied on


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A name that a user gave to a state. The object belongs to it alone, and goes with it."""

    name: str
    object: ObjectRef
    created_at: int  # milliseconds since the epoch
    about: bytes  # what the replica wants to know without opening the object
    sound: bool = True  # as of a snapshot


@dataclass(frozen=True, slots=True)
class CatalogueRecord:
    """A name and the run it stands for. `creation` is the exact JSON that the genesis hash covers."""

    name: str
    uid: str
    creation: bytes
    genesis: bytes  # 32 bytes: the head hash at position 0
    created_at: int  # milliseconds since the epoch
    deleted: bool = False
    sound: bool = True  # as of a snapshot


@dataclass(frozen=True, slots=True)
class Appended:
    """The entries are on top of the chain."""


@dataclass(frozen=True, slots=True)
class HeadMoved:
    """The chain ends elsewhere: nothing was written."""

    head: Head


@dataclass(frozen=True, slots=True)
class ObjectsMissing:
    """Objects named by the entries are gone or incomplete: nothing was written."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunGone:
    """The run is deleted, or the store does not know it: nothing was written."""

    deleted: bool  # False: the store has lost it


def seal(*parts: object) -> str:
    """What is written beside a record that no chain covers, so that a changed bit in it is seen (xxh3-64, hex)."""
    return xxh3_64_hexdigest(b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts))


def snapshot_seal(snapshot: SnapshotRecord) -> str:
    """Over all of it."""
    return seal(snapshot.position, snapshot.hash, snapshot.object, snapshot.digest, snapshot.state)


def checkpoint_seal(checkpoint: CheckpointRecord) -> str:
    """Over all of it."""
    return seal(checkpoint.name, checkpoint.object, checkpoint.created_at, checkpoint.about)


def catalogue_seal(record: CatalogueRecord) -> str:
    """Over all but `deleted`: a delete sets that in place, and the run's own mark confirms it."""
    return seal(record.name, record.uid, record.creation, record.genesis, record.created_at)


AppendResult = Appended | HeadMoved | ObjectsMissing | RunGone


def require_next(expected: Head, records: Sequence[Record]) -> None:
    """Raises ValueError unless the records continue the expected head, and their payloads are where they belong."""
    if not records:
        raise ValueError("nothing to append")
    for position, record in enumerate(records, expected.position + 1):
        if record.position != position:
            raise ValueError(f"entry at position {record.position}, expected {position}")
        size = memoryview(record.inline).nbytes
        if size > INLINE_BYTES_MAX:
            raise ValueError(f"an inline payload of {size} bytes; over {INLINE_BYTES_MAX} it is an object")
        if size and record.object is not None:
            raise ValueError("a payload is inline or an object, not both")
