"""Reading what a store gave back: bytes that cannot be what was written are told, never guessed at."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from .protocols import StoreDamaged
from .records import CheckpointRecord, ObjectRef, SnapshotRecord

UNREADABLE = (ValueError, TypeError, AttributeError)  # what a changed bit makes of a text, a number, a type
UNREADABLE_SNAPSHOT = SnapshotRecord(-1, b"", ObjectRef("unreadable", 0), "", sound=False)


def unreadable_checkpoint(name: str) -> CheckpointRecord:
    """What stands for a checkpoint of which only the name can be read."""
    return CheckpointRecord(name, ObjectRef("unreadable", 0), 0, b"", sound=False)


def told(raw: bytes) -> str:
    """A text as a store gave it back. Damaged bytes still have to be told: they stand for themselves, as `\\xe9`."""
    return raw.decode("utf-8", "backslashreplace")


def untold(text: str) -> bytes:
    """The bytes that `told` was given: what is behind a damaged name is asked for by them."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode())


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """What cannot be read inside the block raises StoreDamaged, which names it."""
    try:
        yield
    except UNREADABLE as error:
        raise StoreDamaged(f"{what} cannot be read: {error}") from None


def require_types(*pairs: tuple[object, type]) -> None:
    """Raises TypeError unless each value is of the type that was written."""
    for value, kind in pairs:
        if not isinstance(value, kind):
            raise TypeError(f"expected {kind.__name__}, came {type(value).__name__}")
