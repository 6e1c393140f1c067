"""A scrub: read everything that a store holds of a run, and say of each thing that is damaged where it is.

A start reads the newest image and the journal behind it. The previous image, older entries and checkpoints are read
only when they are needed; whoever wants to know before that asks for this.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

from ..core.entries import ChainBroken, Entry, read_entry
from ..store.protocols import RunAbsent, Store, StoreDamaged
from ..store.records import CatalogueRecord, CheckpointRecord, Head, Record, SnapshotRecord
from .recovery import Damaged, check_creation, payload_of
from .snapshots import is_whole

PAGE = 64  # entries a read


async def complaints(store: Store, run: CatalogueRecord) -> AsyncIterator[str]:
    """Every damage found in a run; nothing when all is as it was written."""
    try:
        check_creation(run)
    except Damaged as damage:
        yield str(damage)
        return
    try:
        head = await store.head(run.uid)
        snapshots = await store.snapshots(run.uid)
    except (RunAbsent, StoreDamaged) as damage:
        yield f"run '{run.name}': {damage}"
        return
    async for text in _of_journal(store, run, head, snapshots):
        yield f"run '{run.name}': {text}"
    for snapshot in snapshots:
        if not await is_whole(store, run.uid, snapshot):
            yield f"run '{run.name}': the snapshot of position {snapshot.position} is damaged"
    for checkpoint in await store.checkpoints(run.uid):
        if not await _checkpoint_is_whole(store, run.uid, checkpoint):
            yield f"run '{run.name}': the checkpoint '{checkpoint.name}' is damaged"


async def _of_journal(
    store: Store, run: CatalogueRecord, head: Head, snapshots: Iterable[SnapshotRecord]
) -> AsyncIterator[str]:
    """Every entry continues the one before it and has its payload, and the last is the head."""
    known = {snapshot.position: snapshot.hash for snapshot in snapshots if snapshot.sound} | {0: run.genesis}
    position, link = 0, run.genesis
    try:
        async for record in _records(store, run.uid):
            if record.position != position + 1:
                if position or record.position - 1 not in known:
                    yield f"between entry {position} and entry {record.position} the journal has a gap"
                position = record.position - 1
                link = known.get(position, b"")
            if link and known.get(position, link) != link:
                yield f"the snapshot of position {position} is of another history"
            async for text in _of_entry(store, run.uid, record, link):
                yield text
            position, link = record.position, record.hash
    except StoreDamaged as damage:
        yield str(damage)
        return
    if (position, link) != (head.position, head.hash) and (position or head.position not in known):
        yield f"the journal ends with entry {position}, the head says {head.position}"


async def _records(store: Store, uid: str) -> AsyncIterator[Record]:
    after = 0
    while page := await store.read(uid, after=after, limit=PAGE):
        for record in page:
            yield record
        after = page[-1].position


async def _of_entry(store: Store, uid: str, record: Record, link: bytes) -> AsyncIterator[str]:
    """Its place in the chain, and its payload."""
    try:
        entry = read_entry(record.position, link, record.header, record.hash)
    except (ChainBroken, ValueError) as broken:
        yield f"{broken}" if isinstance(broken, ChainBroken) else f"entry {record.position} cannot be read"
        return
    if text := await _payload_complaint(store, uid, record, entry):
        yield text


async def _payload_complaint(store: Store, uid: str, record: Record, entry: Entry) -> str | None:
    try:
        frame = await payload_of(store, uid, record, entry)
    except (ChainBroken, Damaged, StoreDamaged) as damage:
        return str(damage)
    if frame is None:
        return f"entry {entry.position} has a payload that it does not name" if record.inline or record.object else None
    if frame.digest != entry.header["digest"]:
        return f"the payload of entry {entry.position} is not the one that was journaled"
    return None


async def _checkpoint_is_whole(store: Store, uid: str, checkpoint: CheckpointRecord) -> bool:
    with suppress(KeyError, StoreDamaged):
        said = json.loads(checkpoint.about)["digest"] if checkpoint.sound else None
        return bool(await store.object_digest(uid, checkpoint.object) == said)
    return False
