"""Entries and their chain.

An entry is a small header, kept exactly as its decider wrote it, and maybe a payload. The hash after an entry is

    hash = SHA-256(hash before ‖ header bytes)            genesis = SHA-256("gradserve/1" ‖ uid ‖ creation bytes)

so equal heads mean equal histories. The chain detects faults of a store, not forgers. Nobody writes a header twice:
a parsed header is for reading, the bytes are what is hashed and kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["load", "push", "join", "leave", "configure", "report"]


class ChainBroken(Exception):
    """What was read does not continue the chain held here: the state must be dropped and restored."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted step of a run. `hash` is the head of the chain once this entry is on top."""

    header: Mapping[str, Any]
    raw: bytes
    hash: bytes

    @property
    def position(self) -> int:
        return int(self.header["position"])

    @property
    def kind(self) -> Kind:
        kind: Kind = self.header["kind"]
        return kind

    @property
    def short_hash(self) -> str:
        """16 hex digits: the distinguishing part of an ETag and of a receipt."""
        return self.hash[:8].hex()


def genesis_hash(uid: str, creation: bytes) -> bytes:
    """The head of a chain without entries (32 bytes)."""
    return hashlib.sha256(b"gradserve/1" + uid.encode() + creation).digest()


def write_entry(previous: bytes, header: Mapping[str, Any]) -> Entry:
    """Write a header on top of `previous`. Floats are written as their shortest exact decimal form."""
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return Entry(header, raw, hashlib.sha256(previous + raw).digest())


def read_entry(position: int, previous: bytes, raw: bytes, claimed: bytes) -> Entry:
    """Read a header that must continue the chain at `position` (the position held + 1) on `previous`.

    Raises `ChainBroken` for a gap (that range was trimmed), another history, or changed bytes.
    """
    actual = hashlib.sha256(previous + raw).digest()
    if actual != claimed:
        raise ChainBroken(f"entry {position} does not continue the history held here")
    entry = Entry(json.loads(raw), raw, actual)
    if entry.position != position:
        raise ChainBroken(f"expected entry {position}, the journal goes on with {entry.position}")
    return entry


def etag_of(version: int, entry_hash: bytes) -> str:
    """Names one vector of weights: a number may come again after a lost tail, with its entry's hash it does not."""
    return f'"{version}-{entry_hash[:8].hex()}"'
