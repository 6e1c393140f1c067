"""Requests that change a run and may arrive twice: what is remembered of those that were carried out.

A client names such a request by an `Idempotency-Key`: the same again is answered with what the first one made, another
one under the same key is refused. A request without a key is carried out as often as it is sent, but never twice for
one sending: its server gives it a name of its own, by which it is known again when it has to be decided again because
the reply to its append was lost. Each kind of request, and the servers' own names, have their own places: a report
each step can push out reports only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final, Literal

from .entries import Entry, etag_of

__all__ = [
    "OWN",
    "REPEATS_KEPT",
    "Done",
    "Kind",
    "Made",
    "Repeats",
    "asked_digest",
    "found",
    "made_by",
    "remembered",
    "repeats_from_json",
    "repeats_json",
]

REPEATS_KEPT: Final = 512  # of each kind: an SDK repeats a request for 600 seconds, people change a run less often
OWN: Final = "own"  # the place of names that servers gave

Kind = Literal["load", "restore", "configure", "report"]


@dataclass(frozen=True, slots=True)
class Made:
    """What a `load` entry made: new weights, by an upload or by a restore."""

    version: int
    etag: str
    step: int
    position: int
    head: str  # of the chain, in hex
    first: bool = False  # the run's first weights


@dataclass(frozen=True, slots=True)
class Done:
    """A request that was carried out."""

    asked: str  # digest of what it asked for
    made: Made | None = None


Repeats = Mapping[str, Mapping[str, Done]]  # kind (or `OWN`) → key → what was done, the latest `REPEATS_KEPT`


def asked_digest(content: Any) -> str:
    """Tells requests of one kind apart by their content, JSON: 32 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _kind_of(entry: Entry) -> str:
    """The kind of request that led to an entry with a key."""
    return "restore" if "source" in entry.header else entry.kind


def made_by(entry: Entry) -> Made | None:
    """What an entry made, by the entry alone; None for one that is no `load`."""
    header = entry.header
    if entry.kind != "load":
        return None
    version, state = header["version_before"] + 1, header.get("state")
    step = header["step_before"] if state is None else state["step"]
    etag, first = etag_of(version, entry.hash), header["layout"] is not None
    return Made(version, etag, step, entry.position, entry.hash.hex(), first)


def remembered(repeats: Repeats, entry: Entry) -> Repeats:
    """The table after an entry. Copied where it changes: the state of before may still be read."""
    header = entry.header
    place, name = (_kind_of(entry), header.get("key")) if header.get("key") else (OWN, header.get("own_key"))
    if name is None:
        return repeats
    kept = {**repeats.get(place, {}), name: Done(header["asked"], made_by(entry))}
    while len(kept) > REPEATS_KEPT:
        del kept[next(iter(kept))]
    return {**repeats, place: kept}


def found(repeats: Repeats, key: str | None, own_key: str | None) -> tuple[str, Done] | None:
    """What is known by a client's key, with its kind, or by a server's own name."""
    if key is None:
        done = None if own_key is None else repeats.get(OWN, {}).get(own_key)
        return None if done is None else (OWN, done)
    places = ((place, kept[key]) for place, kept in repeats.items() if place != OWN and key in kept)
    return next(places, None)


def repeats_json(repeats: Repeats) -> dict[str, Any]:
    """The table for an image."""
    return {
        place: {key: [done.asked, None if done.made is None else astuple(done.made)] for key, done in kept.items()}
        for place, kept in repeats.items()
    }


def repeats_from_json(value: Mapping[str, Any]) -> Repeats:
    """The inverse of `repeats_json`."""
    return {
        place: {key: Done(asked, None if made is None else Made(*made)) for key, (asked, made) in kept.items()}
        for place, kept in value.items()
    }
