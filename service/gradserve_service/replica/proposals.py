"""What goes through a run's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gradserve.specs import PushFields
from gradserve.wire import Frame

from ..core.control import WorkerRow
from ..core.entries import Entry
from ..core.gradient import Gradient
from ..core.machine import Append, Push, Request, Verdict
from ..limits import Limits
from ..store.protocols import Store
from ..store.records import ObjectRef, Record
from .recovery import State


@dataclass(slots=True, eq=False)
class Proposal:
    """A request on its way through the queue, and what it brings."""

    request: Request
    answer: asyncio.Future[Verdict]
    frame: Frame | None = None
    gradient: Gradient | None = None
    object: ObjectRef | None = None
    object_named: bool = False  # maybe by the journal: no longer ours to discard
    row: WorkerRow | None = None  # the worker's, right behind the verdict
    look: Callable[[State], Any] | None = None  # read the state between two entries, where nothing is half-written
    seen: Any = None  # what `look` returned
    timings: dict[str, float] = field(default_factory=dict)


Decided = list[tuple[Proposal, Verdict]]


def name_objects(decided: Decided) -> list[Proposal]:
    """Mark the payloads that an append is about to name, and were named by none before it: whose they are."""
    named = [
        proposal
        for proposal, verdict in decided
        if isinstance(verdict, Append) and verdict.entry.header.get("size") and not proposal.object_named
    ]
    for proposal in named:
        proposal.object_named = True
    return named


def take_back(named: list[Proposal]) -> None:
    """Their append wrote nothing. What one before it named, which had no reply and may still run, is not among them."""
    for proposal in named:
        proposal.object_named = False


async def record_of(proposal: Proposal, entry: Entry, store: Store, uid: str, limits: Limits) -> Record:
    """The entry with its payload, inline or uploaded by now."""
    frame = proposal.frame
    if frame is None or not entry.header.get("size"):
        return Record(entry.position, entry.hash, entry.raw)
    if frame.size <= limits.inline_payload_bytes_max:
        return Record(entry.position, entry.hash, entry.raw, inline=b"".join(frame.stored()))
    if proposal.object is None:
        proposal.object = await store.put_object(uid, frame.stored())
    return Record(entry.position, entry.hash, entry.raw, object=proposal.object)


def push_request(
    worker: str,
    sequence: int,
    frame: Frame,
    fields: PushFields,
    digest: str = "",
    non_finite: tuple[str, ...] = (),
) -> Push:
    """A push by what it says of itself and what was measured of it."""
    return Push(
        worker=worker,
        sequence=sequence,
        digest=digest,
        size=frame.size,
        codec=frame.dtype,
        layout=frame.layout,
        rows=frame.rows_needed,
        non_finite=non_finite,
        base_version=fields.base_version,
        base=fields.base,
        generation=fields.generation,
        after=fields.after,
        samples=fields.samples,
        loss=fields.loss,
        cursor=fields.cursor,
        lr=fields.lr,
        loss_scale=fields.loss_scale,
    )
